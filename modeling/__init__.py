"""The package side of LiRA's model code, never shipped: names, and what the Auto classes need to know.

Registering makes `AutoModel.from_pretrained` use these classes instead of a repository's own copy, so tests of remote code run in
a process that has not imported this package."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from lira_hf.modeling.configuration_lira import AUTO_MAP, LiraConfig
from lira_hf.modeling.modeling_lira import (
    CollapseError,
    LiraForCausalLM,
    LiraForPreTraining,
    LiraForRetrieval,
    LiraForSequenceClassification,
    LiraHead,
    LiraModel,
    LiraModelOutput,
)
from lira_hf.modeling.processing_lira import LiraProcessor

# Makes save_pretrained copy the code files beside the weights.
LiraConfig.register_for_auto_class()
LiraProcessor.register_for_auto_class()
LiraForRetrieval.register_for_auto_class("AutoModel")
LiraForPreTraining.register_for_auto_class("AutoModelForPreTraining")
LiraForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
LiraForCausalLM.register_for_auto_class("AutoModelForCausalLM")

AutoConfig.register("lira", LiraConfig, exist_ok=True)
AutoModel.register(LiraConfig, LiraForRetrieval, exist_ok=True)
AutoModelForPreTraining.register(LiraConfig, LiraForPreTraining, exist_ok=True)
AutoModelForSequenceClassification.register(LiraConfig, LiraForSequenceClassification, exist_ok=True)
AutoModelForCausalLM.register(LiraConfig, LiraForCausalLM, exist_ok=True)
AutoProcessor.register(LiraConfig, LiraProcessor, exist_ok=True)

__all__ = [
    "AUTO_MAP", "CollapseError", "LiraConfig", "LiraForCausalLM", "LiraForPreTraining", "LiraForRetrieval", "LiraForSequenceClassification",
    "LiraHead", "LiraModel",
    "LiraModelOutput", "LiraProcessor",
]  # fmt: skip
