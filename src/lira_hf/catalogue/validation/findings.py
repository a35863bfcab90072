"""The kinds of damage, what was found of them, and the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lira_hf.catalogue.relevance import JUDGED

KINDS = {  # in the order of the report: what breaks reading first
    "missing-config": "a table folder of a language is not there",
    "missing-split": "a table has no shard of a split",
    "missing-shard": "the shards of a split do not count from 0 to n-1 of n",
    "stray-file": "a Parquet file that no split reads, or too many of them",
    "unreadable-shard": "a shard is no Parquet, is cut off, or holds text that is not UTF-8",
    "missing-column": "a column is not there",
    "extra-column": "a column that the layout does not know",
    "column-type": "a column has another type than the layout",
    "empty-split": "a table of a split has no rows",
    "empty-id": "a row has no id",
    "duplicate-query": "a query id stands twice in a language",
    "duplicate-product": "a product id stands twice in a language",
    "dangling-product": "a judged product is not in the corpus of the split",
    "dangling-query": "a judged query is not among the queries of the split",
    "missing-query": "a query of the rows is not in the queries table",
    "extra-query": "a query of the queries table is not in the rows",
    "query-text-differs": "the rows and the queries table word a query differently",
    "unpaired-judgements": "product_ids and relevances differ in length",
    "judgements-differ": "the rows and the qrels table judge a query differently",
    "judged-twice": "a query judges the same product twice",
    "grade-range": "a grade is not 0, 1, 2 or 3",
    "no-relevant": "a query has no product with a grade above 0",
    "few-judgements": f"a built query has fewer than {JUDGED} judgements",
    "wrong-grade": "a grade is not what the intent and the product's attributes give",
    "empty-query": "a query has no text",
    "empty-title": "a product has no title",
    "empty-english": "a built row has no English text",
    "wrong-language": "the language column names another language",
    "wrong-script": "the script column does not fit the query, or a built query is in neither the language's script nor Latin",
    "bad-character": "a replacement or control character, a byte order mark or a noncharacter",
    "untidy-space": "space around a text or doubled, a tab, a line break or an unusual space",
    "no-slice": "a query has no slice",
    "bad-slice": "a slice name is no identifier, or unknown to the build record",
    "bad-intent": "an intent is not JSON of a kind, a type and wanted values",
    "bad-attributes": "attributes are not a JSON object",
    "empty-category": "a built product has no category_path",
    "empty-family": "a product has no family_id",
    "empty-candidate": "a candidate translation has no text",
    "repeated-candidate": "two candidate translations of a row have the same text",
    "score-range": "a critic's score is not from 1 to 10",
    "leaked-family": "two splits share a product family",
    "leaked-intent": "two splits share a query intent",
    "leaked-query": "two splits share a query without an intent",
    "missing-readme": "there is no README.md",
    "readme-configs": "README.md has no readable list of configs",
    "readme-unknown-config": "README.md names a config that is not there",
    "readme-missing-config": "README.md lacks a config that is there",
    "readme-files": "the paths of README.md match no shard, or not all of a split",
    "readme-info": "dataset_info of README.md counts differently",
    "card-counts": "a table of README.md counts differently",
    "missing-record": "a built set has no build.json",
    "bad-record": "build.json is not readable",
    "record-counts": "build.json counts differently",
    "checksum": "a file is not what build.json says it was",
    "missing-file": "build.json lists a file that is not there",
    "unlisted-file": "build.json does not list a file that is there",
}


@dataclass(frozen=True)
class Damage:
    """One kind of damage in one place. `kind` is a key of `KINDS`; `where` a file, a config or config/split."""

    kind: str
    where: str
    detail: str


class Findings:
    """Counts what is found by kind and place, and keeps the first example."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, kind: str, where: str, example: str, count: int = 1) -> None:
        """Damage of `kind`, `count` times."""
        before, first = self.counted.get((kind, where), (0, example))
        self.counted[kind, where] = (before + count, first)

    def damages(self) -> list[Damage]:
        """Everything found, in the order of `KINDS`."""
        order = list(KINDS)
        ranked = sorted(self.counted.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        return [Damage(kind, where, example if count == 1 else f"{count:,} times, such as {example}") for (kind, where), (count, example) in ranked]


def render_report(damages: Sequence[Damage]) -> list[str]:
    """The lines of the report: a heading for each kind, a line for each place, and a last line that sums up."""
    lines = []
    for kind, group in itertools.groupby(damages, key=lambda damage: damage.kind):
        lines.append(f"{kind}: {KINDS[kind]}")
        lines += [f"  {damage.where}: {damage.detail}" for damage in group]
    kinds = len({damage.kind for damage in damages})
    return [*lines, f"{len(damages)} damages of {kinds} kinds" if damages else "no damage found"]
