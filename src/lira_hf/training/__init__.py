"""Training by the plain transformers.Trainer: recipes, the stages in order, and what a run logs and keeps."""

from lira_hf.training.callbacks import last_checkpoint
from lira_hf.training.recipes import Recipe, check_recipe, load_recipe
from lira_hf.training.running import fill_features, load_parts, run, save
from lira_hf.training.stages import arguments, train_anchoring, train_ranking, train_retrieval

__all__ = [
    "Recipe", "arguments", "check_recipe", "fill_features", "last_checkpoint", "load_parts", "load_recipe", "run", "save", "train_anchoring",
    "train_ranking", "train_retrieval",
]  # fmt: skip
