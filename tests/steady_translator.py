"""A translator and a critic of the tests' own: what they say depends on the text alone, and every question is written to a log.

As a program, in a process that tests may kill: python steady_translator.py translate|judge INPUT OUTPUT LOG DELAY [I/N]
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lira_hf.translation.records import Answer, Item, Marks, Score, Text

AT_ONCE = 4  # questions in flight


def number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


class Steady:
    """Answers out of order, after one to three times `delay` seconds; one text in twenty fails, unless `failing` is False."""

    def __init__(self, log: Path | None = None, delay: float = 0.0, name: str = "steady", failing: bool = True):
        self.log, self.delay, self.name, self.failing = log, delay, name, failing

    async def translate(self, texts: Sequence[Text], k: int) -> AsyncIterator[Answer]:
        async for answer in self._at_once(texts, lambda text: self._answer(text, k)):
            yield answer

    async def judge(self, items: Sequence[Item]) -> AsyncIterator[Score]:
        async for score in self._at_once(items, self._score):
            yield score

    async def _at_once(self, things, answer) -> AsyncIterator:
        waiting, running = iter(things), set()
        while True:
            while len(running) < AT_ONCE and (thing := next(waiting, None)) is not None:
                running.add(asyncio.create_task(self._ask(thing, answer)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()

    async def _ask(self, thing, answer):
        if self.log:
            with self.log.open("ab", buffering=0) as log:
                log.write(f"{os.getpid()} {thing.key} {getattr(thing, 'round', 0)}\n".encode())
        if self.delay:
            await asyncio.sleep(self.delay * (1 + number(thing.key) % 3))
        return answer(thing)

    def _answer(self, text: Text, k: int) -> Answer:
        if self.failing and number(text.key, "fails") % 20 == 0:
            return Answer(text.key, (), 9, 0, "timeout")
        return Answer(text.key, tuple(f"{self.name} {i}: {text.text}" for i in range(k)), 9, 4 * k)

    def _score(self, item: Item) -> Score:
        marks = [Marks(*(1 + number(axis, item.key, c) % 10 for axis in Marks._fields)) for c in item.candidates]
        failing = self.failing and number(item.key, "fails") % 20 == 0
        return Score(item.key, item.round, item.candidates, tuple(None if failing else m for m in marks), 30, 10, "malformed" if failing else None)


if __name__ == "__main__":
    from lira_hf.translation import running, store

    command, source, output, log, delay, *shard = sys.argv[1:]
    store.FOLD_LINES = 150  # so that journals become shards in the middle of a run, too
    shard = tuple(map(int, shard[0].split("/"))) if shard else (0, 1)
    getattr(running, command)(source, output, Steady(Path(log), float(delay)), shard=shard, progress=False)
