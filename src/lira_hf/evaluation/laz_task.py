"""LazRetrieval as a task of mteb, so that every model mteb runs can be measured on it beside the public benchmarks.

import mteb
from lira_hf.evaluation.laz_task import LazRetrieval

results = mteb.evaluate(model, tasks=[LazRetrieval("laz-data")])
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from lira_hf.languages import LANGUAGES, check_languages

NAME = "LazRetrievalSynthetic"  # not the LiRA authors' LazRetrieval, which is not public
SPLIT = "test"
TABLES = ("corpus", "queries", "qrels")  # of each language: the configuration th-corpus, and so on
SEEN = ["id", "title", "text"]  # the columns a model gets; the rest would tell it the answer, and lists cannot be batched
DESCRIPTION = (
    "Product search in seven languages, with graded relevance (3 exact, 2 one attribute wrong, 1 complement, 0 irrelevant) set by rule. "
    "Synthetic: a program composed queries and products from hand-written words, with the noise of real typing (dropped marks, typos, "
    "words in English, romanised Thai, Urdu and Bengali). It is not the LazRetrieval of the LiRA paper, which is not public."
)


class LazRetrieval(AbsTaskRetrieval):
    """The test split of a LazRetrieval folder or Hub data set repository, one mteb subset for each language.

    `source` is a folder of `lira-hf data build` or a repository id, `languages` codes (None: all that a folder holds,
    all seven of a repository), `revision` a commit, branch or tag of the repository. The main score is nDCG@10, 0 to
    1 as mteb gives it. A folder's content is part of the task's name, as mteb's result cache goes by the name and
    would answer for another folder; for a repository that changes, ask with overwrite_strategy="always". Raises
    ValueError for unknown languages, and for a folder that lacks one of them.
    """

    def __init__(self, source: str | Path, languages: Sequence[str] | None = None, revision: str | None = None, **kwargs: Any):
        folder = Path(source)
        codes = check_languages(None if languages is None else list(languages))
        if folder.is_dir():
            if revision is not None:
                raise ValueError(f"revision: {revision!r} is for a repository, and {str(folder)!r} is a folder; leave it out")
            codes = codes if languages is not None else [code for code in codes if (folder / f"{code}-corpus").is_dir()]
            _check_folder(folder, codes)
            self._dataset = {"path": str(folder.resolve()), "revision": _fingerprint(folder)}
            self._name = f"{NAME}-{self._dataset['revision']}"
        else:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source), re.ASCII):
                raise ValueError(f"source: {str(source)!r} is neither a folder nor a repository id such as org/laz-retrieval")
            self._dataset, self._name = {"path": str(source), "revision": revision or "main"}, NAME
        self._codes = codes
        super().__init__(**kwargs)

    @cached_property  # of each task its own; mteb may replace it, and deletes it to have the first one back
    def metadata(self) -> TaskMetadata:
        """What mteb asks about a task."""
        return TaskMetadata(
            name=self._name,
            description=DESCRIPTION,
            reference="https://arxiv.org/abs/2510.14466",  # whose method the set is made for
            dataset=self._dataset,
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=[SPLIT],
            eval_langs={code: _written_in(code) for code in self._codes},
            main_score="ndcg_at_10",
            date=("2026-01-01", "2026-12-31"),
            domains=["E-commerce", "Written", "Constructed"],
            task_subtypes=["Query-Product Relevance"],
            license="apache-2.0",
            annotations_creators="algorithmic",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",  # mteb asks for an empty one where no article describes the data
        )

    def dataset_transform(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Leaves products and queries the columns in `SEEN`; called by mteb after loading."""
        for splits in self.dataset.values():
            for part in splits.values():
                for kind in ("corpus", "queries"):
                    part[kind] = part[kind].select_columns([name for name in SEEN if name in part[kind].column_names])


def _written_in(code: str) -> list[str]:
    """mteb's codes of a language: its own script, and Latin where part of the queries is romanised (th, ur, bn)."""
    language = LANGUAGES[code]
    return [language.mteb] if language.script == "Latn" else [language.mteb, f"{language.mteb.split('-')[0]}-Latn"]


def _check_folder(folder: Path, codes: Sequence[str]) -> None:
    """Raises ValueError where one of the tables is missing, before mteb fails in its own words."""
    if not codes:
        raise ValueError(f"source: {str(folder)!r} holds no language; give a folder of `lira-hf data build`")
    for config in (f"{code}-{table}" for code in codes for table in TABLES):
        if not any((folder / config).glob(f"{SPLIT}-*.parquet")):
            raise ValueError(f"source: {str(folder / config)!r} holds no {SPLIT}-*.parquet; give a folder of `lira-hf data build`")


def _fingerprint(folder: Path) -> str:
    """Eight hex digits of what the build wrote. Raises ValueError where its record is missing."""
    try:
        return hashlib.sha256((folder / "build.json").read_bytes()).hexdigest()[:8]
    except OSError:
        raise ValueError(f"source: {str(folder)!r} has no build.json; give a folder of `lira-hf data build`") from None
