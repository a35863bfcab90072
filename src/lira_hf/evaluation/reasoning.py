"""Answers to problems: what a response says, whether it is right, and accuracy by language, 0 to 100.

A response counts by its number where the answer is a number, and else by its choice: right is what equals the answer exactly, as a
number ("7", "7.0" and "๗" are equal), or as a choice (its letter, or its words in any case)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from statistics import mean
from string import ascii_uppercase

import torch

from lira_hf.collation import Problem, ProblemData, ReasoningCollator
from lira_hf.modeling import LiraForCausalLM, LiraProcessor

# A sign counts where no digit or letter stands before it: "5-3" ends with 3, "= -3" with -3.
NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})+(?:\.\d+)?(?!\d)|(?<![\w)])-?\d+(?:\.\d+)?|\d+(?:\.\d+)?")
ANNOUNCED = re.compile(r"(?:answer|choice|option)(?:\s+is)?\s*[:=]?\s*[(\[]?([A-Z])(?![\w'])", re.IGNORECASE)
LETTER = re.compile(r"(?<!\w)[(\[]?([A-Z])(?=[)\].:]|\s*$)")
MORE_TOKENS = 4  # than the longest response has: a longer number must not be cut down to the right one


def number(text: str) -> Decimal | None:
    """The last number of a text, or the one after its last `####`; digits of any script, commas between thousands; None where there is none."""
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text).replace("−", "-")
    found = NUMBER.findall(plain.rpartition("####")[2])
    return Decimal(found[-1].replace(",", "")) if found else None


def choice(text: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text names: its whole text is the choice's words or its letter; else the last letter after "answer",
    "choice" or "option"; else the first capital with a bracket, point or colon, or the end of the text, behind it. None where there
    is none, or no such choice."""
    said = text.strip().casefold()
    for place, words in enumerate(choices):
        if said in (words.strip().casefold(), ascii_uppercase[place].casefold()):
            return place
    letters = ANNOUNCED.findall(text)[-1:] or LETTER.findall(text)[:1]
    place = ascii_uppercase.index(letters[0].upper()) if letters else None
    return place if place is not None and place < len(choices) else None


def lettered(question: str, choices: Sequence[str]) -> str:
    """A question with its choices in lines of their own, each behind its letter: "A. ..."."""
    return "\n".join([question, *(f"{letter}. {words}" for letter, words in zip(ascii_uppercase, choices, strict=False))])


def is_right(response: str, problem: Problem) -> bool:
    """Whether a response says the problem's answer."""
    wanted = number(problem.answer)
    return choice(response, problem.choices) == problem.label if wanted is None else number(response) == wanted


@torch.no_grad()
def responses(model: LiraForCausalLM, encoder, problems: list[Problem], batch_size: int = 64) -> list[str]:
    """What the model writes for problems, greedily, by an encoder (see lira_hf.collation)."""
    collate = ReasoningCollator(encoder, responses=False)
    processor, found = collate.processor, []
    longest = processor.answers([problem.response for problem in problems])[0].shape[1]
    tokens = {"pad_token_id": processor.llm_tokenizer.pad_token_id, "eos_token_id": processor.llm_tokenizer.eos_token_id}
    with model.evaluating():
        for start in range(0, len(problems), batch_size):
            batch = {name: tensor.to(model.device) for name, tensor in collate(problems[start : start + batch_size]).items()}
            written = model.generate(**batch, **tokens, do_sample=False, num_beams=1, max_new_tokens=longest + MORE_TOKENS)
            found += processor.batch_decode(written, skip_special_tokens=True)
    return found


def score(model: LiraForCausalLM, encoder, data: list[ProblemData], rows: int | None = None) -> dict[str, float]:
    """Accuracy of what the model writes by language, over the first `rows` problems of each (None: all)."""
    found = {}
    for part in data:
        problems = part.problems[:rows]
        written = responses(model, encoder, problems)
        found[part.language] = 100.0 * mean(is_right(text, problem) for text, problem in zip(written, problems, strict=True))
    return found


def choice_score(model: LiraForCausalLM, processor: LiraProcessor, data: list[ProblemData], rows: int | None = None) -> dict[str, float]:
    """Accuracy of multiple choice by language: the choice with the largest log-likelihood, ties to the first."""
    found = {}
    for part in data:
        problems = part.problems[:rows]
        read = [problem.row for problem in problems]
        sums, _ = model.choice_log_likelihoods(
            [row.text for row in read], [problem.choices for problem in problems], processor=processor, prompt_name="query",
            translations=[row.translations for row in read], scores=[row.scores for row in read], language=part.language,
        )  # fmt: skip
        found[part.language] = 100.0 * mean(int(best) == problem.label for best, problem in zip(sums.argmax(-1), problems, strict=True))
    return found


def summary(found: dict[str, float]) -> dict:
    """{"languages": {code: accuracy}, "average": mean over languages}."""
    return {"languages": found, "average": mean(found.values())}
