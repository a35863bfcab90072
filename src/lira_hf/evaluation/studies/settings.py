"""What a study's YAML file holds beside a training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lira_hf.catalogue.candidates import Translator
from lira_hf.training.recipes import Backbones, Recipe, check_recipe, read_values, unknown

ERRORS = {  # kind of translation noise: what every translator of a corrupted row does for certain
    "wrong_type": {"wrong_type": 1.0},  # another product of the department
    "wrong_value": {"wrong_value": 1.0},  # every attribute another one
    "dropped": {"dropped": 1.0, "lost_brand": 1.0},  # nothing but the type
    "invented": {"invented": 1.0},  # a brand or a number nobody asked for
}


class FewShot(BaseModel):
    """steps: percent of the training rows to steps of stage 2. evaluations: of a run, from which the best checkpoint is taken."""

    model_config = ConfigDict(extra="forbid")
    steps: dict[float, int] = {1: 30, 5: 40, 10: 50, 25: 70, 50: 100}
    evaluations: int = Field(4, ge=1)

    @field_validator("steps")
    @classmethod
    def _steps(cls, steps: dict[float, int]) -> dict[float, int]:
        for percent, count in steps.items():
            if not 0 < percent < 100 or count < 1:
                raise ValueError(f"study.few_shot.steps: {percent:g}: {count} is not allowed; a percent between 0 and 100 and at least one step are")
        return dict(sorted(steps.items()))


class Noise(BaseModel):
    """levels: percent of the rows whose candidates are corrupted. kinds: kind to fields of Translator that all translators of a corrupted row get."""

    model_config = ConfigDict(extra="forbid")
    levels: list[float] = [0, 10, 25, 50, 75, 100]
    kinds: dict[str, dict[str, Any]] = ERRORS

    @field_validator("levels")
    @classmethod
    def _levels(cls, levels: list[float]) -> list[float]:
        if not {0, 50} <= set(levels) or not all(0 <= level <= 100 for level in levels):
            raise ValueError(f"study.noise.levels: {levels} is not allowed; percents from 0 to 100, with 0 and 50 among them, are")
        return sorted(set(levels))

    @field_validator("kinds")
    @classmethod
    def _kinds(cls, kinds: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        allowed = [name for name in Translator.__annotations__ if name not in ("name", "source_order", "synonyms")]
        for kind, fields in kinds.items():
            for name, value in fields.items():
                if name not in allowed or isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                    raise ValueError(f"study.noise.kinds.{kind}.{name}: {value!r} is not allowed; probabilities of {', '.join(allowed)} are")
        if not kinds or "mixed" in kinds or any(not fields for fields in kinds.values()):
            raise ValueError("study.noise.kinds: at least one kind with at least one field is needed, and none named mixed")
        return kinds


class TinyPair(BaseModel):
    """Tiny backbones to be trained (lira_hf.backbones): kind and size of each path; or the folders or ids of two that are there."""

    model_config = ConfigDict(extra="forbid")
    english: Literal["bert", "qwen3"] = "bert"
    multilingual_width: int = Field(128, ge=16)
    english_width: int = Field(128, ge=16)


class Study(BaseModel):
    """seeds: how often each training is repeated. workers: processes that share the work, each with its part of the cores.
    pairs: of backbones, by name, beside the recipe's own."""

    model_config = ConfigDict(extra="forbid")
    seeds: int = Field(3, ge=1)
    workers: int = Field(2, ge=1)
    few_shot: FewShot = FewShot()
    noise: Noise = Noise()
    pairs: dict[str, TinyPair | Backbones] = {}


def load_study(path: str | Path, output: str | Path, overrides: dict[str, Any] | None = None) -> tuple[Recipe, Study]:
    """The recipe and the study of a YAML file: fields of a training recipe, and `study`, which may be left out.

    A recipe without data or backbones gets those that the study makes in OUTPUT. Raises ValueError in one line: the file, the field,
    what is wrong."""
    values = read_values(path, overrides)
    try:
        study = Study(**(values.pop("study", None) or {}))
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error), "type": "", "input": None}
        name = ".".join(["study", *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{path}: {unknown(name, name.split('.')[-1], set(Study.model_fields))}") from None
        message = first["msg"].removeprefix("Value error, ")
        message = message if message.startswith("study") else f"{name}: {message}, not {first['input']!r}"
        raise ValueError(f"{path}: {message}") from None
    made = {part: str(Path(output) / "backbones" / part) for part in ("multilingual", "english")}
    values = {"data": str(Path(output) / "data"), "backbones": made, "languages": None, **values, "output": str(output)}
    return check_recipe(values, str(path)), study
