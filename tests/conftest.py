"""Fixtures shared by all tests: folders of small backbones, and a processor and a model around two of them."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread on a busy machine makes a forward pass 50 times slower

import pytest
import torch
from small_backbones import KINDS, LLMS, QWEN, SMALL, stirred, train_tokenizer
from trainings import STAGES
from transformers import AutoModel, AutoModelForCausalLM

from lira_hf import LiraForRetrieval, LiraProcessor


@pytest.fixture(scope="session")
def backbones(tmp_path_factory) -> dict[str, str]:
    """Folders of small backbones by kind."""
    return {kind: saved(tmp_path_factory.mktemp(kind), AutoModel, make, special) for kind, (special, make) in KINDS.items()}


@pytest.fixture(scope="session")
def llms(tmp_path_factory) -> dict[str, str]:
    """Folders of small causal language models by kind."""
    return {kind: saved(tmp_path_factory.mktemp(kind), AutoModelForCausalLM, make, QWEN) for kind, make in LLMS.items()}


def saved(folder, auto_class, make, special: dict[str, str]) -> str:
    """A folder with a model of random weights and a tokenizer that fits it."""
    torch.manual_seed(7)
    tokenizer = train_tokenizer(special)
    auto_class.from_config(make(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def processor(backbones) -> LiraProcessor:
    return LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"])


@pytest.fixture
def model(backbones) -> LiraForRetrieval:
    """A retrieval model whose trained part is no longer at its start, so that every part of it shows in the embedding."""
    torch.manual_seed(0)
    model = LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL)
    return stirred(model)


@pytest.fixture(scope="session")
def stage_data(tmp_path_factory):
    """The folder of a stage's data, made when first asked for."""
    made = {}

    def folder(stage: str) -> str:
        if STAGES[stage] not in made:
            made[STAGES[stage]] = str(STAGES[stage](tmp_path_factory.mktemp("data") / stage))
        return made[STAGES[stage]]

    return folder
