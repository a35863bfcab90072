"""The loops behind `lira-hf translate` and `lira-hf judge`: ask for what is not stored, then write the result and a summary."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from lira_hf.translation.placing import replacing
from lira_hf.translation.records import Answer, Critic, Item, Marks, Score, Text, Translator, key_of
from lira_hf.translation.requests import DataFolder, Source, TableFile, open_input
from lira_hf.translation.store import SCORES, TRANSLATIONS, Record, Store, View, score_id
from lira_hf.translation.summary import Price, score_summary, translation_summary
from lira_hf.translation.survival import Survival

BLOCK = 4_096  # texts given to a translator at a time: enough to keep an endpoint busy, or to sort by length
AXES = Marks._fields

Input = DataFolder | TableFile
T = TypeVar("T")


def translate(
    input: str | Path,
    output: str | Path,
    translator: Translator,
    candidates: int = 4,
    languages: Sequence[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    merge: Sequence[str | Path] = (),
    retry_failed: bool = False,
    brands: Iterable[str] = (),
    price: Price | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Ask `translator` for up to `candidates` translations of each text of `input` that `output`/store does not hold; returns the summary.

    Every answer is stored as it comes: after a kill, the same call goes on. With a `shard` (i, n) only the i-th of n equal
    parts of the texts is asked for, and only the store is written; `merge` takes in the outputs of such runs. Without, `output`
    becomes the data set, or the table, with the candidates of all translators in the store, and with scores where there are some.
    Failed requests stay failed until a run with `retry_failed`. Beside them stands the summary, translate.json:
    {"rows", "texts", "asked", "sources": {name: ...}}. `brands` are names to look for, beside those of the products.
    Raises ValueError for a wrong argument or input.
    """
    if isinstance(candidates, bool) or not isinstance(candidates, int) or not 1 <= candidates <= 64:
        raise ValueError(f"candidates: {candidates!r} is not allowed; give an integer from 1 to 64")
    _check(shard, price)
    source = open_input(input, languages)
    counts = Counter(rows=source.count(), texts=0, stored=0, asked=0)
    with _opened(source, output, merge) as store:
        with tqdm(total=counts["rows"], unit=" rows", desc=translator.name, disable=not progress) as bar:
            for part in source.parts:
                asked = store.translated(translator.name, candidates, part, failed=not retry_failed)
                for block in _blocks(_texts(source, part, asked, shard, counts, bar)):
                    counts["asked"] += len(block)
                    asyncio.run(_translate(store, translator, block, candidates, bar))
        store.close()  # what follows reads shards faster than a journal
        found = translation_summary(store, Survival({*brands, *source.brands()}), translator.name, price, progress)
        return _finish(source, Path(output), store, "translate", shard, {**counts, **found})


def judge(
    input: str | Path,
    output: str | Path,
    critic: Critic,
    rounds: int = 1,
    languages: Sequence[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    merge: Sequence[str | Path] = (),
    retry_failed: bool = False,
    price: Price | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Have `critic` score the candidates in `input`, each `rounds` times, that `output`/store holds no score of; returns the summary.

    As `translate`; `output` may be the same folder, and the output folder of `translate` will do as `input`. A candidate's scores in the
    result are the means over all rounds of all critics in the store, rounded; null where there is none. The summary is judge.json:
    {"rows", "candidates", "asked", "judges": {name: ...}}; with more than one round it has "agreement" of the critic with itself.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds: {rounds!r} is not allowed; give an integer of at least 1")
    _check(shard, price)
    source = open_input(input, languages)
    counts = Counter(rows=source.count(), candidates=0, stored=0, asked=0)
    with _opened(source, output, merge) as store:
        with tqdm(total=counts["rows"] * rounds, unit=" rows", desc=critic.name, disable=not progress) as bar:
            for part in source.parts:
                judged = store.judged(critic.name, part, failed=not retry_failed)
                for block in _blocks(_items(source, part, judged, rounds, shard, counts, bar)):
                    counts["asked"] += sum(len(item.candidates) for item in block)
                    asyncio.run(_judge(store, critic, block, bar))
        if not counts["candidates"] and shard == (0, 1):
            raise ValueError(f"input: {str(input)!r} holds no candidate translations; give the output of `lira-hf translate`")
        store.close()
        return _finish(source, Path(output), store, "judge", shard, {**counts, **score_summary(store, critic.name, price, progress)})


# -- asking ------------------------------------------------------------------------------------------------------------


def _texts(source: Input, part: str | None, asked: set[str], shard: tuple[int, int], counts: Counter[str], bar: tqdm) -> Iterator[Text]:
    """The texts that are still to be asked for, each once. The bar moves for the other rows; for these, when they are answered."""
    seen: set[str] = set()
    for row in itertools.chain.from_iterable(source.batches(part)):
        key = key_of(row.language, row.text)
        is_new = bool(row.text) and key not in seen and _is_mine(key, shard)
        if is_new:
            seen.add(key)
            counts["texts"] += 1
            counts["stored"] += key in asked
        if is_new and key not in asked:
            yield Text(key, row.text, row.language)
        else:
            bar.update()


def _items(
    source: Input, part: str | None, judged: set[bytes], rounds: int, shard: tuple[int, int], counts: Counter[str], bar: tqdm
) -> Iterator[Item]:
    """Texts with those of their candidates that are still to be judged, one item for each round."""
    seen: set[bytes] = set()
    for row in itertools.chain.from_iterable(source.batches(part)):
        key = key_of(row.language, row.text)
        texts = [candidate["text"] for candidate in row.candidates if candidate["text"]] if row.text and _is_mine(key, shard) else []
        for number in range(rounds):
            new = {id_: text for text in texts if (id_ := score_id(key, text, number)) not in seen}
            seen.update(new)
            missing = tuple(text for id_, text in new.items() if id_ not in judged)
            counts["candidates"] += len(new) if number == 0 else 0
            counts["stored"] += len(new) - len(missing)
            if missing:
                yield Item(key, row.text, row.language, missing, number)
            else:
                bar.update()


async def _translate(store: Store, translator: Translator, texts: list[Text], count: int, bar: tqdm) -> None:
    unanswered = {text.key: text for text in texts}
    async for answer in _answers(translator.translate(texts, count)):
        store.append(TRANSLATIONS, [_translation(unanswered.pop(answer.key), answer, translator.name, count)])
        bar.update()
    if unanswered:
        raise RuntimeError(
            f"{translator.name} left {len(unanswered)} of {len(texts)} texts without an answer, such as {next(iter(unanswered.values()))}"
        )


async def _judge(store: Store, critic: Critic, items: list[Item], bar: tqdm) -> None:
    unanswered = {(item.key, item.round, item.candidates): item for item in items}
    async for score in _answers(critic.judge(items)):
        store.append(SCORES, _scores(unanswered.pop((score.key, score.round, score.candidates)), score, critic.name))
        bar.update()
    if unanswered:
        raise RuntimeError(f"{critic.name} left {len(unanswered)} of {len(items)} items without an answer, such as {next(iter(unanswered.values()))}")


async def _answers(answers: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same answers; after an interruption the translator gets the chance to close its connections."""
    async with aclosing(answers):  # type: ignore[type-var]  # every asynchronous generator can be closed
        async for answer in answers:
            yield answer


def _translation(text: Text, answer: Answer, source: str, count: int) -> Record:
    candidates = list(dict.fromkeys(answer.candidates))[:count]
    failure = answer.failure or (None if candidates else "empty")
    return {
        **{"key": text.key, "language": text.language, "text": text.text, "source": source, "asked": count},
        **{"candidates": [] if answer.failure else candidates, "failure": failure},
        **{"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
    }


def _scores(item: Item, score: Score, judge: str) -> list[Record]:
    records = []
    for number, (candidate, marks) in enumerate(zip(item.candidates, score.marks, strict=True)):
        tokens = (score.prompt_tokens, score.completion_tokens) if number == 0 else (0, 0)
        records.append(
            {
                **{"key": item.key, "language": item.language, "candidate": candidate, "judge": judge, "round": item.round},
                **(dict(zip(AXES, marks, strict=True)) if marks else dict.fromkeys(AXES)),
                **{"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
                "failure": None if marks else score.failure or "unscored",
            }
        )
    return records


def _blocks(things: Iterator[T]) -> Iterator[list[T]]:
    while block := list(itertools.islice(things, BLOCK)):
        yield block


def _is_mine(key: str, shard: tuple[int, int]) -> bool:
    return int(key[:16], 16) % shard[1] == shard[0]


def _check(shard: tuple[int, int], price: Price | None) -> None:
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard: {shard[0]}/{shard[1]} is not allowed; give I/N with I from 0 to N-1")
    if price is not None and not all(0 <= one < float("inf") for one in price):
        raise ValueError(f"price: {price!r} is not allowed; give two numbers of at least 0")


def _opened(source: Input, output: str | Path, merge: Sequence[str | Path]) -> Store:
    output = Path(output)
    if isinstance(source, DataFolder) and source.folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"output: {str(output)!r} is inside the input {str(source.folder)!r}; give a folder beside it")
    if output.exists() and not output.is_dir():
        raise ValueError(f"output: {str(output)!r} is a file; give a folder")
    store = Store(output / "store")
    for other in merge:
        other = Path(other)
        store.merge(other / "store" if (other / "store").is_dir() else other)
    return store


# -- what comes of it --------------------------------------------------------------------------------------------------


class _Result:
    """Composes the translations of rows out of the store, and counts what it composed. With `judging`, the candidates are the rows' own."""

    def __init__(self, store: Store, source: Input, judging: bool):
        self._store, self._source, self._judging = store, source, judging
        self._part: str | None = ""  # no part has this name
        self._views: dict[str, View] = {}
        self._judges: dict[str, set[str]] = {}  # by language, as the next
        self._candidates: dict[str, Counter[str]] = {}
        self.empty_rows = self.unscored = 0

    def __call__(self, rows: Sequence[Source]) -> list[list[dict[str, Any]]]:
        keys = [key_of(row.language, row.text) for row in rows]
        if not keys:
            return []
        self._turn_to(None if isinstance(self._source, TableFile) else rows[0].language)
        own = [[(candidate["text"], candidate["source"] or "") for candidate in row.candidates] for row in rows]
        if not self._judging:
            found = self._views[TRANSLATIONS].look_up(keys)
            own = [[(text, record["source"]) for record in records for text in record["candidates"]] for records in found]
        scores = self._views[SCORES].look_up(keys)
        return [self._row(row, candidates, records) for row, candidates, records in zip(rows, own, scores, strict=True)]

    def note(self) -> dict[str, Any]:
        """What the card of the result says of its translations."""
        return {code: {"candidates": dict(sorted(of.items())), "judges": sorted(self._judges[code])} for code, of in sorted(self._candidates.items())}

    def _turn_to(self, part: str | None) -> None:
        if part != self._part:
            self._views.clear()  # the memory of one language is enough
            self._part, self._views = part, {kind: self._store.view(kind, part, texts=False) for kind in (TRANSLATIONS, SCORES)}

    def _row(self, row: Source, candidates: list[tuple[str, str]], records: list[Record]) -> list[dict[str, Any]]:
        marks: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record["semantic"] is not None:
                marks[record["candidate"]].append(record)
        first: dict[str, str] = {}
        for text, source in candidates:
            first.setdefault(text, source)  # two translators may say the same: the first has it
        composed = []
        judges, counted = self._judges.setdefault(row.language, set()), self._candidates.setdefault(row.language, Counter())
        for text, source in first.items():
            given = marks[text]
            judges.update(record["judge"] for record in given)
            counted[source] += 1
            self.unscored += not given
            composed.append({"text": text, "source": source, **{axis: _mean([record[axis] for record in given]) for axis in AXES}})
        self.empty_rows += not composed
        return composed


def _mean(marks: list[int]) -> int | None:
    """Rounded, halves upwards; None of none."""
    return (2 * sum(marks) + len(marks)) // (2 * len(marks)) if marks else None


def _finish(source: Input, output: Path, store: Store, command: str, shard: tuple[int, int], summary: dict[str, Any]) -> dict[str, Any]:
    """Write the result, where all is there to be written, and the summary, which is returned."""
    name = command if shard == (0, 1) else f"{command}-{shard[0]:05d}-of-{shard[1]:05d}"
    if shard == (0, 1):
        result = _Result(store, source, judging=command == "judge")
        source.write(output, result)
        summary = {**summary, "rows without a candidate": result.empty_rows, "candidates without a score": result.unscored}
    with replacing(output / f"{name}.json", folder=False) as part:
        part.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary
