"""Small trainings of every stage, and what the processes of test_distributed.py and test_resume.py run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback
from transformers import trainer as trainer_module

from lira_hf.catalogue import build, build_similarity
from lira_hf.catalogue.problems.builder import build_problems
from lira_hf.modeling.queues_lira import gather_rows
from lira_hf.training import Recipe, check_recipe, run

# Each stage with what makes data for it in a folder.
STAGES = {
    "anchoring": partial(build, size="small", languages=["id"], seed=0, progress=False),
    "retrieval": partial(build, size="small", languages=["id"], seed=0, progress=False),
    "ranking": partial(build_similarity, rows=400, languages=["id"], seed=0, progress=False),
    "reasoning": partial(build_problems, rows=200, languages=["id"], seed=0),
}


def small_recipe(stage: str, data: str, backbones: dict[str, str], output: str, model: dict[str, Any], **arguments: Any) -> Recipe:
    """A recipe that trains one stage alone, from an adaptor as initialised; several may share what is cached beside their data."""
    arguments = {"learning_rate": 1e-3, "per_device_train_batch_size": 16, "disable_tqdm": True, **arguments}
    llm = {"llm": backbones["qwen3-lm"]} if stage == "reasoning" else {}
    return check_recipe({
        "data": data,
        "languages": ["id"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"], **llm},
        "output": output,
        "features": f"{data}-features",
        "stage": stage,
        "max_length": 48,
        "products_per_query": 4,
        "evaluation_rows": 2,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, **model},
        stage: arguments,
    })  # fmt: skip


# ---- gathering ----------------------------------------------------------------------------------------------------------------


def gathered(parts: list[Tensor], fill: float) -> Tensor:
    dist.init_process_group("gloo")
    return gather_rows(parts[dist.get_rank()], fill)


def gathered_gradient(parts: list[Tensor], weights: Tensor) -> Tensor:
    """The gradient of this process's rows by a loss that weighs every entry of all rows."""
    dist.init_process_group("gloo")
    own = parts[dist.get_rank()].requires_grad_()
    (gradient,) = torch.autograd.grad((gather_rows(own, 0) * weights).sin().sum(), own)
    return gradient


# ---- a run, told of ----------------------------------------------------------------------------------------------------------


@dataclass
class Training:
    """What a run did, step by step. `products` are the ids of the products that each step of this process embedded."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    products: list[list[int]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    queue: dict[str, Tensor] = field(default_factory=dict)
    sharded: bool = False


class Recorder(TrainerCallback):
    def __init__(self):
        self.training = Training()

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def products(module, given, inputs):
            if module.training and "product_ids" in inputs:
                self.training.products.append(inputs["product_ids"].tolist())

        model.register_forward_pre_hook(products, with_kwargs=True)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.training.gradients.append({name: full(p.grad) for name, p in model.named_parameters() if p.grad is not None})

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.training.losses.append(state.log_history[-1]["loss"])

    def on_train_end(self, args, state, control, model=None, **kwargs):
        names = ("eval_ndcg@10", "eval_pearson", "eval_spearman")
        self.training.scores = [{name: entry[name] for name in names if name in entry} for entry in state.log_history if "eval_loss" in entry]
        self.training.sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        self.training.weights = {name: full(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.training.queue = {name: tensor.clone() for name, tensor in model.queue_state().items()}


def full(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def recorded(recipe: Recipe) -> Training:
    """Runs a recipe as `lira-hf train` does."""
    recorder = Recorder()
    trainer_module.DEFAULT_CALLBACKS.append(recorder)
    run(recipe)
    return recorder.training


# ---- a run that is killed ------------------------------------------------------------------------------------------------------


@dataclass
class Death:
    """When a run dies: `delay` seconds after its step number `step` began, counted from 1 in this life; or, where an audit event of Python is
    named, just before that happens for the `count`th time since then, to a path that ends with `path`."""

    step: int = 1
    delay: float = 0.0
    event: str | None = None
    path: str = ""
    count: int = 1


def doomed(recipe: Recipe, death: Death) -> None:
    """Resumes a recipe, and dies by SIGKILL."""
    steps, seen, training_step = [0], [0], Trainer.training_step

    def watch(event: str, args: tuple) -> None:
        if event == death.event and steps[0] >= death.step and str(args[1 if event == "os.rename" else 0]).endswith(death.path):
            if event != "open" or str(args[1]).startswith("w"):
                seen[0] += 1
                if seen[0] == death.count:
                    os.kill(os.getpid(), signal.SIGKILL)

    def counted(trainer, *args, **kwargs):
        steps[0] += 1
        if steps[0] == death.step and death.event is None:
            threading.Timer(death.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return training_step(trainer, *args, **kwargs)

    Trainer.training_step = counted
    sys.addaudithook(watch)
    run(recipe, resume=True)
