"""Arms of a study: trainings that share data, backbones and cached features, and differ in fields of LiraConfig or of the recipe.

OUTPUT/data  OUTPUT/backbones  OUTPUT/features     made once
OUTPUT/runs/SEED/ARM.json                          a finished arm's scores; it is not trained again
OUTPUT/runs/SEED/anchoring-NAME/model              a finished stage 1, shared by the arms that start from it"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch

from lira_hf.backbones import train_tiny_backbones
from lira_hf.catalogue import build
from lira_hf.collation import SPLITS, RetrievalData, every_row, read
from lira_hf.evaluation.retrieval import score, summary, variant
from lira_hf.features import FeatureStore, fill
from lira_hf.modeling import LiraForPreTraining, LiraForRetrieval, LiraProcessor
from lira_hf.reporting import write_json
from lira_hf.training import Recipe, arguments, load_recipe, save, train_anchoring, train_retrieval

Say = Callable[[str, list[dict]], None]  # is told the name and the log of what was trained


@dataclass
class Rig:
    """What the arms share. base: LiRA around the frozen backbones, untrained; store: features of every text of data."""

    recipe: Recipe
    processor: LiraProcessor
    base: LiraForRetrieval
    store: FeatureStore
    data: dict[str, list[RetrievalData]]


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
    processor = LiraProcessor.from_backbones(multilingual, english, max_length=recipe.max_length)
    torch.manual_seed(0)
    base = LiraForRetrieval.from_backbones(multilingual, english, **{"languages": processor.languages, **recipe.model})
    rows = [row for split in SPLITS for row in every_row(data[split], references=split == "train" and bool(base.config.consistency_weight))]
    return Rig(recipe, processor, base, fill(Path(output) / "features", base.lira, processor, rows), data)


def as_trained(rig: Rig, seed: int, fields: dict) -> Recipe:
    """The recipe of one arm."""
    return rig.recipe.model_copy(update={"seed": seed, "model": {**rig.recipe.model, **fields}})


def anchor(rig: Rig, seed: int, fields: dict | None = None, name: str = "", say: Say | None = None) -> LiraForPreTraining:
    """Stage 1 of one seed with other fields of LiraConfig, from OUTPUT/runs/SEED if it is finished there."""
    folder = Path(rig.recipe.output) / "runs" / str(seed) / f"anchoring{name and f'-{name}'}"
    if not (folder / "model").exists():
        start = variant(rig.base, fields or {}, seed)
        model = LiraForPreTraining(start.config)
        model.lira.load_state_dict(start.lira.state_dict())
        args = arguments(folder, seed, rig.recipe.anchoring)
        log = train_anchoring(model, rig.store, rig.data["train"], args, resume=True, show_logs=False)
        save(model, rig.processor, folder / "model", log, as_trained(rig, seed, fields or {}))
        if say:
            say(f"stage 1{name and f', {name}'}", log)
    return LiraForPreTraining.from_pretrained(folder / "model")


def train_arm(
    rig: Rig, seed: int, name: str, fields: dict, anchored: LiraForPreTraining, say: Say | None = None, keep: Path | None = None
) -> dict[str, dict]:
    """Stage 2 of one arm: {"validation": summary, "test": summary} (see evaluation.retrieval.summary), from OUTPUT/runs/SEED if it is
    finished there. With keep, the model is saved there."""
    folder = Path(rig.recipe.output) / "runs" / str(seed)
    done = folder / f"{name}.json"
    if not done.exists():
        start = variant(rig.base, {}, seed)
        start.lira.arca.load_state_dict(anchored.lira.arca.state_dict())
        model = variant(start, fields, seed)
        args = arguments(folder / name, seed, rig.recipe.retrieval)
        train, validation = rig.data["train"], rig.data["validation"]
        options = {"products_per_query": rig.recipe.products_per_query, "temperature": rig.recipe.language_temperature}
        log = train_retrieval(model, rig.store, train, validation, args, resume=True, show_logs=False, **options)
        if say:
            say(name, log)
        if keep:
            save(model, rig.processor, keep, log, as_trained(rig, seed, fields))
        write_json(done, {split: summary(score(model, rig.store, rig.data[split]), rig.data[split]) for split in ("validation", "test")})
        shutil.rmtree(folder / name, ignore_errors=True)  # its checkpoints have served
    return json.loads(done.read_text())
