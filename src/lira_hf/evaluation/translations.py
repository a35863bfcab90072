"""Candidate translations of a benchmark's texts, made beforehand by `lira-hf translate` and `lira-hf judge`, looked up by text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lira_hf.collation.retrieval import candidates
from lira_hf.modeling.arca_lira import MIDDLE_SCORE
from lira_hf.modeling.processing_lira import Row, check_scores, check_text
from lira_hf.translation.placing import replacing
from lira_hf.translation.requests import as_text, open_input

Candidate = dict[str, Any]  # text, and semantic, emotional, pragmatic in 1..10 or None
AXES = ("semantic", "emotional", "pragmatic")


@dataclass
class Translations:
    """Candidates by text and language. `asked` and `lacking` remember what was looked up, and what of it had none."""

    found: dict[str, dict[str, list[Candidate]]] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)
    lacking: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def open(cls, path: str | Path | None) -> Translations:
        """Those of a table (CSV, TSV, JSONL, Parquet: text, language, translations), of an OUTPUT of `lira-hf translate` or `judge`, or of a
        LazRetrieval folder; none of None. A text that occurs twice has all of its distinct candidates. Raises ValueError for anything else,
        and where there is not one candidate."""
        if path is None:
            return cls()
        source, found = open_input(path), cls()
        for part in source.parts:
            for row in (row for rows in source.batches(part) for row in rows):
                found.add(row.text, row.language, [dict(each) for each in row.candidates if each["text"]])
        if not any(each for languages in found.found.values() for each in languages.values()):
            raise ValueError(f"translations: {str(path)!r} holds no candidate translations; give the output of `lira-hf translate`")
        return found

    def add(self, text: str, language: str, given: Sequence[Candidate]) -> None:
        """More candidates of a text; those that it has already stay as they are."""
        kept = self.found.setdefault(as_text(text), {}).setdefault(language, [])
        known = {each["text"] for each in kept}
        for each in given:
            if each["text"] not in known:
                known.add(each["text"])
                kept.append({"text": each["text"], **{axis: each.get(axis) for axis in AXES}})

    def of(self, text: str, language: str | None) -> list[Candidate]:
        """The candidates of a text in a language; where the table has the text in one other language only, those: tables may know more
        languages than we have codes for."""
        languages = self.found.get(as_text(text), {})
        given = languages.get(language or "und")
        if given is None:
            given = next(iter(languages.values())) if len(languages) == 1 else []
        if language != "en":
            self.asked.add((language or "und", text))
            if not given:
                self.lacking.add((language or "und", text))
        return given

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of everything that is in it."""
        content = sorted((text, language, given) for text, languages in self.found.items() for language, given in languages.items())
        return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]

    def coverage(self) -> dict[str, int]:
        """How many distinct texts were looked up, and how many of them have candidates."""
        return {"texts": len(self.asked), "translated": len(self.asked) - len(self.lacking)}


def given_candidates(value: str | None) -> list[Candidate] | None:
    """What a data set's own column says: a candidate, or the JSON text of a list of candidates (strings, or objects as in LazRetrieval's
    `translations`); None where it says nothing."""
    if not value:
        return None
    if not value.lstrip().startswith("["):
        return [{"text": value, **dict.fromkeys(AXES)}]
    try:
        found = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"translations: {value[:80]!r} is not JSON ({error.msg}); allowed is the JSON text of a list of candidates") from None
    return [dict.fromkeys(AXES) | ({"text": each} if isinstance(each, str) else each) for each in found]


def best_of(given: Sequence[Candidate]) -> Candidate:
    """The candidate with the critic's best mean score, the first of equals, as LiraProcessor.question chooses; unscored counts as the middle."""
    _, scores = candidates(list(given))
    means = [MIDDLE_SCORE if triple is None else sum(triple) / 3 for triple in scores]
    return given[means.index(max(means))]


def row_of(text: str, language: str | None, given: Sequence[Candidate]) -> Row:
    """A text and its candidates as LiraProcessor.check makes a row of them: an English text without candidates is its own."""
    texts, scores = candidates([dict.fromkeys(AXES) | each for each in given])
    row = Row(check_text("text", text), texts, check_scores("scores", scores, len(texts)), language or "und")
    if row.language == "en" and not texts:
        row.text, row.translations, row.scores = None, [text], [None]
    return row


def write_texts(path: str | Path, texts: Iterable[tuple[str, str]]) -> int:
    """The distinct (language, text) as JSONL, an INPUT of `lira-hf translate`, and how many there are; English ones need no translation."""
    wanted = [each for each in dict.fromkeys(texts) if each[0] != "en" and each[1].strip()]
    with replacing(Path(path).absolute(), folder=False) as part:
        part.write_text("".join(json.dumps({"text": text, "language": language}, ensure_ascii=False) + "\n" for language, text in wanted), "utf-8")
    return len(wanted)
