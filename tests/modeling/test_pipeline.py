"""transformers.pipeline knows one tokenizer and LiRA has two: it ends with an error that says what to use, and never with wrong numbers."""

import pytest
from small_backbones import SMALL
from transformers import pipeline

from lira_hf import LiraForCausalLM, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor

TASKS = {"feature-extraction": LiraForRetrieval, "text-classification": LiraForSequenceClassification, "text-generation": LiraForCausalLM}


@pytest.mark.parametrize("task", TASKS)
def test_a_pipeline_that_would_use_one_tokenizer_for_both_paths_is_refused(backbones, llms, tmp_path, task):
    llm = {"llm": llms["qwen3-lm"]} if task == "text-generation" else {}
    TASKS[task].from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL, **llm).save_pretrained(tmp_path)
    LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], **llm).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="multilingual_input_ids: missing.* as LiraProcessor does"):
        pipeline(task, model=str(tmp_path), device="cpu")("ทีวี 55 นิ้ว")
