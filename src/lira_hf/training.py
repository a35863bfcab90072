"""Training of both stages by the plain transformers.Trainer: a recipe, the stages in order, and what a run logs and keeps.

OUTPUT/anchoring/checkpoint-*   stage 1, resumable        OUTPUT/anchoring/model   its result
OUTPUT/retrieval/checkpoint-*   stage 2, resumable        OUTPUT/model             the model to use and publish"""

from __future__ import annotations

import difflib
import json
import logging
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors.torch import load_file, save_file
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from lira_hf.collation import AnchoringCollator, RetrievalCollator, RetrievalData, every_row, read
from lira_hf.evaluation.retrieval import score, summary
from lira_hf.features import FeatureStore, fill
from lira_hf.languages import check_languages
from lira_hf.modeling import LiraConfig, LiraForPreTraining, LiraForRetrieval, LiraProcessor

logger = logging.getLogger(__name__)
STAGES = ("anchoring", "retrieval")
STATE_FILE = "lira_state.safetensors"  # beside a checkpoint's weights: queue and slow copy; written last, so it marks a whole checkpoint
SHRINKAGES = (0.0, 0.25, 0.5, 0.75, 1.0)


# ---- the recipe ----------------------------------------------------------------------------------------------------------


class Backbones(BaseModel):
    model_config = ConfigDict(extra="forbid")
    multilingual: str
    english: str


class Recipe(BaseModel):
    """A training recipe, as a YAML file holds it.

    `model` takes fields of LiraConfig; `anchoring` and `retrieval` take fields of TrainingArguments; the rest is explained in
    configs/tiny.yaml."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    data: str
    backbones: Backbones
    output: str
    stage: Literal["all", "anchoring", "retrieval"] = "all"
    languages: list[str] | None = None
    seed: int = Field(0, ge=0)
    max_length: int = Field(128, ge=4)
    prompts: dict[str, dict[str, str]] | None = None
    cache_features: bool = True
    features: str | None = None
    features_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    products_per_query: int = Field(8, ge=2)
    model: dict[str, Any] = {}
    anchoring: dict[str, Any] = {}
    retrieval: dict[str, Any] = {}

    @field_validator("languages")
    @classmethod
    def _languages(cls, codes: list[str] | None) -> list[str]:
        return check_languages(codes)

    @field_validator("model")
    @classmethod
    def _model(cls, values: dict[str, Any]) -> dict[str, Any]:
        return known_fields(
            "model", values, set(LiraConfig.__annotations__) - {"multilingual_config", "english_config", "model_type", "sub_configs_defaults"}
        )

    @field_validator("anchoring", "retrieval")
    @classmethod
    def _arguments(cls, values: dict[str, Any], info) -> dict[str, Any]:
        return known_fields(info.field_name, values, {f.name for f in fields(TrainingArguments) if f.init} - {"output_dir"})


def known_fields(where: str, values: dict[str, Any], known: set[str]) -> dict[str, Any]:
    for name in values:
        if name not in known:
            raise ValueError(unknown(f"{where}.{name}", name, known))
    return values


def unknown(shown: str, name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"{shown}: no such field" + (f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(sorted(known))}")


def load_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a YAML recipe; overrides are dotted names with their values, such as {"retrieval.max_steps": 50}.

    Raises ValueError in one line: the file, the field, what is wrong."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a mapping of fields is needed, not {type(values).__name__}")
    for dotted, value in (overrides or {}).items():
        *groups, name = dotted.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"{path}: {group} in {dotted} is no group of fields")
        place[name] = value
    return check_recipe(values, str(path))


def check_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """A checked Recipe. Raises ValueError in one line that names the first bad field."""
    try:
        return Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = Backbones.model_fields if name.startswith("backbones.") else Recipe.model_fields
            raise ValueError(f"{where}: {unknown(name, name.split('.')[-1], set(known))}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
        raise ValueError(f"{where}: {message if name.split('.')[0] in message else f'{name}: {message}{given}'}") from None


# ---- what a run logs and keeps ----------------------------------------------------------------------------------------------


class TrainingLog(TrainerCallback):
    """Adds what the model measured since the last log (losses, reward, entropy, quantiles, dropped negatives ...) to each log."""

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        if logs is not None and "loss" in logs:
            measured = {name: round(value, 6) for name, value in model.pop_measured().items()}
            logs.update(measured)
            state.log_history[-1].update(measured)


class RetrievalValidation(TrainerCallback):
    """Adds validation nDCG@10 (`eval_ndcg@10`, mean over languages) to each evaluation, before the best checkpoint is chosen."""

    def __init__(self, encoder, data: list[RetrievalData]):
        self.encoder, self.data = encoder, data

    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        metrics["eval_ndcg@10"] = summary(score(model, self.encoder, self.data), self.data)["average"]
        if state.log_history:
            state.log_history[-1]["eval_ndcg@10"] = metrics["eval_ndcg@10"]


class CheckpointState(TrainerCallback):
    """Saves the queue with every checkpoint and restores it on resume. Its file is written last and whole: a checkpoint without it
    was cut off, and is not resumed from."""

    def on_save(self, args, state, control, model=None, **kwargs):
        target = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE
        tensors = model.queue_state() if hasattr(model, "queue_state") else {}
        save_file({"step": torch.tensor(state.global_step), **{name: t.contiguous() for name, t in tensors.items()}}, f"{target}.part")
        os.replace(f"{target}.part", target)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        source = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE
        if state.global_step and hasattr(model, "load_queue_state"):
            tensors = load_file(source)
            tensors.pop("step")
            model.load_queue_state(tensors)


class ProgressBar(ProgressCallback):
    """The Trainer's bar without its line per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint of a stage's folder, or None."""
    found = [p for p in Path(folder).glob("checkpoint-*") if (p / STATE_FILE).exists()]
    return str(max(found, key=lambda p: int(p.name.split("-")[1]))) if found else None


# ---- the stages ----------------------------------------------------------------------------------------------------------------


def arguments(output: Path, seed: int, values: dict[str, Any]) -> TrainingArguments:
    defaults = {"report_to": "none", "remove_unused_columns": False, "dataloader_pin_memory": False, "save_total_limit": 2}
    return TrainingArguments(output_dir=str(output), seed=seed, data_seed=seed, **{**defaults, **values})


def train_anchoring(
    model: LiraForPreTraining, encoder, data: list[RetrievalData], args: TrainingArguments, resume: bool = False, show_logs: bool = True
) -> list[dict]:
    """Stage 1 on the queries and products of data; returns the log."""
    torch.manual_seed(args.seed)
    rows = [row for row in every_row(data) if row.text is not None and row.translations]
    if not rows:
        raise ValueError("data: no row has a translation, and stage 1 needs some; train with --stage retrieval, or add translations")
    trainer = Trainer(
        model=model, args=args, train_dataset=rows, data_collator=AnchoringCollator(encoder), callbacks=[TrainingLog(), CheckpointState()]
    )
    if not show_logs:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar)
    trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir) if resume else None)
    return trainer.state.log_history


def train_retrieval(
    model: LiraForRetrieval,
    encoder,
    train: list[RetrievalData],
    validation: list[RetrievalData],
    args: TrainingArguments,
    products_per_query: int = 8,
    resume: bool = False,
    show_logs: bool = True,
) -> list[dict]:
    """Stage 2; then the correction is shrunk to what is best on validation (correction_scale 0, 0.25 .. 1). Returns the log."""
    torch.manual_seed(args.seed)
    # One Trainer has one collator: it knows the products of both splits, because evaluation hands it validation queries.
    products = {identifier: product for part in (*train, *validation) for identifier, product in part.products.items()}
    collator = RetrievalCollator(encoder, products, products_per_query, references=bool(model.config.consistency_weight))
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=[query for part in train for query in part.queries],
        eval_dataset=[query for part in validation for query in part.queries],
        data_collator=collator,
        callbacks=[TrainingLog(), RetrievalValidation(encoder, validation), CheckpointState()],
    )
    if not show_logs:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar)
    trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir) if resume else None)
    shrink(model, encoder, validation)
    return trainer.state.log_history


def shrink(model: LiraForRetrieval, encoder, validation: list[RetrievalData]) -> dict[float, float]:
    """Sets correction_scale to the value with the best validation nDCG@10, the larger of equals; returns each value's nDCG@10."""
    found = {}
    for value in SHRINKAGES:
        model.config.correction_scale = value
        found[value] = summary(score(model, encoder, validation), validation)["average"]
    model.config.correction_scale = max(found, key=lambda value: (found[value], value))
    return found


def load_data(recipe: Recipe, split: str) -> list[RetrievalData]:
    return [read(recipe.data, code, split) for code in recipe.languages]


def load_parts(recipe: Recipe) -> tuple[LiraForPreTraining, LiraProcessor, list[RetrievalData], list[RetrievalData]]:
    """The untrained model, its processor, training and validation data."""
    paths = recipe.backbones.multilingual, recipe.backbones.english
    processor = LiraProcessor.from_backbones(*paths, prompts=recipe.prompts, max_length=recipe.max_length)
    train, validation = load_data(recipe, "train"), load_data(recipe, "validation")
    torch.manual_seed(recipe.seed)
    model = LiraForPreTraining.from_backbones(*paths, **{"languages": processor.languages, **recipe.model})
    return model, processor, train, validation


def fill_features(recipe: Recipe, model: LiraForPreTraining, processor: LiraProcessor, data: list[RetrievalData]) -> FeatureStore:
    """The cache of what both stages read, in recipe.features or OUTPUT/features. Recipes may share a folder, whatever their backbones."""
    rows = every_row(data, references=bool(model.config.consistency_weight))
    return fill(recipe.features or Path(recipe.output) / "features", model.lira, processor, rows, dtype=recipe.features_dtype)


def run(recipe: Recipe, resume: bool = False) -> Path:
    """Trains the recipe's stages in order and returns the folder of the last stage's model.

    A finished stage is not repeated when resuming; without `resume`, an output that holds checkpoints already is refused."""
    output = Path(recipe.output)
    if not resume and any(output.glob("*/checkpoint-*")):
        raise ValueError(f"output: {recipe.output} holds checkpoints of an earlier run; resume with --resume, or choose another folder")
    model, processor, train, validation = load_parts(recipe)
    paths = recipe.backbones.multilingual, recipe.backbones.english
    anchored = output / "anchoring" / "model"
    encoder = fill_features(recipe, model, processor, [*train, *validation]) if recipe.cache_features else processor
    if recipe.stage in ("all", "anchoring") and not (resume and anchored.exists()):
        log = train_anchoring(model, encoder, train, arguments(anchored.parent, recipe.seed, recipe.anchoring), resume)
        save(model, processor, anchored, log)
    if recipe.stage == "anchoring":
        return anchored
    final = output / "model"
    if resume and final.exists():
        return final
    if anchored.exists():
        retrieval = LiraForRetrieval.from_pretrained(anchored, **recipe.model)  # stage 2 may be run with other choices than stage 1
        if isinstance(encoder, FeatureStore):
            encoder.check(retrieval.lira)  # an anchored model of an earlier recipe may hold other backbones
    else:
        logger.warning("no stage-1 model in %s: stage 2 starts from an unanchored adaptor", anchored)
        torch.manual_seed(recipe.seed)
        retrieval = LiraForRetrieval.from_backbones(*paths, **{"languages": processor.languages, **recipe.model})
    args = arguments(output / "retrieval", recipe.seed, recipe.retrieval)
    log = train_retrieval(retrieval, encoder, train, validation, args, recipe.products_per_query, resume)
    save(retrieval, processor, final, log)
    return final


def save(model, processor: LiraProcessor, folder: Path, log: list[dict]) -> None:
    """Model, code, processor and training log, whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    (part / "training_log.json").write_text(json.dumps(log, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
