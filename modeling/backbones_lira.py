"""The pretrained models that LiRA stands on: how they are opened, how they pool, which of their parameters learn."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING
from transformers.utils import cached_file


def loaded_from(path: str, name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The pretrained backbone of a path, multilingual, english or llm. Raises ValueError where there is none."""
    try:
        loader = AutoModelForCausalLM if path == "llm" else auto_class(AutoConfig.from_pretrained(name))
        return loader.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: {str(name)!r} is neither a model folder nor a Hub id that can be loaded ({reason})") from error


def auto_class(config):
    """The Auto class that opens a backbone: where a text-encoder class exists (T5, mT5, BERT ...) that one, else AutoModel."""
    return AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def encoder_of(backbone: PreTrainedModel) -> PreTrainedModel:
    """The backbone itself, or its encoder where it came with a decoder that LiRA never runs (M2M100, BART ...)."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


def pooling_of(name: str, config) -> str:
    """mean, cls or last: what the backbone's sentence-transformers files say, else last for decoders and mean for encoders."""
    path = cached_file(name, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    declared = json.loads(Path(path).read_text()) if path else {}
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
