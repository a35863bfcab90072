"""The reasoning stage: problems as data, what a response says, the stage on a recipe."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_backbones import SMALL, stirred

from lira_hf import LiraForCausalLM, LiraForRetrieval, LiraProcessor
from lira_hf.catalogue.problems.builder import build_problems
from lira_hf.collation import Problem, ProblemData, ReasoningCollator, read
from lira_hf.evaluation.reasoning import MORE_TOKENS, choice, choice_score, is_right, lettered, number, responses, score, summary
from lira_hf.features import fill
from lira_hf.modeling.processing_lira import Row
from lira_hf.training import check_recipe, load_recipe, run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(build_problems(tmp_path_factory.mktemp("problems") / "data", rows=30, languages=["id", "th"]))


@pytest.fixture(scope="module")
def parts(data) -> list[ProblemData]:
    return [read(data, code, "test") for code in ("id", "th")]


@pytest.fixture(scope="module")
def reader(backbones, llms):
    return LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["qwen3-lm"], llm_prompt="Q: {question} A:")


@pytest.fixture
def lm(backbones, llms):
    torch.manual_seed(0)
    return stirred(LiraForCausalLM.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["qwen3-lm"], **SMALL))


# ---- data --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_problems_is_read_as_such(parts, data):
    for part, code in zip(parts, ("id", "th"), strict=True):
        assert part.language == code and part.rows(references=True) == [problem.row for problem in part.problems]
        for problem in part.problems:
            assert problem.row.text and problem.row.translations and problem.row.language == code
            assert len(problem.row.scores) == len(problem.row.translations) and problem.choices[problem.label] == problem.answer
    assert not {problem.template for problem in parts[0].problems} & {problem.template for problem in read(data, "id", "train").problems}


def test_problems_become_prompts_and_answers(parts, reader):
    problems = parts[0].problems[:5]
    batch = ReasoningCollator(reader)(problems)
    for i, problem in enumerate(problems):
        means = [sum(triple) / 3 for triple in problem.row.scores]
        asked = problem.row.translations[means.index(max(means))]
        ids, labels = batch["input_ids"][i], batch["labels"][i]
        assert reader.llm_tokenizer.decode(ids[batch["attention_mask"][i].bool()]) == f"Q: {asked} A:{problem.response}<|endoftext|>"
        assert reader.llm_tokenizer.decode(labels[labels != -100]) == f"{problem.response}<|endoftext|>"
    without = ReasoningCollator(reader, responses=False)(problems)
    assert "labels" not in without and set(without) == set(batch) - {"labels"}


def test_cached_features_give_the_loss_and_the_responses_of_the_text(lm, reader, parts, tmp_path):
    problems = parts[1].problems[:6]
    store = fill(tmp_path, lm.lira, reader, [problem.row for problem in problems], show_progress_bar=False)
    text, cached = (ReasoningCollator(encoder)(problems) for encoder in (reader, store))
    assert "multilingual_features" in cached and "multilingual_input_ids" not in cached
    torch.testing.assert_close(lm(**cached).loss, lm(**text).loss, atol=1e-4, rtol=1e-4)
    assert responses(lm, store, problems) == responses(lm, reader, problems, batch_size=4)


def test_the_processor_of_a_reasoning_model_serves_other_heads(lm, reader, model, processor):
    texts, candidates = ["ทีวี 55", "a"], [["tv 55"], []]
    assert torch.equal(model(**reader(texts, candidates)).embeddings, model(**processor(texts, candidates)).embeddings)
    assert isinstance(model, LiraForRetrieval)


# ---- what a response says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 42), ("The answer is 42.", 42), ("2 shirts at 30 each: 2*30 = 60", 60), ("#### 1,234", 1234), ("1,234,567.50", "1234567.5"), ("3.50", "3.5"),
        ("#### 7 because 8", 8), ("8 #### 7", 7), ("5-3", 3), ("= -3", -3), ("−3 degrees", -3), ("๑๒ บาท", 12), ("৪২", 42), ("۴۲ روپے", 42), ("Rp12", 12),
        ("12%", 12), ("007", 7), ("1,2", 2), ("12,3456", 3456), ("(-5)", -5), ("", None), ("no idea", None), ("½", None),
    ],
)  # fmt: skip
def test_the_number_of_a_response(text, expected):
    assert number(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1), ("b", 1), (" (C) ", 2), ("B. red", 1), ("The answer is C, because A is wrong.", 2), ("answer: (b)", 1), ("Option A", 0),
        ("I pick B", 1), ("A shirt costs more. B: red", 1), ("Blue Shoes", 1), ("red", 0), ("E", None), ("Answer: E", None), ("", None),
        ("A shirt is what I would buy", None), ("the answer is a's", None),
    ],
)  # fmt: skip
def test_the_choice_of_a_response(text, expected):
    assert choice(text, ["red", "blue shoes", "green"]) == expected


def test_a_response_is_right_by_its_number_or_by_its_choice():
    problem = Problem("1", Row("a"), "a", "12", "3 * 4 = 12", "total", "total-1", ["10", "12"], 1)
    assert is_right("It is 12.0", problem) and not is_right("112", problem) and not is_right("B", problem) and not is_right("", problem)
    words = Problem("1", Row("a"), "a", "blue", "blue", "total", "total-1", ["red", "blue"], 1)
    assert is_right("Blue", words) and is_right("(B)", words) and not is_right("red", words) and not is_right("", words)


def test_choices_stand_behind_their_letters():
    assert lettered("Which?", ["red", "blue"]) == "Which?\nA. red\nB. blue"


def test_accuracy_counts_right_responses_by_language(lm, reader, parts, monkeypatch):
    said = lambda model, encoder, problems: [p.answer if i < len(problems) // 2 else f"1{p.answer}" for i, p in enumerate(problems)]  # noqa: E731
    monkeypatch.setattr("lira_hf.evaluation.reasoning.responses", said)
    assert score(lm, reader, parts, rows=6) == {"id": 50.0, "th": 50.0} and score(lm, reader, parts[:1], rows=3) == {"id": pytest.approx(100 / 3)}
    assert summary({"id": 50.0, "th": 100.0}) == {"languages": {"id": 50.0, "th": 100.0}, "average": 75.0}


def test_multiple_choice_takes_the_likeliest(lm, reader, parts):
    problems = parts[0].problems[:4]
    right = 0
    for problem in problems:
        row = problem.row
        losses = []
        for words in problem.choices:
            batch = reader([row.text], [row.translations], [row.scores], "id", prompt_name="query", answer=[words])
            with torch.no_grad():
                losses.append(lm(**batch).loss * (batch["labels"] != -100).sum())
        right += int(torch.stack(losses).argmin()) == problem.label
    assert choice_score(lm, reader, parts[:1], rows=4) == {"id": 25.0 * right}


# ---- the stage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(data, backbones, llms, tmp_path) -> dict:
    common = {"logging_steps": 2, "save_steps": 4, "learning_rate": 1e-3, "disable_tqdm": True, "per_device_train_batch_size": 8}
    return {
        "data": data,
        "languages": ["id", "th"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"], "llm": llms["qwen3-lm"]},
        "output": str(tmp_path / "out"),
        "max_length": 48,
        "llm_prompt": "Q: {question} A:",
        "evaluation_rows": 3,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2},
        "anchoring": {"max_steps": 4, **common},
        "reasoning": {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4, "gradient_accumulation_steps": 2, **common},
    }


def test_the_stage_trains_what_it_should_and_leaves_a_model_that_answers(recipe, llms, parts):
    folder = run(check_recipe(recipe))
    log = json.loads((folder / "training_log.json").read_text())
    assert [0 <= entry["eval_accuracy"] <= 100 for entry in log if "eval_accuracy" in entry] == [True, True]
    model, processor = LiraForCausalLM.from_pretrained(folder), LiraProcessor.from_pretrained(folder)
    assert processor.llm_prompt == "Q: {question} A:" and model.generation_config.eos_token_id == 0
    before = load_file(Path(llms["qwen3-lm"]) / "model.safetensors")
    assert all(torch.equal(model.llm.state_dict()[name], tensor) for name, tensor in before.items())
    anchored = load_file(folder.parent / "anchoring" / "model" / "model.safetensors")
    moved = {name for name, tensor in anchored.items() if not torch.equal(model.state_dict()[name], tensor)}
    assert "lira.lasr.encoder.layers.0.linear1.weight" in moved and "lira.arca.adaptor.english_projection.weight" in moved
    assert not [name for name in moved if name.startswith(("lira.multilingual.", "lira.english."))]
    problems = parts[0].problems[:3]
    longest = processor.answers([p.response for p in problems])[0].shape[1]
    written = model.respond(
        [p.row.text for p in problems], processor=processor, translations=[p.row.translations for p in problems],
        scores=[p.row.scores for p in problems], language="id", prompt_name="query", max_new_tokens=longest + MORE_TOKENS,
    )  # fmt: skip
    assert len(written) == 3 and written == responses(model, processor, problems)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(recipe, tmp_path):
    whole = run(check_recipe({**recipe, "output": str(tmp_path / "whole")}))
    part = check_recipe({**recipe, "output": str(tmp_path / "part")})
    run(part)
    shutil.rmtree(tmp_path / "part" / "model")
    shutil.rmtree(tmp_path / "part" / "reasoning" / "checkpoint-8")
    again = run(part, resume=True)
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) == 0.0


def test_the_language_model_must_fit_the_data(recipe):
    with pytest.raises(ValueError, match="^backbones.llm: None, but for reasoning a causal language model is needed"):
        run(check_recipe({**recipe, "backbones": {**recipe["backbones"], "llm": None}}))
    with pytest.raises(ValueError, match="^stage: 'ranking' does not fit .* data for reasoning"):
        run(check_recipe({**recipe, "stage": "ranking"}))


def test_the_shipped_recipe_is_a_recipe():
    path = Path(__file__).parents[1] / "configs" / "reasoning.yaml"
    assert set(yaml.safe_load(path.read_text())) <= set(type(load_recipe(path)).model_fields) and load_recipe(path).backbones.llm
