"""A training recipe: what a YAML file may hold, checked before anything is loaded."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lira_hf.environment import environment
from lira_hf.languages import check_languages
from lira_hf.modeling import LiraConfig
from lira_hf.modeling.configuration_lira import BACKBONES
from lira_hf.training.arguments import StageArguments, check_stage

Dtype = Literal["float32", "float16", "bfloat16"]


class Backbones(BaseModel):
    model_config = ConfigDict(extra="forbid")
    multilingual: str
    english: str
    llm: str | None = None


class Lora(BaseModel):
    """Fields of peft.LoraConfig for one backbone; see adapters.lora_config."""

    model_config = ConfigDict(extra="forbid")
    r: int = Field(8, ge=1)
    lora_alpha: float | None = Field(None, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | None = None


class Recipe(BaseModel):
    """A training recipe, as a YAML file holds it.

    `model` takes fields of LiraConfig; `anchoring`, `retrieval`, `ranking` and `reasoning` take fields of StageArguments; the rest is explained in
    configs/tiny.yaml."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    data: str
    backbones: Backbones
    output: str
    stage: Literal["all", "anchoring", "retrieval", "ranking", "reasoning"] = "all"
    languages: list[str] | None = None
    seed: int = Field(0, ge=0)
    max_length: int = Field(128, ge=4)
    prompts: dict[str, dict[str, str]] | None = None
    cache_features: bool = True
    features: str | None = None
    features_dtype: Dtype = "float32"
    backbones_dtype: Dtype = "float32"
    streaming: bool = False
    products_per_query: int = Field(8, ge=2)
    llm_prompt: str = "{question}"
    evaluation_rows: int = Field(64, ge=1)
    language_temperature: float = Field(1.0, gt=0)
    model: dict[str, Any] = {}
    lora: dict[str, Lora] = {}
    anchoring: dict[str, Any] = {}
    retrieval: dict[str, Any] = {}
    ranking: dict[str, Any] = {}
    reasoning: dict[str, Any] = {}

    @field_validator("languages")
    @classmethod
    def _languages(cls, codes: list[str] | None) -> list[str]:
        return check_languages(codes)

    @field_validator("model")
    @classmethod
    def _model(cls, values: dict[str, Any]) -> dict[str, Any]:
        return known_fields(
            "model",
            values,
            set(LiraConfig.__annotations__) - {"multilingual_config", "english_config", "llm_config", "model_type", "sub_configs_defaults"},
        )

    @field_validator("anchoring", "retrieval", "ranking", "reasoning")
    @classmethod
    def _arguments(cls, values: dict[str, Any], info) -> dict[str, Any]:
        if info.field_name == "anchoring" and values.get("early_stopping") is not None:
            raise ValueError("anchoring.early_stopping: stage 1 has no evaluation to go by; it is for the stages after it")
        check_stage(values, f"{info.field_name}.")
        return known_fields(info.field_name, values, {f.name for f in fields(StageArguments) if f.init} - {"output_dir"})

    @field_validator("lora")
    @classmethod
    def _lora(cls, groups: dict[str, Lora]) -> dict[str, Lora]:
        for name in groups:
            if name not in BACKBONES:
                raise ValueError(f"lora.{name}: no backbone of that name; allowed: {', '.join(BACKBONES)}")
        return groups

    @model_validator(mode="after")
    def _together(self):
        """What does not go with what."""
        learning = [name for name in ("multilingual", "english") if name in {*self.lora, *self.model.get("trainable_backbones", ())}]
        if self.cache_features and learning:
            raise ValueError(
                f"cache_features: true does not go with a {learning[0]} backbone that is trained (model.trainable_backbones or lora), whose "
                "features change at each step; set cache_features: false"
            )
        for stage in ("anchoring", "retrieval"):
            if self.streaming and self.stage in ("all", stage) and not getattr(self, stage).get("max_steps", 0) > 0:
                raise ValueError(f"{stage}.max_steps: missing; a stream has no end, so streaming: true needs it")
        return self


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


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML that load_recipe reads back, under a comment with the versions it was trained with."""
    made = ", ".join(f"{name} {value}" for name, value in environment().items() if value is not None)
    values = {name: value for name, value in recipe.model_dump(exclude_none=True).items() if value != {}}
    return f"# {made}\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


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
