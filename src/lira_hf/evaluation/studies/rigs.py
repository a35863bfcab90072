"""What the arms of a study share, and the training of one.

An arm is a training; arms differ in fields of LiraConfig or of the recipe, and share data, backbones and cached features."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lira_hf.backbones import train_tiny_backbones
from lira_hf.catalogue import build
from lira_hf.collation import SPLITS, Data, RetrievalData, every_row, read
from lira_hf.environment import environment
from lira_hf.evaluation.retrieval import score, summary, variant
from lira_hf.features import FeatureStore, fill
from lira_hf.modeling import LiraForPreTraining, LiraForRetrieval, LiraProcessor
from lira_hf.modeling.processing_lira import Row
from lira_hf.reporting import write_json
from lira_hf.training import Recipe, arguments, load_parts, load_recipe, save, train_anchoring, train_retrieval

Say = Callable[[str, list[dict]], None]  # is told the name and the log of what was trained
QUIET = {"disable_tqdm": True, "logging_strategy": "no"}
SHOWN_ONLY = {"disable_tqdm", "logging_strategy", "logging_steps"}  # arguments that change no training


@dataclass
class Rig:
    """What the arms share. base: LiRA around the frozen backbones, untrained; store: features of every text of data; fingerprint: of data
    and backbones, since what was trained on others is not what would be trained now."""

    recipe: Recipe
    processor: LiraProcessor
    base: LiraForRetrieval
    store: FeatureStore
    data: dict[str, list[RetrievalData]]
    fingerprint: str

    def part(self, seed: int, percent: float, **retrieval: Any) -> Rig:
        """This rig with a share of the training rows (see share) and other arguments of stage 2."""
        recipe = self.recipe.model_copy(update={"retrieval": self.recipe.retrieval | retrieval})
        return replace(self, recipe=recipe, data={**self.data, "train": [share(each, percent, seed) for each in self.data["train"]]})


def share(data: RetrievalData, percent: float, seed: int) -> RetrievalData:
    """percent of a language's queries, rounded up, and the products that they judge. With the same seed, fewer are a part of more."""
    order = list(range(len(data.queries)))
    random.Random(f"{seed}/{data.language}").shuffle(order)
    kept = sorted(order[: math.ceil(len(order) * percent / 100)])
    queries = [data.queries[place] for place in kept]
    judged = {product for query in queries for product in query.judged}
    return RetrievalData(data.language, queries, {name: product for name, product in data.products.items() if name in judged})


# ---- what is made once -----------------------------------------------------------------------------------------------------


def build_data(output: str | Path, codes: list[str]) -> dict[str, list[RetrievalData]]:
    """LazRetrieval small in OUTPUT/data, by split; built if it is not there."""
    build(Path(output) / "data", "small", codes, 0)
    return {split: [read(Path(output) / "data", code, split) for code in codes] for split in SPLITS}


def find_backbones(output: str | Path, codes: list[str], multilingual: str | None = None, english: str | None = None) -> tuple[str, str]:
    """The given backbones, or two tiny ones in OUTPUT/backbones; trained if they are not there."""
    if multilingual is None or english is None:
        folders = train_tiny_backbones(Path(output) / "backbones", codes)
        multilingual, english = str(folders["multilingual"]), str(folders["english"])
    return multilingual, english


def set_up(output: str | Path, codes: list[str], data: dict[str, list[RetrievalData]], multilingual: str, english: str) -> Rig:
    """The recipe of configs/tiny.yaml with these data and backbones, and the features of every text."""
    given = {"data": str(Path(output) / "data"), "backbones": {"multilingual": multilingual, "english": english}, "output": str(output)}
    recipe = load_recipe(Path(str(files("lira_hf.configs") / "tiny.yaml")), given | {"languages": codes})
    return rig_of(recipe, data)


def rig_of(recipe: Recipe, data: dict[str, list[RetrievalData]] | None = None) -> Rig:
    """What the arms of a recipe share: its data, read if they are not given, and the features of every text, filled where they are missing."""
    if data is None:
        data = {split: [read(recipe.data, code, split) for code in recipe.languages] for split in SPLITS}
    paths = recipe.backbones.multilingual, recipe.backbones.english
    processor = LiraProcessor.from_backbones(*paths, prompts=recipe.prompts, max_length=recipe.max_length)
    torch.manual_seed(0)
    dtype = getattr(torch, recipe.backbones_dtype)
    base = LiraForRetrieval.from_backbones(*paths, dtype=dtype, **{"languages": processor.languages, **recipe.model})
    rows = [row for split in SPLITS for row in every_row(data[split], references=split == "train" and bool(base.config.consistency_weight))]
    store = fill_features(recipe, base, processor, rows)
    whole = hashlib.sha256(repr([(row.text, row.translations, row.scores) for row in rows]).encode())
    for part in (part for split in SPLITS for part in data[split]):
        whole.update(repr([(query.id, sorted(query.judged.items()), query.slices) for query in part.queries]).encode())
        whole.update(repr([(product.id, product.family) for product in part.products.values()]).encode())
    whole.update(repr([shards.folder.name for shards in store.shards.values()]).encode())  # named by what encoded them
    return Rig(recipe, processor, base, store, data, whole.hexdigest()[:16])


def fill_features(recipe: Recipe, base: LiraForRetrieval, processor: LiraProcessor, rows: list[Row]) -> FeatureStore:
    """The recipe's cache with the features of rows added, and whatever else it holds."""
    return fill(recipe.features or Path(recipe.output) / "features", base.lira, processor, rows, dtype=recipe.features_dtype)


def shipped_recipe(
    name: str, output: str | Path, make_data: Callable[[Path], Any], backbones: dict[str, str | None], problems: bool = False
) -> Recipe:
    """configs/NAME.yaml on data and backbones in OUTPUT, each made where it is missing; backbones: those that need not be made."""
    output, backbones = Path(output), {path: given for path, given in backbones.items() if given is not None}
    if not (output / "data").exists():
        make_data(output / "data")
    if not {"multilingual", "english"} <= set(backbones):
        made = train_tiny_backbones(output / "backbones", problems=problems)
        backbones = {path: str(folder) for path, folder in made.items()} | backbones
    given = {"data": str(output / "data"), "backbones": backbones, "output": str(output)}
    return load_recipe(Path(str(files("lira_hf.configs") / f"{name}.yaml")), given)


def anchored_folder(recipe: Recipe, seed: int, store: FeatureStore, train: list[Data]) -> Path:
    """Stage 1 of a recipe's data, of whatever kind, with a seed; trained once."""
    folder = Path(recipe.output) / f"anchored-{seed}"
    if not folder.exists():
        model, processor, *_ = load_parts(recipe.model_copy(update={"seed": seed}))
        with tempfile.TemporaryDirectory() as checkpoints:
            train_anchoring(model, store, train, arguments(Path(checkpoints), seed, recipe.anchoring | QUIET | {"save_strategy": "no"}))
        save(model, processor, folder, [])
    return folder


# ---- the two stages of an arm ------------------------------------------------------------------------------------------------


def anchoring_folder(output: str | Path, seed: int, name: str = "") -> Path:
    """Where a stage 1 is, its model in `model`."""
    return Path(output) / "runs" / str(seed) / f"anchoring{name and f'-{name}'}"


def arm_file(output: str | Path, seed: int, name: str) -> Path:
    """Where a finished arm's scores are."""
    return Path(output) / "runs" / str(seed) / f"{name}.json"


def as_trained(rig: Rig, seed: int, fields: dict) -> Recipe:
    """The recipe of one arm."""
    return rig.recipe.model_copy(update={"seed": seed, "model": {**rig.recipe.model, **fields}})


def anchor(rig: Rig, seed: int, fields: dict | None = None, name: str = "", say: Say | None = None) -> LiraForPreTraining:
    """Stage 1 of one seed with other fields of LiraConfig, from OUTPUT/runs/SEED if it is finished there."""
    folder = anchoring_folder(rig.recipe.output, seed, name)
    made_by = identity(rig, fields or {}, "anchoring")
    check_anchoring(folder, made_by)
    if not (folder / "model").exists():
        write_json(folder / "made_by.json", {"made_by": made_by})
        start = variant(rig.base, fields or {}, seed)
        model = LiraForPreTraining(start.config)
        model.lira.load_state_dict(start.lira.state_dict())
        args = arguments(folder, seed, rig.recipe.anchoring)
        log = train_anchoring(model, rig.store, rig.data["train"], args, resume=True, show_logs=False)
        save(model, rig.processor, folder / "model", log, as_trained(rig, seed, fields or {}))
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)  # they have served
        if say:
            say(f"stage 1{name and f', {name}'}", log)
    return LiraForPreTraining.from_pretrained(folder / "model")


def train_arm(
    rig: Rig,
    seed: int,
    name: str,
    fields: dict,
    anchored: LiraForPreTraining | LiraForRetrieval,
    anchoring: dict | None,
    say: Say | None = None,
    keep: Path | None = None,
    weights: bool = False,
) -> dict[str, dict]:
    """Stage 2 of one arm, from OUTPUT/runs/SEED if it is finished there: {"validation": summary, "test": summary (see
    evaluation.retrieval.summary), "scores": {code: {query id: nDCG@10}} of the test split, "fields", "correction_scale", "made_by",
    "environment"}.

    anchoring: the fields that anchored was trained with, None for an untrained one. With keep, the model is saved there; with
    weights, what open_arm needs is kept beside the scores, and the log of the training."""
    done = arm_file(rig.recipe.output, seed, name)
    folder = done.with_suffix("")
    made_by = identity(rig, fields, "retrieval", anchoring)
    check_identity(done, made_by)
    if not done.exists():
        check_identity(folder / "made_by.json", made_by)
        write_json(folder / "made_by.json", {"made_by": made_by})
        start = variant(rig.base, {}, seed)
        start.lira.arca.load_state_dict(anchored.lira.arca.state_dict())
        model = variant(start, fields, seed)
        args = arguments(folder, seed, rig.recipe.retrieval)
        train, validation = rig.data["train"], rig.data["validation"]
        options = {"products_per_query": rig.recipe.products_per_query, "temperature": rig.recipe.language_temperature}
        log = train_retrieval(model, rig.store, train, validation, args, resume=True, show_logs=False, **options)
        if say:
            say(name, log)
        if keep:
            save(model, rig.processor, keep, log, as_trained(rig, seed, fields))
        if weights:
            own = {key: value.contiguous() for key, value in model.lira.state_dict().items() if key.startswith(("arca.", "lasr."))}
            part = done.with_suffix(".part")
            save_file(own, part)
            part.rename(done.with_suffix(".safetensors"))
        scores = {split: score(model, rig.store, rig.data[split]) for split in ("validation", "test")}
        found = {split: summary(each, rig.data[split]) for split, each in scores.items()}
        found |= {"scores": scores["test"], "fields": fields, "correction_scale": model.config.correction_scale, "made_by": made_by}
        found |= {"environment": environment()}
        write_json(done, found)
        shutil.rmtree(folder, ignore_errors=True)  # its checkpoints have served
        if weights:
            write_json(folder / "training_log.json", log)  # for the report
    return json.loads(done.read_text())


def open_arm(rig: Rig, seed: int, name: str) -> LiraForRetrieval:
    """The model of a finished arm that was trained with weights=True."""
    done = arm_file(rig.recipe.output, seed, name)
    found = json.loads(done.read_text())
    model = variant(rig.base, found["fields"] | {"correction_scale": found["correction_scale"]}, seed)
    model.lira.load_state_dict(load_file(done.with_suffix(".safetensors")), strict=False)
    return model


def identity(rig: Rig, fields: dict, stage: str, anchoring: dict | None = None) -> dict:
    """What a training depends on beside its seed. Of stage 2 that includes the stage 1 that it starts from, with its fields, or None."""
    recipe = rig.recipe
    given = {name: value for name, value in getattr(recipe, stage).items() if name not in SHOWN_ONLY}
    queries = sum(len(part.queries) for part in rig.data["train"])
    whole = {"model": recipe.model, "fields": fields, "arguments": given, "training queries": queries, "data and backbones": rig.fingerprint}
    if stage == "retrieval":
        whole |= {"products_per_query": recipe.products_per_query, "language_temperature": recipe.language_temperature}
        whole["stage 1"] = None if anchoring is None else identity(rig, dict(anchoring), "anchoring")
    return json.loads(json.dumps(whole))


def check_identity(file: Path, made_by: dict) -> None:
    """Raises ValueError where a file tells of another training."""
    if not file.exists():
        return
    found = json.loads(file.read_text()).get("made_by", {})
    differing = [name for name in made_by if found.get(name) != made_by[name]]
    if differing:
        what = file.parent if file.name == "made_by.json" else file
        raise ValueError(f"output: {str(what)!r} was trained with other {', '.join(differing)}; give another folder, or delete it")


def check_anchoring(folder: Path, made_by: dict) -> None:
    """The same of the folder of a stage 1, whose model must say how it was made."""
    if (folder / "model").exists() and not (folder / "made_by.json").exists():
        raise ValueError(f"output: {str(folder)!r} does not say how it was trained; give another folder, or delete it")
    check_identity(folder / "made_by.json", made_by)
