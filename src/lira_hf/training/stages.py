"""The stages, each trained by the plain transformers.Trainer."""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from lira_hf.collation import (
    AnchoringCollator,
    LateCollator,
    Mixture,
    PairData,
    ProblemData,
    RankingCollator,
    ReasoningCollator,
    RetrievalCollator,
    RetrievalData,
    RetrievalStream,
    Stream,
    can_be_anchored,
)
from lira_hf.evaluation.retrieval import score, summary
from lira_hf.modeling import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraHead
from lira_hf.training.adapters import backbones
from lira_hf.training.arguments import StageArguments
from lira_hf.training.callbacks import (
    CheckpointState,
    Epochs,
    ProgressBar,
    RankingValidation,
    ReasoningValidation,
    RetrievalValidation,
    TrainingLog,
    last_checkpoint,
)
from lira_hf.training.sharding import StateOfAll, shard_on_cpus

SHRINKAGES = (0.0, 0.25, 0.5, 0.75, 1.0)


class StageTrainer(Trainer):
    """The plain Trainer with StageArguments, for their backbone_learning_rate."""

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        new, rate = self.optimizer is None, self.args.backbone_learning_rate
        optimizer = super().create_optimizer(model)
        if new and rate is not None:
            apart = {id(parameter) for backbone in backbones(self.model).values() for parameter in backbone.parameters() if parameter.requires_grad}
            if not apart:
                raise ValueError(f"backbone_learning_rate: {rate}, but no backbone is trained; name some in trainable_backbones or lora")
            for group in list(optimizer.param_groups):
                moved = [parameter for parameter in group["params"] if id(parameter) in apart]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
                if moved:
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer


def fit(
    model: LiraHead,
    args: StageArguments,
    train: list[list] | Dataset,
    collator,
    callbacks: list[TrainerCallback],
    evaluation: list | None = None,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Trains a head on the items of each language, or on a data set that holds them; returns the log. With `resume`, from the newest
    whole checkpoint, if there is one."""
    torch.manual_seed(args.seed)
    shard_on_cpus(args)
    checkpoint = last_checkpoint(args.output_dir, args.max_steps) if resume else None
    train = Mixture(train, temperature, args.seed) if isinstance(train, list) else train
    if isinstance(train, Stream):
        divide(train, args, checkpoint)
        collator = LateCollator(collator)
    trainer = StageTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=collator,
        callbacks=[Epochs(), StateOfAll(), CheckpointState()],
    )
    trainer.callback_handler.callbacks[:0] = [TrainingLog(), *callbacks]  # before those that report, so that they report these figures too
    if args.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping))
    if not show_logs:
        trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        if not args.disable_tqdm:
            trainer.add_callback(ProgressBar)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.state.log_history


def divide(stream: Stream, args: StageArguments, checkpoint: str | None) -> None:
    """Has each process collate its own part of a batch, and tells the stream what a checkpoint has had, which the Trainer skips."""
    args.accelerator_config.dispatch_batches = False  # else one process would collate for all, and accelerate slice what has no common length
    batch = args.train_batch_size * args.world_size
    steps = int(Path(checkpoint).name.split("-")[1]) if checkpoint else 0
    stream.divide(batch, begin=steps * args.gradient_accumulation_steps * batch)


def train_anchoring(
    model: LiraForPreTraining, encoder, data: list, args: StageArguments, *, temperature: float = 1.0, resume: bool = False, show_logs: bool = True
) -> list[dict]:
    """Stage 1 on every row of data, of whatever kind, that has a text and a translation; returns the log."""
    if isinstance(data[0], RetrievalStream):
        rows = Stream([part.row_streams() for part in data], temperature, args.seed, keep=can_be_anchored)
    else:
        rows = [[row for row in part.rows() if can_be_anchored(row)] for part in data]
        if not any(rows):
            raise ValueError("data: no row has a translation, and stage 1 needs some; train stage 2 alone, or add translations")
    return fit(model, args, rows, AnchoringCollator(encoder), [], temperature=temperature, resume=resume, show_logs=show_logs)


def train_retrieval(
    model: LiraForRetrieval,
    encoder,
    train: list[RetrievalData] | list[RetrievalStream],
    validation: list[RetrievalData],
    args: StageArguments,
    *,
    products_per_query: int = 8,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Stage 2; then the correction is shrunk to what is best on validation (correction_scale 0, 0.25 .. 1). Returns the log."""
    # One Trainer has one collator: it knows the products of both splits, because evaluation hands it validation queries.
    products = ChainMap(*(part.products for part in (*train, *validation)))
    collator = RetrievalCollator(encoder, products, products_per_query, references=bool(model.config.consistency_weight))
    queries = [part.queries for part in train]
    if isinstance(train[0], RetrievalStream):
        queries = Stream([[part] for part in queries], temperature, args.seed)
    log = fit(
        model, args, queries, collator, [RetrievalValidation(encoder, validation)],
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
    args: StageArguments,
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


def train_reasoning(
    model: LiraForCausalLM,
    encoder,
    train: list[ProblemData],
    validation: list[ProblemData],
    args: StageArguments,
    *,
    evaluation_rows: int = 64,
    temperature: float = 1.0,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Stage 2 for problems with an answer, of which evaluation_rows of each validation language are answered at each evaluation;
    returns the log."""
    return fit(
        model, args, [part.problems for part in train], ReasoningCollator(encoder), [ReasoningValidation(encoder, validation, evaluation_rows)],
        evaluation=[problem for part in validation for problem in part.problems], temperature=temperature, resume=resume, show_logs=show_logs,
    )  # fmt: skip
