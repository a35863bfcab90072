"""The pretrained models that LiRA stands on: how they are opened, embedded or by reference, how they pool, which of their parameters learn.

A reference is {"repo_id": of the Hub, "revision": commit}. Nothing that a backbone's repository says makes its own code run:
it is opened with trust_remote_code=False, whatever LiRA itself was opened with, and its weights are read from safetensors only.
"""

import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING

from .folders_lira import WEIGHT_FILES, located, tensor_files

FILES = (*WEIGHT_FILES, "1_Pooling/config.json")
# Fields in which a configuration may differ from the stored one without changing a number: those that every model has, and of training.
COSMETIC = (set(PreTrainedConfig().to_dict()) - {"model_type"}) | {"use_cache", "bos_token_id", "eos_token_id", "sep_token_id", "auto_map"}
TRAINING = ("drop", "initializer", "init_std")  # parts of such fields' names
UNREAD = "pooler"  # LiRA reads token states; many checkpoints lack this part, which is made at random then
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def loaded_from(path: str, name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, dict | None, Path]:
    """The pretrained backbone of a path, multilingual, english or llm, the reference to it, None for a folder on disk, and its folder.
    Raises ValueError where there is none."""
    try:
        folder, commit = located(name, FILES)
        tensor_files(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model = opener(path, config).from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: {str(name)!r} is neither a model folder nor a Hub id that can be loaded ({reason})") from error
    if commit is None:
        return model, None, folder
    model.name_or_path = model.config.name_or_path = str(name)
    return model, {"repo_id": str(name), "revision": commit}, folder


def loaded_by_reference(path: str, reference: dict, config: PreTrainedConfig, dtype: torch.dtype, **where) -> tuple[PreTrainedModel, set[str]]:
    """The backbone of a path at the commit that the reference names, and which of its weights are not there, but made at random.

    Args:
        config: what LiRA's configuration holds of it. where: how the Hub is reached (LOCATION).
    Raises ValueError where the commit's configuration or weights are others than config's; OSError where it cannot be had."""
    name = f"{reference['repo_id']} at {reference['revision']}"
    folder, _ = located(reference["repo_id"], FILES, revision=reference["revision"], **where)
    files = tensor_files(folder)
    found = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    there, expected = (architecture(json.loads(each.to_json_string(use_diff=False))) for each in (found, config))
    for field in sorted(there.keys() | expected.keys(), key=lambda field: (field != "model_type", field)):
        if there.get(field) != expected.get(field):
            raise ValueError(f"{path}_config: {field} is {expected.get(field)!r}, but the backbone, {name}, has {there.get(field)!r}")
    model, report = opener(path, config).from_pretrained(
        folder, config=copy.deepcopy(config), dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    for tensor, saved, own in sorted(report["mismatched_keys"]):
        raise ValueError(f"{path}: {tensor} has the shape {list(saved)} in {name}, but {list(own)} is expected")
    missing = {tensor for tensor in report["missing_keys"] if UNREAD not in tensor}
    if missing:
        raise ValueError(f"{path}: {min(missing)} is missing in {name}, which has {min(files)} and others")
    model.name_or_path = model.config.name_or_path = reference["repo_id"]
    return model if path == "llm" else encoder_of(model), set(report["missing_keys"])


def architecture(fields: dict) -> dict:
    """Those of a configuration's fields that decide what a model computes."""
    kept = {name: value for name, value in fields.items() if name not in COSMETIC and not any(part in name for part in TRAINING)}
    return {name: architecture(value) if isinstance(value, dict) else value for name, value in kept.items() if not name.startswith("_")}


def opener(path: str, config: PreTrainedConfig):
    """The Auto class that opens the backbone of a path."""
    return AutoModelForCausalLM if path == "llm" else auto_class(config)


def digests(weights: dict[str, Tensor]) -> dict[str, int]:
    """A number per tensor that changes with its bits: their sum as whole numbers, at the speed of the memory, on whatever device."""
    found = {}
    for name, tensor in weights.items():
        flat = tensor.detach().reshape(-1)
        wide = flat.numel() * flat.element_size() % 8 == 0
        found[name] = flat.view(torch.int64 if wide else BITS[flat.element_size()]).sum()
    return {name: int(value) for name, value in found.items()}


def auto_class(config):
    """The Auto class that opens a backbone: where a text-encoder class exists (T5, mT5, BERT ...) that one, else AutoModel."""
    return AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def encoder_of(backbone: PreTrainedModel) -> PreTrainedModel:
    """The backbone itself, or its encoder where it came with a decoder that LiRA never runs (M2M100, BART ...)."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


def pooling_of(folder: Path, config) -> str:
    """mean, cls or last: what the backbone's sentence-transformers files say, else last for decoders and mean for encoders."""
    path = folder / "1_Pooling/config.json"
    declared = json.loads(path.read_text()) if path.exists() else {}
    for pooling, keys in (("cls", ("pooling_mode_cls_token",)), ("last", ("pooling_mode_lasttoken",)), ("mean", ("pooling_mode_mean_tokens",))):
        if any(declared.get(key) for key in keys) or declared.get("pooling_mode") in (pooling, pooling + "token"):
            return pooling
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if decoder and not config.is_encoder_decoder else "mean"


def freeze(backbone: PreTrainedModel, training: bool, trainable: bool) -> None:
    """Sets a backbone's mode: frozen and in eval mode, but for LoRA's own weights; or, if it is trainable, like any model.
    Layers of a trainable backbone that were frozen by hand stay so."""
    adapters = [parameter for name, parameter in backbone.named_parameters() if "lora_" in name]
    if trainable:
        if not learns(backbone):  # it was made trainable after it had been frozen
            backbone.requires_grad_(True)
    else:
        marks = [parameter.requires_grad for parameter in adapters]
        backbone.requires_grad_(False)
        for parameter, mark in zip(adapters, marks, strict=True):
            parameter.requires_grad_(mark)
    backbone.train(training and (trainable or any(parameter.requires_grad for parameter in adapters)))


def learns(backbone: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in backbone.parameters())
