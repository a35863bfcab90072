"""Several processes train as one: gathering with its gradient, each stage beside one process with the batch of all, and the shipped
configurations of accelerate."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import together
from safetensors.torch import load_file
from trainings import Training, gathered, gathered_gradient, recorded, small_recipe

from lira_hf.collation import read
from lira_hf.evaluation.retrieval import score, summary
from lira_hf.modeling import LiraForRetrieval, LiraProcessor

CONFIGS = Path(__file__).parents[1] / "configs"
TOLERANCE = 1e-5

# No noise, and a loss that every product of these untrained backbones takes part in: by default nearly all are too close to a positive.
OPEN = {
    "dropout": 0.0, "path_dropout": 0.0, "false_negative_cosine": 0.9999, "false_negative_margin": 2.0, "rank_temperature": 0.3,
    "gate_temperature": 20.0, "ndcg_k": 50, "queue_size": 200,
}  # fmt: skip


# ---- gathering ----------------------------------------------------------------------------------------------------------------


def joined(parts: list[torch.Tensor], fill: float) -> torch.Tensor:
    """What gather_rows promises, in one process."""
    sizes = [max(part.shape[d] for part in parts) for d in range(1, parts[0].dim())]
    rows = []
    for part in parts:
        row = torch.full((len(part), *sizes), fill).to(part.dtype)
        row[(slice(None), *(slice(size) for size in part.shape[1:]))] = part
        rows.append(row)
    return torch.cat(rows)


shapes = st.integers(1, 3).flatmap(
    lambda dimensions: st.lists(st.lists(st.integers(0, 4), min_size=dimensions, max_size=dimensions), min_size=2, max_size=3)
)


@given(shapes=shapes, kind=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]), fill=st.sampled_from([0, 1]))
@settings(max_examples=8, deadline=None)
def test_rows_are_gathered_whatever_the_sizes_of_the_processes(shapes, kind, fill):
    parts = [(torch.rand(shape) * 5).to(kind) for shape in shapes]
    for found in together(len(parts), gathered, parts, fill):
        assert found.dtype == kind and torch.equal(found, joined(parts, fill))


@pytest.mark.parametrize("fill", [-1.0, -torch.inf])
def test_what_is_filled_up_can_be_told_from_rows(fill):
    parts = [torch.ones(2, 1, 3), torch.zeros(1, 2, 1)]
    for found in together(2, gathered, parts, fill):
        assert torch.equal(found, joined(parts, fill)) and int((found == fill).sum()) == 2 * 3 + 2 * 2


def test_each_process_gets_the_gradient_of_its_rows_times_their_number():
    parts, weights = [torch.randn(3, 2), torch.randn(1, 4), torch.randn(0, 1)], torch.randn(4, 4)
    whole = [part.clone().requires_grad_() for part in parts]
    padded = torch.cat([torch.nn.functional.pad(part, (0, 4 - part.shape[1])) for part in whole])
    expected = torch.autograd.grad((padded * weights).sin().sum(), whole)
    for found, gradient in zip(together(3, gathered_gradient, parts, weights), expected, strict=True):
        torch.testing.assert_close(found, 3 * gradient)


# ---- each stage, beside one process ----------------------------------------------------------------------------------------------


def furthest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    assert one.keys() == two.keys()
    return max((float((tensor.double() - two[name].double()).abs().max()) for name, tensor in one.items()), default=0.0)


@pytest.mark.parametrize(
    ("stage", "model", "rate"),
    [
        pytest.param("anchoring", {}, 0.1, marks=pytest.mark.slow),
        pytest.param("retrieval", {"queue": "none"}, 0.1, marks=pytest.mark.slow),
        pytest.param("retrieval", {"queue": "embeddings"}, 0.1, marks=pytest.mark.slow),
        pytest.param("retrieval", {"queue": "ema"}, 0.1, marks=pytest.mark.slow),
        ("retrieval", {"queue": "features"}, 0.1),
        ("ranking", {"corr_queue_size": 100}, 0.1),
        pytest.param("ranking", {"regression": "mse"}, 1e-4, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_two_processes_train_as_one_with_twice_the_batch(stage_data, backbones, tmp_path, stage, model, rate):
    """By plain gradient descent: where a gradient is zero but for rounding, AdamW makes a whole step of the rounding."""

    def recipe(output: str, batch: int):
        fixed = {"optim": "sgd", "learning_rate": rate, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
        steps = {"max_steps": 8, "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": batch}
        return small_recipe(stage, stage_data(stage), backbones, str(tmp_path / output), {**OPEN, **model}, **fixed, **steps)

    (one,) = together(1, recorded, recipe("one", 16))
    two: list[Training] = together(2, recorded, recipe("two", 8))
    start = max(float(gradient.abs().max()) for gradient in one.gradients[0].values())
    assert start > 1e-3 and len(set(one.losses)) == len(one.losses) == 8  # it does learn
    for each in two:
        assert max(abs(a - b) for a, b in zip(one.losses, each.losses, strict=True)) < TOLERANCE
        assert max(furthest(a, b) for a, b in zip(one.gradients, each.gradients, strict=True)) < TOLERANCE * max(1, start)
        assert furthest(one.weights, each.weights) < TOLERANCE
        assert furthest(one.queue, each.queue) < TOLERANCE
    assert furthest(two[0].weights, two[1].weights) == 0 and furthest(two[0].queue, two[1].queue) == 0
    if stage == "retrieval":
        pairs = list(zip(two[0].products, two[1].products, strict=True))
        assert any(len(a) != len(b) for a, b in pairs) and any(set(a) & set(b) for a, b in pairs)
        assert bool(one.queue) == (model["queue"] != "none")


# ---- the shipped configurations ----------------------------------------------------------------------------------------------------


def launch(config: str, recipe: Path, *more: str) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config), "--num_processes", "2"]
    found = subprocess.run([*command, "-m", "lira_hf", "train", str(recipe), *more], capture_output=True, text=True, timeout=400)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-9000:]


def history(folder: Path, name: str) -> list[float]:
    return [entry[name] for entry in json.loads((folder / "training_log.json").read_text()) if name in entry]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp.yaml", "fsdp.yaml"])
def test_a_shipped_configuration_trains_validates_saves_and_resumes_as_one_process_does(config, stage_data, backbones, tmp_path):
    """AdamW, whose state a checkpoint has to carry, with an epsilon above rounding; else as above. Reductions add in another order than one
    process does, which moves a weight by some 1e-8 in these steps: TOLERANCE is far above that and far below a step, 1e-3."""

    def recipe(output: Path, batch: int):
        steps = {"max_steps": 8, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 4, "adam_epsilon": 1e-4}
        best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_ndcg@10", "greater_is_better": True}
        model = {**OPEN, "queue": "ema"}
        return small_recipe("retrieval", stage_data("retrieval"), backbones, str(output), model, per_device_train_batch_size=batch, **steps, **best)

    together(1, recorded, recipe(tmp_path / "one", 16))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(tmp_path / "two", 8).model_dump()))
    launch(config, file)
    one, two = tmp_path / "one" / "model", tmp_path / "two" / "model"
    shares = list((tmp_path / "two" / "retrieval" / "checkpoint-8").glob("optimizer_0/*.distcp"))
    assert len(shares) == (2 if config == "fsdp.yaml" else 0)  # each process has written its own
    assert not list((tmp_path / "two").glob("**/*.part"))
    assert history(two, "loss") == pytest.approx(history(one, "loss"), abs=TOLERANCE) and len(history(two, "loss")) == 8
    assert history(two, "eval_ndcg@10") == pytest.approx(history(one, "eval_ndcg@10"), abs=1e-3)  # of 100
    weights = load_file(two / "model.safetensors")
    assert furthest(load_file(one / "model.safetensors"), weights) < TOLERANCE
    model, processor = LiraForRetrieval.from_pretrained(two), LiraProcessor.from_pretrained(two)
    assert type(model) is LiraForRetrieval and json.loads((two / "config.json").read_text())["architectures"] == ["LiraForRetrieval"]
    validation = [read(stage_data("retrieval"), "id", "validation")]
    assert summary(score(model, processor, validation), validation)["average"] >= max(history(two, "eval_ndcg@10")) - 0.5

    shutil.rmtree(two)
    shutil.rmtree(tmp_path / "two" / "retrieval" / "checkpoint-8")
    launch(config, file, "--resume")
    assert furthest(weights, load_file(two / "model.safetensors")) == 0
