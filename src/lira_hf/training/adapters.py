"""LoRA in the backbones, by peft. LiRA's own parts are trained whole beside it and travel in the adapter's folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lira_hf.modeling import LiraHead
from lira_hf.modeling.configuration_lira import BACKBONES

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def children(model: LiraHead) -> dict[str, nn.Module]:
    """The parts of a head, with or without adapters in it, by their place: lira.multilingual, lira.arca, and those beside `lira`."""
    head = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = {f"lira.{name}": part for name, part in head.lira.named_children()}
    return inner | {name: part for name, part in head.named_children() if name != "lira"}


def backbones(model: LiraHead) -> dict[str, nn.Module]:
    """The backbones of a head: multilingual, english, and llm where it has one."""
    found = {place.split(".")[-1]: part for place, part in children(model).items()}
    return {name: found[name] for name in BACKBONES if name in found}


def lora_config(model: LiraHead, groups: dict[str, dict[str, Any]]) -> LoraConfig:
    """The configuration for `peft.get_peft_model(model, ...)` that puts LoRA into some backbones and trains LiRA's own parts whole.

    Args:
        groups: by backbone, of multilingual, english and llm: `r` (8), `lora_alpha` (2 r), `lora_dropout` (0, the same for all) and
            `target_modules` (names of layers; what peft takes for this kind of model). Other backbones stay as they are.
    Raises ValueError for a backbone that the model has not or trains whole, or that has no such layers."""
    try:
        from peft import LoraConfig
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN
    except ImportError:
        raise ValueError("lora: peft is missing; install it with pip install 'lira-hf[peft]'") from None
    there, ranks, alphas, dropouts = backbones(model), {}, {}, set()
    for name, options in groups.items():
        if name not in there:
            raise ValueError(f"lora.{name}: this model has no such backbone; it has {', '.join(there)}")
        if name in model.config.trainable_backbones:
            raise ValueError(f"lora.{name}: trainable_backbones names it too, and a backbone is trained whole or by LoRA; leave one out")
        layers = options.get("target_modules") or KNOWN.get(there[name].config.model_type)
        if not layers:
            linear = sorted({place.split(".")[-1] for place, layer in there[name].named_modules() if isinstance(layer, nn.Linear)})
            raise ValueError(f"lora.{name}.target_modules: missing; name some of this backbone's layers: {', '.join(linear)}")
        place = name if name == "llm" else f"lira.{name}"
        pattern = rf"{place}\.(?:.*\.)?(?:{'|'.join(map(re.escape, layers))})"
        if not any(re.fullmatch(pattern, module) for module, _ in model.named_modules()):
            raise ValueError(f"lora.{name}.target_modules: {list(layers)} are no layers of this backbone")
        ranks[pattern] = options.get("r", 8)
        alphas[pattern] = options.get("lora_alpha") or 2 * ranks[pattern]
        dropouts.add(options.get("lora_dropout", 0.0))
    if len(dropouts) > 1:
        raise ValueError(f"lora: lora_dropout is {' and '.join(map(str, sorted(dropouts)))}; it must be the same for all backbones")
    frozen = {name for name in there if name not in model.config.trainable_backbones}
    own = [place for place, part in children(model).items() if place.split(".")[-1] not in frozen and any(True for _ in part.parameters())]
    return LoraConfig(
        target_modules="|".join(f"(?:{pattern})" for pattern in ranks),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        lora_dropout=dropouts.pop(),
        modules_to_save=own,
    )


def adapted(model: LiraHead, groups: dict[str, dict[str, Any]]) -> LiraHead | PeftModel:
    """The model with LoRA in those of the groups' backbones that it has, drawn from torch's global generator; itself, if it has none."""
    groups = {name: options for name, options in groups.items() if name in backbones(model)}
    if not groups:
        return model
    config = lora_config(model, groups)
    from peft import get_peft_model

    return get_peft_model(model, config)


def merged(model: LiraHead | PeftModel) -> LiraHead:
    """A plain head with the same embeddings: its adapters, if there are any, become part of the weights."""
    return model.merge_and_unload().embed_backbones() if hasattr(model, "merge_and_unload") else model


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Adapter and LiRA's own parts in peft's format, whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
