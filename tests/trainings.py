"""What the processes of test_distributed.py and test_resume.py run."""

from __future__ import annotations

import os
import random
import signal
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers import trainer as trainer_module

from lira_hf.modeling.queues_lira import gather_rows
from lira_hf.training import Recipe, run


def gathered(parts: list[Tensor], fill: float) -> Tensor:
    dist.init_process_group("gloo")
    return gather_rows(parts[dist.get_rank()], fill)


def gathered_gradient(parts: list[Tensor], weights: Tensor) -> Tensor:
    """The gradient of this process's rows by a loss that weighs every entry of all rows."""
    dist.init_process_group("gloo")
    own = parts[dist.get_rank()].requires_grad_()
    (gradient,) = torch.autograd.grad((gather_rows(own, 0) * weights).sin().sum(), own)
    return gradient


@dataclass
class Training:
    """What a run did, step by step."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    queue: dict[str, Tensor] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    sharded: bool = False
    rows: list[int] = field(default_factory=list)


class Recorder(TrainerCallback):
    def __init__(self):
        self.training = Training()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.training.gradients.append({name: full(p.grad) for name, p in model.named_parameters() if p.grad is not None})
        self.training.rows.append(args.train_batch_size)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.training.losses.append(state.log_history[-1]["loss"])

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.training.scores.append(metrics["eval_ndcg@10"])

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.training.sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        self.training.weights = {name: full(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.training.queue = {name: tensor.clone() for name, tensor in model.queue_state().items()}


def full(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def recorded(recipe: Recipe, resume: bool = False) -> Training:
    """Runs a recipe as `lira-hf train` does; of several stages the last is told of."""
    recorder = Recorder()

    class Told(TrainerCallback):
        def __new__(cls):
            return recorder

    trainer_module.DEFAULT_CALLBACKS.append(Told)
    run(recipe, resume)
    return recorder.training
