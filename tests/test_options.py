"""Ways to train that a recipe may name: each test fails where the option is ignored."""

import json
import shutil
import struct

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from small_backbones import SMALL
from small_data import small_data
from tensorboardX.proto.event_pb2 import Event
from transformers import TrainerCallback, TrainingArguments

from lira_hf.collation import AnchoringCollator, can_be_anchored, read
from lira_hf.modeling import LiraForPreTraining, LiraForRetrieval
from lira_hf.modeling.objectives_lira import cosines
from lira_hf.training import arguments, check_recipe, lora_config, run, train_anchoring, train_retrieval
from lira_hf.training.stages import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return small_data(tmp_path_factory.mktemp("laz"), ["id"])


@pytest.fixture(scope="module")
def splits(data):
    return [read(data, "id", "train")], [read(data, "id", "validation")]


@pytest.fixture
def recipe(data, backbones, tmp_path) -> dict:
    return {
        "data": data,
        "languages": ["id"],
        "stage": "retrieval",
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(tmp_path / "out"),
        "max_length": 32,
        "products_per_query": 2,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2},
        "retrieval": {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "logging_steps": 1},
    }


def built(folders, cls=LiraForPreTraining, **fields):
    torch.manual_seed(0)
    return cls.from_backbones(folders["xlm-r"], folders["bert"], **{**SMALL, **fields})


def options(tmp_path, **values):
    common = {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    return arguments(tmp_path / "out", 0, {**common, **values})


# ---- precision -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
def test_bf16_computes_in_half_precision_but_for_losses_and_weights(backbones, processor, splits, tmp_path, bf16):
    model, seen = built(backbones, LiraForRetrieval, consistency_weight=0.0), {}

    def note(name, output):
        if model.training:
            seen.setdefault(name, set()).add(output.dtype)

    parts = {"backbone": model.lira.multilingual.encoder.layer[0].output.dense, "own": model.lira.lasr.correction[0], "arca": model.lira.arca.adaptor}
    for name, part in parts.items():
        part.register_forward_hook(lambda *call, name=name: note(name, call[-1][0] if isinstance(call[-1], tuple) else call[-1]))
    model.register_forward_hook(lambda *call: note("embeddings", call[-1].embeddings))
    log = train_retrieval(model, processor, *splits, options(tmp_path, bf16=bf16), products_per_query=2)
    inside = torch.bfloat16 if bf16 else torch.float32
    assert seen == {**dict.fromkeys(parts, {inside}), "embeddings": {torch.float32}}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    plain = train_retrieval(
        built(backbones, LiraForRetrieval, consistency_weight=0.0), processor, *splits, options(tmp_path / "plain"), products_per_query=2
    )
    assert log[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.02)
    assert (log[0]["loss"] == plain[0]["loss"]) is not bf16


def test_cosines_are_exact_under_autocast():
    left, right = torch.nn.functional.normalize(torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found, rounded = cosines(left, right), left @ right.T
    assert torch.equal(found, left @ right.T) and float((rounded - found).abs().max()) > 1e-4


def test_backbones_of_half_precision_stay_so_in_every_folder_and_our_own_part_stays_whole(recipe):
    recipe |= {"stage": "all", "backbones_dtype": "bfloat16", "anchoring": recipe["retrieval"]}
    folder = run(check_recipe(recipe))
    for place in (folder.parent / "anchoring" / "model", folder):
        kinds = {name: tensor.dtype for name, tensor in load_file(place / "model.safetensors").items()}
        backbone = {dtype for name, dtype in kinds.items() if name.startswith(("lira.multilingual.", "lira.english."))}
        own = {dtype for name, dtype in kinds.items() if name.startswith(("lira.arca.", "lira.lasr."))}
        assert (backbone, own) == ({torch.bfloat16}, {torch.float32})
    model = LiraForRetrieval.from_pretrained(folder)
    assert model.lira.english.dtype == torch.bfloat16 and model.lira.lasr.path_weight.dtype == torch.float32


# ---- activation checkpointing ----------------------------------------------------------------------------------------------


newer = pytest.mark.skipif(not hasattr(TrainingArguments, "activation_checkpointing"), reason="this transformers has gradient_checkpointing alone")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *(pytest.param(kind, "activation_checkpointing", marks=newer) for kind in ("frozen", "trainable", "lora")),
        ("trainable", "gradient_checkpointing"),
    ],
)
def test_checkpointing_computes_the_layers_of_a_backbone_that_learns_twice(backbones, processor, splits, tmp_path, option, kind):
    gradients, forwards = [], []
    for name, values in (("plain", {}), ("checkpointed", {option: True})):
        model = built(backbones, trainable_backbones=["multilingual"] if kind == "trainable" else [])
        count = []
        model.lira.multilingual.encoder.layer[1].intermediate.dense.register_forward_hook(lambda *_, count=count: count.append(1))
        if kind == "lora":
            model = get_peft_model(model, lora_config(model, {"multilingual": {"r": 2}}))
        args = options(tmp_path / name, max_steps=1, max_grad_norm=0, **values)
        watch = Gradients()
        fit(model, args, [anchors(splits)], AnchoringCollator(processor), [watch])
        gradients.append(watch.found[0])
        forwards.append(len(count))
    assert forwards == [1, 1 if kind == "frozen" else 2]
    assert gradients[0].keys() == gradients[1].keys() and any("multilingual.encoder" in name for name in gradients[0]) is (kind != "frozen")
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-4)


# ---- accumulation ------------------------------------------------------------------------------------------------------------


class Gradients(TrainerCallback):
    """The gradients of every optimizer step."""

    def __init__(self):
        self.found = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def anchors(splits) -> list:
    return [row for row in splits[0][0].rows() if can_be_anchored(row)]


def test_accumulated_gradients_are_the_mean_of_those_of_the_parts(backbones, processor, splits, tmp_path):
    model, batches, watch = built(backbones, dropout=0.0), [], Gradients()
    collator = AnchoringCollator(processor)

    def collate(rows):
        batches.append(collator(rows))
        return batches[-1]

    # With a learning rate of 0 every step starts from the same weights.
    values = {"gradient_accumulation_steps": 2, "learning_rate": 0.0, "max_grad_norm": 0, "max_steps": 3}
    log = fit(model, options(tmp_path, **values), [anchors(splits)], collate, [watch])
    assert len(watch.found) == 3 == max(entry["step"] for entry in log) and len(batches) >= 6
    for step, found in enumerate(watch.found):
        parts = []
        for batch in batches[2 * step : 2 * step + 2]:
            model.train().zero_grad()
            model(**batch).loss.backward()
            parts.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, (parts[0][name] + parts[1][name]) / 2, atol=1e-6, rtol=1e-4)
        assert any(float((parts[0][name] - parts[1][name]).abs().max()) > 1e-3 for name in found)


# ---- early stopping ----------------------------------------------------------------------------------------------------------

STOPPING = {
    "max_steps": 12, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "save_total_limit": 9, "load_best_model_at_end": True,
    "metric_for_best_model": "eval_ndcg@10", "greater_is_better": True, "early_stopping": 3, "learning_rate": 0.0,
}  # fmt: skip


def test_training_stops_when_the_figure_stays_and_a_resumed_run_is_no_more_patient(recipe, tmp_path):
    recipe["retrieval"] |= STOPPING
    stages = tmp_path / "out" / "retrieval"
    folder = run(check_recipe(recipe))
    steps = sorted(int(path.name.split("-")[1]) for path in stages.glob("checkpoint-*"))
    assert steps == [1, 2, 3, 4]  # the first evaluation is the best, and three are no better
    log = json.loads((folder / "training_log.json").read_text())
    for step in (3, 4):
        shutil.rmtree(stages / f"checkpoint-{step}")
    shutil.rmtree(folder)
    again = json.loads((run(check_recipe(recipe), resume=True) / "training_log.json").read_text())
    assert max(entry["step"] for entry in again) == 4 == max(entry["step"] for entry in log)


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        (
            "retrieval",
            {"load_best_model_at_end": False},
            "retrieval.early_stopping: 3 needs load_best_model_at_end: true and a metric_for_best_model",
        ),
        ("retrieval", {"metric_for_best_model": None}, "retrieval.early_stopping: 3 needs load_best_model_at_end: true and a metric_for_best_model"),
        ("retrieval", {"early_stopping": 0}, "retrieval.early_stopping: 0 is not allowed; a whole number of at least 1 is"),
        ("retrieval", {"early_stopping": True}, "retrieval.early_stopping: True is not allowed"),
        ("retrieval", {"backbone_learning_rate": -1}, "retrieval.backbone_learning_rate: -1 is not allowed; a number above 0 is"),
        ("anchoring", {}, "anchoring.early_stopping: stage 1 has no evaluation to go by"),
    ],
)
def test_a_wrong_option_of_a_stage_is_named(recipe, stage, change, message):
    with pytest.raises(ValueError, match="^recipe: ") as error:
        check_recipe({**recipe, stage: {**STOPPING, **change}})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_arguments_are_checked_without_a_recipe_too(tmp_path):
    with pytest.raises(ValueError, match="^early_stopping: 2 needs load_best_model_at_end"):
        arguments(tmp_path, 0, {"early_stopping": 2})


# ---- trackers ----------------------------------------------------------------------------------------------------------------


def scalars(folder) -> dict[str, list[float]]:
    """What the event files of a folder hold: records of a length, its checksum, an event and its checksum."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(value.simple_value)
    return found


def test_the_figures_that_we_measure_reach_tensorboard(backbones, processor, splits, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    evaluated = {"report_to": "tensorboard", "eval_strategy": "steps", "eval_steps": 2}
    log = train_retrieval(built(backbones, LiraForRetrieval), processor, *splits, options(tmp_path, **evaluated), products_per_query=2)
    found = scalars(tmp_path / "events")
    for name in ("loss", "loss_ndcg", "loss_hinge", "dropped_negatives", "effective_negatives"):
        assert found[f"train/{name}"] == pytest.approx([entry[name] for entry in log if "loss_ndcg" in entry], rel=1e-5), name
    ndcg = found["eval/ndcg_10"]  # tensorboardX has no @ in its names
    assert ndcg == pytest.approx([entry["eval_ndcg@10"] for entry in log if "eval_loss" in entry], rel=1e-5)
    assert len(found["train/loss_ndcg"]) == 2 and len(ndcg) == 1


def test_stage_1_reports_too(backbones, processor, splits, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    train_anchoring(built(backbones), processor, splits[0], options(tmp_path, report_to="tensorboard"))
    assert {"train/loss_anchor", "train/reward", "train/actor_entropy", "train/collapse_rank"} <= scalars(tmp_path / "events").keys()
