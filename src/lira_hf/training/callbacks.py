"""What a run logs, validates and keeps, as callbacks of the plain Trainer."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import ProgressCallback, TrainerCallback

from lira_hf.collation import ProblemData
from lira_hf.evaluation import ranking, reasoning, retrieval

STATE_FILE = "lira_state.safetensors"  # beside a checkpoint's weights: queue and slow copy, and the names of its other files


class TrainingLog(TrainerCallback):
    """Adds what the model measured since the last log (losses, reward, entropy, quantiles, dropped negatives ...) to each log."""

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        if logs is not None and "loss" in logs:
            measured = {name: round(value, 6) for name, value in model.pop_measured().items()}
            logs.update(measured)
            state.log_history[-1].update(measured)


class Epochs(TrainerCallback):
    """Tells the training data which epoch begins; the Trainer itself does so in some set-ups only."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch + 1e-6))


class Validation(TrainerCallback, ABC):
    """Adds figures to each evaluation, before those callbacks see it that report it or choose the best checkpoint by it."""

    def __init__(self, encoder, data: list):
        self.encoder, self.data = encoder, data

    @abstractmethod
    def figures(self, model) -> dict[str, float]:
        """What is measured of a model, by names that begin with `eval_`."""

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        if logs is not None and "eval_runtime" in logs:  # on_evaluate would be too late for those that report
            found = self.figures(model)
            logs.update(found)
            state.log_history[-1].update(found)


class RetrievalValidation(Validation):
    """Validation nDCG@10 of RetrievalData (`eval_ndcg@10`, 0 to 100, mean over languages)."""

    def figures(self, model) -> dict[str, float]:
        return {"eval_ndcg@10": retrieval.summary(retrieval.score(model, self.encoder, self.data), self.data)["average"]}


class RankingValidation(Validation):
    """Validation correlations of PairData (`eval_pearson`, `eval_spearman`, -100 to 100, mean over languages)."""

    def figures(self, model) -> dict[str, float]:
        found = ranking.summary(ranking.score(model, self.encoder, self.data))
        return {f"eval_{name}": table["average"] for name, table in found.items()}


class ReasoningValidation(Validation):
    """The accuracy of what the model writes (`eval_accuracy`, 0 to 100, mean over languages), on the first `rows` problems of each language."""

    def __init__(self, encoder, data: list[ProblemData], rows: int):
        super().__init__(encoder, data)
        self.rows = rows

    def figures(self, model) -> dict[str, float]:
        return {"eval_accuracy": reasoning.summary(reasoning.score(model, self.encoder, self.data, self.rows))["average"]}


class CheckpointState(TrainerCallback):
    """Saves the queue with every checkpoint and restores it on resume. Its file is written last, when every process has written what is
    its own, and names all others: a checkpoint that lacks any was cut off while it was written or removed, and is not resumed from."""

    def on_save(self, args, state, control, model=None, **kwargs):
        PartialState().wait_for_everyone()
        if not args.should_save:  # every process holds the same queue
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        tensors = {name: tensor.contiguous() for name, tensor in model.queue_state().items()}
        part = folder / f"{STATE_FILE}.part"
        save_file({"step": torch.tensor(state.global_step), **tensors}, part, {"files": json.dumps(files_of(folder))})
        os.replace(part, folder / STATE_FILE)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        source = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE
        if state.global_step:
            tensors = load_file(source)
            tensors.pop("step")
            model.load_queue_state(tensors)


def files_of(checkpoint: Path) -> list[str]:
    return sorted(str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file() and not file.name.startswith(STATE_FILE))


def is_whole(checkpoint: Path) -> bool:
    if not (checkpoint / STATE_FILE).exists():
        return False
    with safe_open(checkpoint / STATE_FILE, "pt") as file:
        return set(json.loads(file.metadata()["files"])) <= set(files_of(checkpoint))


class ProgressBar(ProgressCallback):
    """The Trainer's bar without its line per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


def last_checkpoint(folder: str | Path, max_steps: int = 0) -> str | None:
    """The newest whole checkpoint of a stage's folder, or None; with max_steps above 0, the newest before that step: from one that has
    no step left, the Trainer would go one too far."""
    found = {int(checkpoint.name.split("-")[1]): checkpoint for checkpoint in Path(folder).glob("checkpoint-*") if is_whole(checkpoint)}
    steps = [step for step in found if not 0 < max_steps <= step]
    return str(found[max(steps)]) if steps else None
