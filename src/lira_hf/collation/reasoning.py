"""Problems with an answer, and the batches of the reasoning stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from datasets import Dataset

from lira_hf.collation.retrieval import candidates
from lira_hf.modeling.processing_lira import Row


@dataclass
class Problem:
    """A question and its answer. `response` is what a model learns to write: the solution, which ends with the answer, or the answer alone
    where the data have none. `english` is its perfect translation; `label` the place of the answer among `choices`; `kind` and `template`
    say how it was made."""

    id: str
    row: Row
    english: str
    answer: str
    response: str
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
        response = row.get("solution") or row["answer"]
        own = (row[name] for name in ("kind", "template", "choices", "label"))
        problems.append(Problem(row["problem_id"], read, row["english"], row["answer"], response, *own))
    return ProblemData(language, problems)


class ReasoningCollator:
    """Problems -> a batch of LiraForCausalLM, of ids or of cached features, by the encoder (see lira_hf.collation): the processor's
    `llm_prompt`, followed by the response in training, without it (responses=False) for generation."""

    def __init__(self, encoder, responses: bool = True):
        self.encoder, self.responses = encoder, responses
        self.processor = getattr(encoder, "processor", encoder)  # a FeatureStore has one

    def __call__(self, problems: list[Problem]) -> dict[str, torch.Tensor]:
        rows = [problem.row for problem in problems]
        responses = [problem.response for problem in problems] if self.responses else None
        return {**self.encoder.batch(rows), **self.processor.dialogue(self.processor.prompt_ids(rows), responses)}
