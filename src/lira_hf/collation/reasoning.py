"""Problems with an answer, and the batches of the reasoning stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from datasets import Dataset

from lira_hf.collation.retrieval import candidates
from lira_hf.modeling.processing_lira import Row


@dataclass
class Problem:
    """A question and its answer. `english` is its perfect translation; `label` the place of the answer among `choices`; `kind` and
    `template` say how it was made."""

    id: str
    row: Row
    english: str
    answer: str
    kind: str
    template: str
    choices: list[str]
    label: int


@dataclass
class ProblemData:
    """One language's problems of one split."""

    language: str
    problems: list[Problem]

    def rows(self, references: bool = False) -> list[Row]:
        """Every row of it; the stage has no consistency term, and so no references."""
        return [problem.row for problem in self.problems]


def problem_data(rows: Dataset, language: str) -> ProblemData:
    """A language's split from its rows."""
    problems = []
    for row in rows:
        read = Row(row["question"], *candidates(row["translations"]), language, "query")
        own = (row[name] for name in ("english", "answer", "kind", "template", "choices", "label"))
        problems.append(Problem(row["problem_id"], read, *own))
    return ProblemData(language, problems)


class ReasoningCollator:
    """Problems -> a batch of LiraForCausalLM, of ids or of cached features, by the encoder (see lira_hf.collation): the processor's
    `llm_prompt`, followed by the answer in training, without it (answers=False) for generation."""

    def __init__(self, encoder, answers: bool = True):
        self.encoder, self.answers = encoder, answers
        self.processor = getattr(encoder, "processor", encoder)  # a FeatureStore has one

    def __call__(self, problems: list[Problem]) -> dict[str, torch.Tensor]:
        rows = [problem.row for problem in problems]
        answers = [problem.answer for problem in problems] if self.answers else None
        return {**self.encoder.batch(rows), **self.processor.dialogue(self.processor.prompt_ids(rows), answers)}
