"""A system as a model of mteb, with the translations that mteb does not know of.

import mteb
from lira_hf.evaluation.mteb_encoder import LiraEncoder

results = mteb.evaluate(LiraEncoder(model, processor, translations="translated"), mteb.get_task("BelebeleRetrieval"))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from lira_hf.evaluation.systems import LiraSystem, System
from lira_hf.evaluation.translations import Translations, given_candidates, row_of
from lira_hf.languages import ENGLISH, LANGUAGES
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.modeling.processing_lira import Row

# ISO 639-3 of the languages that LiRA has codes for; Filipino has two.
CODES = {each[:3]: language.code for language in (*LANGUAGES.values(), ENGLISH) for each in (language.mteb, language.flores)}


class SystemEncoder(AbsEncoder):
    """A system (see evaluation.systems) as mteb's encoder.

    Candidates of a text are what the data set's column `translation` or `translations` says (see translations.given_candidates), else what
    the table has for the text. Its language is that of the subset: of documents the first of a pair, of queries the second; of pairs of
    sentences what `sides` says. Its prompt is that of the prompt type, and `query` for pairs of sentences, as LiRA is trained on them.

    Args:
        system, name: what to measure, and what to call it, ORG/NAME. adapted_from: the model around which the system was built.
        translations: the table. sides: (subset, text) -> code, for pairs of sentences in two languages.
    """

    def __init__(
        self, system: System, name: str, translations: Translations | None = None,
        sides: Mapping[tuple[str, str], str | None] | None = None, adapted_from: str | None = None,
    ):  # fmt: skip
        self.system = self.model = system
        self.translations, self.sides = translations or Translations(), sides or {}
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name,
                "revision": system.digest,  # of the weights: mteb's cache goes by it, and another checkpoint must not find this one's results
                "similarity_fn_name": ScoringFunction.COSINE,
                "embed_dim": system.size,
                "max_tokens": system.max_tokens,
                "n_parameters": system.parameters,
                "languages": [language.mteb for language in LANGUAGES.values()],
                "framework": ["PyTorch", "Transformers"],
                "open_weights": True,
                "use_instructions": True,
                "adapted_from": adapted_from,
            }
        )

    def encode(
        self, inputs: Iterable[dict[str, list]], *, task_metadata: TaskMetadata, hf_split: str, hf_subset: str,
        prompt_type: PromptType | None = None, batch_size: int = 64, show_progress_bar: bool = False, **kwargs: Any,
    ) -> torch.Tensor:  # fmt: skip
        """Vectors of all texts of inputs, float32 on the CPU, [N, size], in their order."""
        languages, pair = languages_of(task_metadata, hf_subset), prompt_type is None
        rows = []
        for batch in inputs:
            for i, text in enumerate(batch["text"]):
                if pair:
                    language = languages[0] if len(set(languages)) == 1 else self.sides.get((hf_subset, text))
                else:
                    language = languages[0 if prompt_type == PromptType.document else -1]
                given = next(
                    (found for name in ("translations", "translation") if name in batch and (found := given_candidates(batch[name][i]))), None
                )
                rows.append(self.row(text, language, given, "query" if pair else prompt_type.value))
        return self.system.embed(rows, batch_size=batch_size, show_progress_bar=show_progress_bar)

    def row(self, text: str, language: str | None, given: list[dict] | None, prompt: str) -> Row:
        given = self.translations.of(text, language) if given is None else given
        row = row_of(text, language, given)
        row.prompt = prompt
        return row


class LiraEncoder(SystemEncoder):
    """A LiRA model as mteb's encoder, with the vectors of its own `encode`. translations: a table (see Translations.open), or its path."""

    def __init__(
        self, model: LiraForRetrieval, processor: LiraProcessor, translations: Translations | str | Path | None = None, name: str = "lira-hf/lira"
    ):
        table = translations if isinstance(translations, Translations) else Translations.open(translations)
        super().__init__(LiraSystem(model, processor), name, table)


class Listener:
    """A system that only remembers what it was asked to embed: which texts a benchmark has, as its models meet them."""

    size, max_tokens, digest, parameters = 2, 0, "listener", 0

    def __init__(self):
        self.rows: list[Row] = []

    def embed(self, rows: list[Row], batch_size: int = 64, show_progress_bar: bool = False) -> torch.Tensor:
        self.rows += rows
        angles = torch.arange(len(rows), dtype=torch.float32) / max(1, len(rows))
        return torch.stack([angles.cos(), angles.sin()], -1)  # all different: mteb correlates them


def languages_of(task: TaskMetadata, subset: str) -> list[str | None]:
    """The languages of a subset as our codes, None for one that has none: of a pair the documents' or first sentences', then the other."""
    codes = task.eval_langs[subset] if isinstance(task.eval_langs, dict) else task.eval_langs
    return [CODES.get(code[:3]) for code in codes]
