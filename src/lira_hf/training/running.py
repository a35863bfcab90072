"""A recipe's stages in order, from its data to the folder of a model.

OUTPUT/anchoring/checkpoint-*   stage 1, resumable        OUTPUT/anchoring/model   its result
OUTPUT/STAGE/checkpoint-*       stage 2, resumable        OUTPUT/model             the model to use and publish
With lora:  OUTPUT/base  what stage 2 began with          OUTPUT/adapter  for PeftModel.from_pretrained(base, ...); model has it merged"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils.environment import parse_flag_from_env

from lira_hf.collation import Data, PairData, ProblemData, RetrievalData, RetrievalStream, every_row, read, stream
from lira_hf.features import FeatureStore, fill
from lira_hf.modeling import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraHead, LiraProcessor
from lira_hf.training.adapters import adapted, merged, save_adapter
from lira_hf.training.arguments import arguments
from lira_hf.training.recipes import Recipe, recipe_text
from lira_hf.training.sharding import whole
from lira_hf.training.stages import train_anchoring, train_ranking, train_reasoning, train_retrieval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What a kind of data is for: the stage after anchoring, its head, its training, the recipe fields that the training takes, and
    the configuration that its head needs."""

    stage: str
    head: type[LiraHead]
    train: Callable[..., list[dict]]
    options: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


TASKS = {
    RetrievalData: Task("retrieval", LiraForRetrieval, train_retrieval, ("products_per_query",)),
    PairData: Task("ranking", LiraForSequenceClassification, train_ranking, config={"num_labels": 1, "problem_type": "regression"}),
    ProblemData: Task("reasoning", LiraForCausalLM, train_reasoning, ("evaluation_rows",)),
}


def load_data(recipe: Recipe, split: str) -> list[Data] | list[RetrievalStream]:
    how = stream if recipe.streaming and split == "train" else read
    return [how(recipe.data, code, split) for code in recipe.languages]


def load_parts(recipe: Recipe) -> tuple[LiraForPreTraining, LiraProcessor, list[Data] | list[RetrievalStream], list[Data]]:
    """The untrained model, its processor, training and validation data."""
    paths = recipe.backbones.multilingual, recipe.backbones.english
    llm = {} if recipe.backbones.llm is None else {"llm": recipe.backbones.llm, "llm_prompt": recipe.llm_prompt}
    processor = LiraProcessor.from_backbones(*paths, prompts=recipe.prompts, max_length=recipe.max_length, **llm)
    train, validation = load_data(recipe, "train"), load_data(recipe, "validation")
    torch.manual_seed(recipe.seed)
    dtype = getattr(torch, recipe.backbones_dtype)
    model = LiraForPreTraining.from_backbones(*paths, dtype=dtype, **{"languages": processor.languages, **recipe.model})
    return model, processor, train, validation


def fill_features(recipe: Recipe, model: LiraForPreTraining, processor: LiraProcessor, data: list) -> FeatureStore:
    """The cache of what both stages read, in recipe.features or OUTPUT/features. Recipes may share a folder, whatever their backbones."""
    rows = every_row(data, references=bool(model.config.consistency_weight))
    return fill(recipe.features or Path(recipe.output) / "features", model.lira, processor, rows, dtype=recipe.features_dtype)


def run(recipe: Recipe, resume: bool = False) -> Path:
    """Trains the recipe's stages in order and returns the folder of the last stage's model.

    A finished stage is not repeated when resuming; without `resume`, an output that holds checkpoints already is refused. Under
    `accelerate launch` or `torchrun` the processes train as one; all of them must see the output's folder."""
    output = Path(recipe.output)
    if not resume and any(output.glob("*/checkpoint-*")):
        raise ValueError(f"output: {recipe.output} holds checkpoints of an earlier run; resume with --resume, or choose another folder")
    if recipe.lora and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise ValueError("lora: adapters are not trained under FSDP; launch with configs/ddp.yaml, or leave lora out")
    PartialState(cpu=not torch.accelerator.is_available()).wait_for_everyone()  # nobody writes before everybody has looked
    model, processor, train, validation = load_parts(recipe)
    task, lora = TASKS[type(validation[0])], {name: group.model_dump() for name, group in recipe.lora.items()}
    if recipe.stage not in ("all", "anchoring", task.stage):
        raise ValueError(f"stage: {recipe.stage!r} does not fit {recipe.data}, which is data for {task.stage}")
    if task.head.can_generate() != (recipe.backbones.llm is not None):
        needs = "a causal language model is needed" if task.head.can_generate() else "none is allowed"
        raise ValueError(f"backbones.llm: {recipe.backbones.llm!r}, but for {task.stage} {needs}")
    dtype = getattr(torch, recipe.backbones_dtype)
    llm = {"llm": recipe.backbones.llm, "dtype": dtype} if task.head.can_generate() else {}
    anchored, final = output / "anchoring" / "model", output / "model"
    encoder = fill_features(recipe, model, processor, [*train, *validation]) if recipe.cache_features else processor
    if recipe.stage in ("all", "anchoring") and not (resume and anchored.exists()):
        args = arguments(anchored.parent, recipe.seed, recipe.anchoring)
        model = adapted(model, lora)
        log = train_anchoring(model, encoder, train, args, temperature=recipe.language_temperature, resume=resume)
        save(merged(model), processor, anchored, log, recipe)
    if recipe.stage == "anchoring":
        return anchored
    if resume and final.exists():
        return final
    torch.manual_seed(recipe.seed)
    if anchored.exists():
        head = task.head.from_anchored(anchored, **llm, **recipe.model, **task.config)  # stage 2 may be run with other choices than stage 1
        if isinstance(encoder, FeatureStore):
            encoder.check(head.lira)  # an anchored model of an earlier recipe may hold other backbones
    else:
        logger.warning("no stage-1 model in %s: stage 2 starts from an unanchored adaptor", anchored)
        fields = {"languages": processor.languages, **recipe.model, **task.config}
        head = task.head.from_backbones(recipe.backbones.multilingual, recipe.backbones.english, **{"dtype": dtype, **llm}, **fields)
    if lora:
        save(head, processor, output / "base", [])
        head.name_or_path = str(output / "base")  # the adapter's folder says so
        torch.manual_seed(recipe.seed)
        head = adapted(head, lora)
    args = arguments(output / task.stage, recipe.seed, getattr(recipe, task.stage))
    options = {name: getattr(recipe, name) for name in task.options}
    log = task.train(head, encoder, train, validation, args, temperature=recipe.language_temperature, resume=resume, **options)
    if lora and PartialState().is_main_process:
        head.config.save_pretrained(output / "base")  # the stage may have set fields, such as correction_scale
        save_adapter(head, output / "adapter")
    save(merged(head), processor, final, log, recipe)
    return final


def save(model: LiraHead, processor: LiraProcessor, folder: Path, log: list[dict], recipe: Recipe | None = None) -> None:
    """Model, code, processor, training log and, where a recipe is given, recipe.yaml, whole or not at all. All processes must call it; the
    main one writes, the others wait."""
    state, model = PartialState(), whole(model)
    if state.is_main_process:
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        model.save_pretrained(part)
        processor.save_pretrained(part)
        (part / "training_log.json").write_text(json.dumps(log, indent=1))
        if recipe:
            (part / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    state.wait_for_everyone()
