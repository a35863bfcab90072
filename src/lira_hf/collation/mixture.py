"""What an epoch holds: the items of several languages, in a proportion that a temperature sets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset


class Mixture(Dataset):
    """Items of several languages as one data set, drawn anew for each epoch.

    Args:
        parts: the items of each language; dataclasses with a field `draw` get the number of the epoch in it.
        temperature: above 0; a language's share is its count to the power of 1 / temperature. At 1 an epoch holds every item once; higher
            ones raise the share of small languages, whose items then come several times, and lower that of large ones.
        seed: an epoch depends on it and on its own number alone, whatever process asks."""

    def __init__(self, parts: Sequence[Sequence[Any]], temperature: float = 1.0, seed: int = 0):
        if not temperature > 0:
            raise ValueError(f"temperature: {temperature!r} is not allowed; a number above 0 is")
        self.parts, self.seed = [part for part in parts if len(part)], seed
        self.counts = shares([len(part) for part in self.parts], temperature)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.places = epoch, []
        for number, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            whole, rest = divmod(count, len(part))
            drawn = sorted(random.Random(f"{self.seed}/{epoch}/{number}").sample(range(len(part)), rest))
            self.places += [(number, index) for index in [*range(len(part))] * whole + drawn]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> Any:
        number, index = self.places[place]
        item = self.parts[number][index]
        return replace(item, draw=self.epoch) if hasattr(item, "draw") else item


def shares(counts: list[int], temperature: float) -> list[int]:
    """How many of sum(counts) draws each language gets: by count^(1 / temperature), rounded so that nothing is lost or added."""
    weights = [count ** (1 / temperature) for count in counts]
    exact = [sum(counts) * weight / sum(weights) for weight in weights]
    found = [int(share) for share in exact]
    for index in sorted(range(len(counts)), key=lambda i: found[i] - exact[i])[: sum(counts) - sum(found)]:
        found[index] += 1
    return found
