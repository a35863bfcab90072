"""The stages on a small LazRetrieval with small backbones: logs, resume, the recipe's errors."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lira_hf.catalogue import build
from lira_hf.collation import AnchoringCollator, RetrievalCollator, every_row, read
from lira_hf.evaluation.retrieval import FROZEN_SYSTEMS, build_frozen, embed, score, summary
from lira_hf.features import FeatureStore, fill
from lira_hf.modeling import LiraForRetrieval
from lira_hf.training import check_recipe, last_checkpoint, load_recipe, run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(build(tmp_path_factory.mktemp("laz") / "data", "small", ["id"], 0, progress=False))


@pytest.fixture
def recipe(data, backbones, tmp_path) -> dict:
    common = {"logging_steps": 2, "save_steps": 4, "learning_rate": 1e-3, "disable_tqdm": True}
    return {
        "data": data,
        "languages": ["id"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(tmp_path / "out"),
        "max_length": 48,
        "products_per_query": 4,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "queue": "features", "queue_size": 32},
        "anchoring": {"max_steps": 8, "per_device_train_batch_size": 16, **common},
        "retrieval": {"max_steps": 8, "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 4, **common},
    }


def test_both_stages_log_what_they_measure_and_leave_a_model(recipe):
    folder = run(check_recipe(recipe))
    anchoring = json.loads((folder.parent / "anchoring" / "model" / "training_log.json").read_text())
    assert {"loss", "loss_policy", "loss_anchor", "loss_contrast", "reward", "actor_entropy", "epsilon1_p50", "epsilon1_p95", "epsilon1_max",
            "collapse_cosine", "collapse_rank"} <= set(anchoring[0])  # fmt: skip
    retrieval = json.loads((folder / "training_log.json").read_text())
    assert {"loss", "loss_ndcg", "loss_hinge", "loss_mean_variance", "loss_consistency", "dropped_negatives"} <= set(retrieval[0])
    assert [0 <= entry["eval_ndcg@10"] <= 100 for entry in retrieval if "eval_ndcg@10" in entry] == [True, True]
    model = LiraForRetrieval.from_pretrained(folder)
    assert model.config.queue == "features" and not any("queue" in name for name in model.state_dict())


@pytest.mark.parametrize("queue", ["features", "ema", "embeddings"])
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(recipe, queue, tmp_path):
    recipe["model"]["queue"] = queue
    whole = run(check_recipe({**recipe, "output": str(tmp_path / "whole")}))
    part = check_recipe({**recipe, "output": str(tmp_path / "part")})
    run(part)
    import shutil

    shutil.rmtree(tmp_path / "part" / "model")
    shutil.rmtree(tmp_path / "part" / "retrieval" / "checkpoint-8")
    (tmp_path / "part" / "retrieval" / "checkpoint-6").mkdir()  # one that was cut off while it was written
    assert last_checkpoint(tmp_path / "part" / "retrieval").endswith("checkpoint-4")
    again = run(part, resume=True)
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) == 0.0


def test_an_output_with_checkpoints_is_not_overwritten(recipe):
    (Path(recipe["output"]) / "retrieval" / "checkpoint-4").mkdir(parents=True)
    with pytest.raises(ValueError, match="output: .*--resume"):
        run(check_recipe(recipe))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, "modle: no such field; did you mean model"),
        ({"model": {"num_bin": 4}}, "model.num_bin: no such field; did you mean num_bins"),
        ({"retrieval": {"learning_rte": 1}}, "retrieval.learning_rte: no such field; did you mean learning_rate"),
        ({"languages": ["th", "xx"]}, "'xx' is not known; allowed: vi, th"),
        ({"stage": "both"}, "stage"),
        ({"seed": -1}, "seed"),
        ({"backbones": {"multilingual": "a", "englsh": "b"}}, "backbones"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_field(recipe, change, message):
    with pytest.raises(ValueError, match="recipe: ") as error:
        check_recipe({**recipe, **change})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_overrides_reach_nested_fields(recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    assert load_recipe(file, {"retrieval.max_steps": 3, "seed": 5}).retrieval["max_steps"] == 3


@pytest.mark.parametrize(("content", "message"), [("a: [", "not YAML"), ("- 1", "a mapping of fields is needed"), (None, "cannot be read")])
def test_an_unreadable_recipe_is_named(tmp_path, content, message):
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_recipe(file)


# ---- features and collation ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def part(data):
    found = read(data, "id", "validation")
    found.queries = found.queries[:12]
    return found


def test_cached_features_give_the_embeddings_of_the_text(model, processor, part, tmp_path):
    rows = every_row([part], references=True)
    store = fill(tmp_path / "features", model.lira, processor, rows, show_progress_bar=False)
    sample = [query.row for query in part.queries] + [product.row for product in list(part.products.values())[:20]]
    torch.testing.assert_close(embed(model, store, sample), embed(model, processor, sample), atol=1e-5, rtol=0)


def test_a_store_refuses_text_it_was_not_filled_with_and_refills_when_the_text_or_backbone_changes(model, processor, part, tmp_path):
    rows = [query.row for query in part.queries]
    store = fill(tmp_path / "features", model.lira, processor, rows[:6], show_progress_bar=False)
    with pytest.raises(ValueError, match="was not filled with"):
        store.batch(rows)
    fill(tmp_path / "features", model.lira, processor, rows, show_progress_bar=False).batch(rows)
    with torch.no_grad():
        next(model.lira.multilingual.parameters()).add_(0.1)
    changed = fill(tmp_path / "features", model.lira, processor, rows, show_progress_bar=False)
    assert isinstance(changed, FeatureStore) and len(list((tmp_path / "features").glob("multilingual-*"))) == 2
    torch.testing.assert_close(embed(model, changed, rows), embed(model, processor, rows), atol=1e-5, rtol=0)


def test_the_collator_draws_a_best_product_for_each_query_and_repeats_its_draw(processor, part):
    collator = RetrievalCollator(processor, part.products, products_per_query=4)
    batch, again = collator(part.queries), collator(part.queries)
    assert torch.equal(batch["product_ids"], again["product_ids"])
    assert (batch["relevances"].amax(-1) == torch.tensor([max(q.judged.values()) for q in part.queries])).all()
    assert batch["relevances"].shape == (12, len(batch["product_ids"])) and (batch["relevances"] >= -1).all()
    assert AnchoringCollator(processor)([q.row for q in part.queries])["language_ids"].unique().tolist() == [3]


def test_frozen_systems_are_what_their_names_say(model, processor, part):
    rows = [query.row for query in part.queries]
    features = model.lira.encode_features(dict(processor.batch(rows)))
    first, best = features["english_pooled"][:, 0], features["translation_scores"].nanmean(-1)
    width = model.config.multilingual_config.hidden_size
    frozen = {name: embed(build_frozen(model, name), processor, rows) for name in FROZEN_SYSTEMS}
    torch.testing.assert_close(frozen["multilingual_only"][:, :width], features["multilingual_pooled"], atol=1e-5, rtol=0)
    torch.testing.assert_close(frozen["english_only"][:, width:], first, atol=1e-5, rtol=0)
    unique = [i for i in range(len(rows)) if (best[i][features["candidate_mask"][i]] == best[i].nan_to_num(-1).max()).sum() == 1]
    chosen = features["english_pooled"][unique, best.nan_to_num(-1).argmax(-1)[unique]]
    torch.testing.assert_close(frozen["english_best"][unique][:, width:], chosen, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        frozen["concat"], torch.nn.functional.normalize(frozen["multilingual_only"] + frozen["english_best"], dim=-1), atol=1e-5, rtol=0
    )


def test_summary_averages_over_languages_not_queries(model, processor, part):
    found = summary(score(model, processor, [part]), [part])
    assert set(found) == {"languages", "average", "slices", "language_slices"}
    assert found["average"] == found["languages"]["id"] and 0 <= found["average"] <= 100
