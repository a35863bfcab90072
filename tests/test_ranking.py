"""The ranking stage on a small LazSimilarity: reading, batches from text and from features, training, resume, validation, correlations."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from lira_hf.catalogue.similarity_builder import build_similarity
from lira_hf.collation import PairData, RankingCollator, every_row, read
from lira_hf.evaluation.ranking import correlations, predictions, score, summary
from lira_hf.features import fill
from lira_hf.modeling import LiraForSequenceClassification
from lira_hf.training import arguments, check_recipe, last_checkpoint, load_recipe, run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(build_similarity(tmp_path_factory.mktemp("pairs") / "data", 60, ["id", "th"], progress=False))


@pytest.fixture
def recipe(data, backbones, tmp_path) -> dict:
    common = {"logging_steps": 2, "save_steps": 4, "learning_rate": 1e-3, "disable_tqdm": True, "max_steps": 8}
    return {
        "data": data,
        "languages": ["id", "th"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(tmp_path / "out"),
        "max_length": 32,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "corr_queue_size": 20},
        "anchoring": {"per_device_train_batch_size": 16, **common},
        "ranking": {"per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 4, **common},
    }


def head(backbones, **fields):
    torch.manual_seed(0)
    fields = {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "num_labels": 1, **fields}
    return LiraForSequenceClassification.from_backbones(backbones["xlm-r"], backbones["bert"], **fields).eval()


def test_pairs_are_read_with_both_sides_and_their_scores(data):
    import datasets

    part, rows = read(data, "th", "test"), datasets.load_dataset(data, "th", split="test")
    assert isinstance(part, PairData) and part.language == "th" and [pair.id for pair in part.pairs] == rows["pair_id"]
    for pair, row in zip(part.pairs, rows, strict=True):
        assert (pair.first.text, pair.second.text, pair.score) == (row["query"], row["query_pair"], row["score"])
        assert pair.second.translations == [t["text"] for t in row["translations_pair"]] and pair.first.language == "th"
        assert pair.first.scores == [(t["semantic"], t["emotional"], t["pragmatic"]) for t in row["translations"]]
    assert len(part.rows()) == 2 * len(part.pairs)


def test_a_batch_from_features_gives_the_logits_of_one_from_text(data, backbones, processor, tmp_path):
    model, part = head(backbones), read(data, "id", "validation")
    store = fill(tmp_path, model.lira, processor, every_row([part]), show_progress_bar=False)
    text, cached = (RankingCollator(encoder)(part.pairs) for encoder in (processor, store))
    assert text["labels"].tolist() == [pair.score for pair in part.pairs] and "pair_multilingual_features" in cached
    torch.testing.assert_close(model(**text).logits, model(**cached).logits, atol=1e-5, rtol=1e-5)
    assert predictions(model, store, part.pairs, batch_size=4) == pytest.approx(model(**text).logits[:, 0].tolist(), abs=1e-5)
    given = {name: [getattr(pair.first, name) for pair in part.pairs] for name in ("translations", "scores")}
    given |= {f"pair_{name}": [getattr(pair.second, name) for pair in part.pairs] for name in ("translations", "scores")}
    texts = [[pair.first.text for pair in part.pairs], [pair.second.text for pair in part.pairs]]
    found = model.predict(*texts, processor=processor, language="id", prompt_name="query", **given)
    torch.testing.assert_close(found, model(**text).logits.detach(), atol=1e-5, rtol=1e-5)


def test_both_stages_run_from_a_recipe_and_log_what_they_measure(recipe):
    folder = run(check_recipe(recipe))
    log = json.loads((folder / "training_log.json").read_text())
    assert {"loss", "loss_correlation", "pearson", "queue_filled", "queue_age", "queue_age_max"} <= set(log[0])
    found = [entry for entry in log if "eval_pearson" in entry]
    assert len(found) == 2 and all(-100 <= entry[name] <= 100 for entry in found for name in ("eval_pearson", "eval_spearman"))
    model = LiraForSequenceClassification.from_pretrained(folder)
    assert model.config.num_labels == 1 and model.config.problem_type == "regression" and model.comparison.line.tolist() != [1, 0]
    assert not any("queue" in name for name in model.state_dict())


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(recipe, tmp_path):
    whole = run(check_recipe({**recipe, "output": str(tmp_path / "whole")}))
    part = check_recipe({**recipe, "output": str(tmp_path / "part")})
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "model")
    shutil.rmtree(tmp_path / "part" / "ranking" / "checkpoint-8")
    assert last_checkpoint(tmp_path / "part" / "ranking").endswith("checkpoint-4")
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, run(part, resume=True)))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_plain_trainer_trains_pairs(data, backbones, processor, tmp_path):
    model, part = head(backbones, dropout=0.0, path_dropout=0.0), read(data, "id", "train")
    before = score(model, processor, [part])["id"]["pearson"]
    args = arguments(tmp_path, 0, {"max_steps": 30, "per_device_train_batch_size": 18, "learning_rate": 3e-3, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"})  # fmt: skip
    Trainer(model, args, data_collator=RankingCollator(processor), train_dataset=part.pairs).train()
    model.cpu()
    assert score(model, processor, [part])["id"]["pearson"] > before + 5
    found = torch.tensor(predictions(model, processor, part.pairs))
    gold = torch.tensor([pair.score for pair in part.pairs])
    assert (found - gold).square().mean() < gold.var()  # on the labels' scale: better than their mean


def test_a_recipe_for_another_stage_is_refused(recipe):
    with pytest.raises(ValueError, match="^stage: 'retrieval' does not fit .* which is data for ranking"):
        run(check_recipe({**recipe, "stage": "retrieval"}))
    with pytest.raises(ValueError, match="ranking.max_stepz: no such field; did you mean max_steps"):
        check_recipe({**recipe, "ranking": {"max_stepz": 3}})


def test_the_shipped_recipe_is_valid():
    from importlib.resources import files

    recipe = load_recipe(str(files("lira_hf.configs") / "ranking.yaml"))
    assert recipe.ranking["metric_for_best_model"] == "eval_pearson" and recipe.model["regression"] == "correlation"


# ---- correlations ------------------------------------------------------------------------------------------------------------


def test_correlations_of_hand_computed_lists():
    assert correlations([1, 2, 3, 10], [1, 2, 3, 4]) == {"pearson": pytest.approx(100 * 14 / (5 * 50) ** 0.5), "spearman": pytest.approx(100)}
    assert correlations([1, 2, 2], [3, 1, 1]) == {"pearson": pytest.approx(-100), "spearman": pytest.approx(-100)}
    assert correlations([0.5, 0.5, 0.5], [1, 2, 3]) == {"pearson": 0, "spearman": 0}
    for bad in (([1], [1]), ([1, 2], [1, 2, 3])):
        with pytest.raises(ValueError, match="^predictions: "):
            correlations(*bad)


def test_the_average_is_that_of_languages():
    found = {"th": {"pearson": 50.0, "spearman": 30.0}, "vi": {"pearson": 70.0, "spearman": 50.0}}
    assert summary(found) == {
        "pearson": {"languages": {"th": 50, "vi": 70}, "average": 60}, "spearman": {"languages": {"th": 30, "vi": 50}, "average": 40},
    }  # fmt: skip
