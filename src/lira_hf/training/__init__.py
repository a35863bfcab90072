"""Training by the plain transformers.Trainer: recipes, the stages in order, and what a run logs and keeps."""

from lira_hf.training.adapters import adapted, lora_config, merged
from lira_hf.training.arguments import StageArguments, arguments
from lira_hf.training.callbacks import last_checkpoint
from lira_hf.training.recipes import Recipe, check_recipe, load_recipe
from lira_hf.training.running import fill_features, load_parts, run, save
from lira_hf.training.stages import train_anchoring, train_ranking, train_reasoning, train_retrieval

__all__ = [
    "Recipe", "StageArguments", "adapted", "arguments", "check_recipe", "fill_features", "last_checkpoint", "load_parts", "load_recipe",
    "lora_config", "merged", "run", "save", "train_anchoring", "train_ranking", "train_reasoning", "train_retrieval",
]  # fmt: skip
