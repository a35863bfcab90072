"""The arguments of a stage: those of transformers, with this library's defaults, and two of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments


@dataclass
class StageArguments(TrainingArguments):
    """TrainingArguments, and beside them:

    Args:
        backbone_learning_rate: of backbones that are trained, and of adapters in them; None: learning_rate, as for LiRA's own part.
        early_stopping: training stops after so many evaluations in a row without a better metric_for_best_model; None: it does not.
    Raises ValueError where one of the two is out of range, or early_stopping has no metric to go by."""

    backbone_learning_rate: float | None = None
    early_stopping: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_stage({field.name: getattr(self, field.name) for field in fields(StageArguments)})
        if self.early_stopping:
            self.restore_callback_states_from_checkpoint = True  # else a resumed run would be patient anew


def check_stage(values: dict[str, Any], prefix: str = "") -> None:
    rate, patience = values.get("backbone_learning_rate"), values.get("early_stopping")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0):
        raise ValueError(f"{prefix}backbone_learning_rate: {rate!r} is not allowed; a number above 0 is")
    if patience is None:
        return
    if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
        raise ValueError(f"{prefix}early_stopping: {patience!r} is not allowed; a whole number of at least 1 is")
    if not values.get("load_best_model_at_end") or not values.get("metric_for_best_model"):
        raise ValueError(
            f"{prefix}early_stopping: {patience} needs load_best_model_at_end: true and a metric_for_best_model, such as eval_loss, beside it"
        )


def arguments(output: Path, seed: int, values: dict[str, Any]) -> StageArguments:
    """A stage's arguments with this library's defaults. Raises ValueError for a save_total_limit of 1."""
    kept = 3 if values.get("load_best_model_at_end") else 2  # the best, the last whole one, and the one that is being written
    if values.get("save_total_limit") == 1:
        raise ValueError("save_total_limit: 1 is not allowed; at least 2 is, because the older checkpoint goes before the newer is whole")
    defaults = {
        "report_to": "none", "remove_unused_columns": False, "dataloader_pin_memory": False, "save_total_limit": kept,
        "use_cpu": not torch.accelerator.is_available(),  # else accelerate takes torchrun's processes on CPUs for strangers
    }  # fmt: skip
    return StageArguments(output_dir=str(output), seed=seed, data_seed=seed, **{**defaults, **values})
