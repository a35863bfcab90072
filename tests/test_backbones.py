"""The tiny language model: what it reads, that it learns, and that a finished one is kept."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lira_hf.backbones import alternating, build_llm, train_llm, train_tiny_llm
from lira_hf.catalogue.problems.backbone_text import solved_problems


def test_pairs_of_two_kinds_take_turns_by_the_batch():
    assert alternating([1, 2, 3, 4], [5, 6, 7, 8], 2) == [1, 2, 5, 6, 3, 4, 7, 8]


@pytest.fixture(scope="module")
def solved():
    return solved_problems(300, seed=1)


def test_a_word_and_a_number_are_one_token_each(solved):
    tokenizer, model = build_llm(solved, 0)
    assert tokenizer.tokenize("One mug costs 135 baht.") == ["one", "mug", "costs", "135", "baht", "."]
    assert tokenizer.decode(tokenizer("3 * 5 = 15")["input_ids"]) == "3 * 5 = 15"
    assert tokenizer.unk_token_id not in [token for two in solved for text in two for token in tokenizer(text)["input_ids"]]
    assert model.config.vocab_size == len(tokenizer) and model.config.eos_token_id == tokenizer.eos_token_id


def test_it_learns_to_write_solutions(solved):
    tokenizer, model = build_llm(solved, 0)
    question, solution = solved[0]
    asked, written = tokenizer(question)["input_ids"], [*tokenizer(solution)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([asked + written])
    loss = lambda: float(model(input_ids=ids, labels=torch.tensor([[-100] * len(asked) + written])).loss.detach())  # noqa: E731
    before = loss()
    train_llm(model, tokenizer, solved[:2], 40, 8, 0, progress=False)
    assert loss() < 0.3 * before and not model.training


def test_a_finished_one_is_kept(tmp_path):
    make = lambda steps: train_tiny_llm(tmp_path, steps=steps, rows=20, batch_size=4, show_progress_bar=False)  # noqa: E731
    folder = make(2)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left" and set(tokenizer("a mug")) == {"input_ids", "attention_mask"}
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    weights = folder / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert make(2) == folder and weights.stat().st_mtime_ns == made
    make(1)
    assert weights.stat().st_mtime_ns != made and json.loads((folder / "recipe.json").read_text())["steps"] == 1
