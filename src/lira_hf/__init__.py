"""lira-hf: LiRA for Hugging Face. The names below load torch only when they are used, so that the command line answers at once."""

import importlib

__version__ = "0.1.0"
__all__ = [
    "LiraConfig", "LiraForCausalLM", "LiraForPreTraining", "LiraForRetrieval", "LiraForSequenceClassification", "LiraModel", "LiraProcessor",
]  # fmt: skip


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module("lira_hf.modeling"), name)
    raise AttributeError(f"module 'lira_hf' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
