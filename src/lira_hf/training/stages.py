"""The stages, each trained by the plain transformers.Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from lira_hf.collation import AnchoringCollator, Mixture, PairData, RankingCollator, RetrievalCollator, RetrievalData
from lira_hf.evaluation.retrieval import score, summary
from lira_hf.modeling import LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraHead
from lira_hf.training.callbacks import CheckpointState, Epochs, ProgressBar, RankingValidation, RetrievalValidation, TrainingLog, last_checkpoint
from lira_hf.training.sharding import StateOfAll, shard_on_cpus

SHRINKAGES = (0.0, 0.25, 0.5, 0.75, 1.0)


def arguments(output: Path, seed: int, values: dict[str, Any]) -> TrainingArguments:
    """TrainingArguments with this library's defaults. Raises ValueError for a save_total_limit of 1."""
    kept = 3 if values.get("load_best_model_at_end") else 2  # the best, the last whole one, and the one that is being written
    if values.get("save_total_limit") == 1:
        raise ValueError("save_total_limit: 1 is not allowed; at least 2 is, because the older checkpoint goes before the newer is whole")
    defaults = {
        "report_to": "none", "remove_unused_columns": False, "dataloader_pin_memory": False, "save_total_limit": kept,
        "use_cpu": not torch.accelerator.is_available(),  # else accelerate takes torchrun's processes on CPUs for strangers
    }  # fmt: skip
    return TrainingArguments(output_dir=str(output), seed=seed, data_seed=seed, **{**defaults, **values})


def fit(
    model: LiraHead,
    args: TrainingArguments,
    train: list[list],
    collator,
    callbacks: list[TrainerCallback],
    evaluation: list | None = None,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Trains a head on the items of each language; returns the log. With `resume`, from the newest whole checkpoint, if there is one."""
    torch.manual_seed(args.seed)
    shard_on_cpus(args)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Mixture(train, temperature, args.seed),
        eval_dataset=evaluation,
        data_collator=collator,
        callbacks=[*callbacks, Epochs(), StateOfAll(), CheckpointState()],
    )
    trainer.callback_handler.callbacks.insert(0, TrainingLog())  # before those that report, so that they report its figures too
    if not show_logs:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar)
    trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir) if resume else None)
    return trainer.state.log_history


def train_anchoring(
    model: LiraForPreTraining, encoder, data: list, args: TrainingArguments, *, temperature: float = 1.0, resume: bool = False, show_logs: bool = True
) -> list[dict]:
    """Stage 1 on every row of data, of whatever kind, that has a text and a translation; returns the log."""
    rows = [[row for row in part.rows() if row.text is not None and row.translations] for part in data]
    if not any(rows):
        raise ValueError("data: no row has a translation, and stage 1 needs some; train stage 2 alone, or add translations")
    return fit(model, args, rows, AnchoringCollator(encoder), [], temperature=temperature, resume=resume, show_logs=show_logs)


def train_retrieval(
    model: LiraForRetrieval,
    encoder,
    train: list[RetrievalData],
    validation: list[RetrievalData],
    args: TrainingArguments,
    *,
    products_per_query: int = 8,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Stage 2; then the correction is shrunk to what is best on validation (correction_scale 0, 0.25 .. 1). Returns the log."""
    # One Trainer has one collator: it knows the products of both splits, because evaluation hands it validation queries.
    products = {identifier: product for part in (*train, *validation) for identifier, product in part.products.items()}
    collator = RetrievalCollator(encoder, products, products_per_query, references=bool(model.config.consistency_weight))
    log = fit(
        model, args, [part.queries for part in train], collator, [RetrievalValidation(encoder, validation)],
        evaluation=[query for part in validation for query in part.queries], temperature=temperature, resume=resume, show_logs=show_logs,
    )  # fmt: skip
    shrink(model, encoder, validation)
    return log


def shrink(model: LiraForRetrieval, encoder, validation: list[RetrievalData]) -> dict[float, float]:
    """Sets correction_scale to the value with the best validation nDCG@10, the larger of equals; returns each value's nDCG@10."""
    found = {}
    for value in SHRINKAGES:
        model.config.correction_scale = value
        found[value] = summary(score(model, encoder, validation), validation)["average"]
    model.config.correction_scale = max(found, key=lambda value: (found[value], value))
    return found


def train_ranking(
    model: LiraForSequenceClassification,
    encoder,
    train: list[PairData],
    validation: list[PairData],
    args: TrainingArguments,
    *,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Stage 2 for pairs with a gold score; returns the log."""
    return fit(
        model, args, [part.pairs for part in train], RankingCollator(encoder), [RankingValidation(encoder, validation)],
        evaluation=[pair for part in validation for pair in part.pairs], temperature=temperature, resume=resume, show_logs=show_logs,
    )  # fmt: skip
