"""What a model makes of the rows of a data set: the vectors that the figures of a certificate are computed from.

Letters in shape comments: N rows, E edits, S bins, d shared width, D = d_g + d_h, M anchors."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from lira_hf.certificate.spectral import Domain, observed
from lira_hf.collation import RetrievalData, reference
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.modeling.processing_lira import Row

TRIES = 20  # draws of an edit, until one is read back as it was written


@dataclass
class Passed:
    """Rows that went through a model, float32 on the CPU: u = E_lr and v = E_en of the chosen candidate, both normalised [N, d]; embeddings
    [N, d_out]; base [N, D] and sequence [N, 2S + 1, d] (none for pooled heads), what LaSR reads; choice [N]."""

    source: Tensor
    target: Tensor
    embeddings: Tensor
    base: Tensor
    sequence: Tensor
    choice: Tensor


@dataclass
class Measured:
    """One language's queries: as they are, with the perfect translation on both paths, and edited ([N, E, ...], NaN where no edit was found);
    moved is how far the head's inputs of a query are from those of its perfect translation: of the base [N], and of the furthest token [N]."""

    language: str
    slices: list[list[str]]
    source: Tensor
    target: Tensor
    perfect: Tensor
    embeddings: Tensor
    perfect_embeddings: Tensor
    moved: tuple[Tensor, Tensor]
    edited_inputs: Tensor
    edited_embeddings: Tensor
    products: Tensor

    @property
    def z(self) -> Tensor:
        """[N, 2d]."""
        return torch.cat([self.source, self.target], -1)


@torch.no_grad()
def passed(model: LiraForRetrieval, processor: LiraProcessor, rows: list[Row], domain: Domain, batch_size: int, bar: tqdm) -> Passed:
    """Rows with a text and translations, through the model."""
    device, parts = model.lira.lasr.path_weight.device, []
    lengths = [row.length for row in rows]
    order = model.longest_first(lengths, batch_size)
    with model.evaluating(), observed(model.lira.lasr, domain) as seen:
        for index in order:
            output = model(**{name: tensor.to(device) for name, tensor in processor.batch([rows[i] for i in index]).items()})
            chosen = output.english_embeds[torch.arange(len(index), device=device), output.choice]
            read = seen["base"], seen.get("sequence", chosen.new_zeros(len(index), 0, chosen.shape[-1]))
            found = F.normalize(output.multilingual_embeds, dim=-1), F.normalize(chosen, dim=-1), output.embeddings, *read
            parts.append([*(tensor.float().cpu() for tensor in found), output.choice.cpu()])
            bar.update(len(index))
    place = torch.tensor(sum(order, [])).argsort()
    return Passed(*(torch.cat(part)[place] for part in zip(*parts, strict=True)))


def measure(
    model: LiraForRetrieval, processor: LiraProcessor, part: RetrievalData, domain: Domain, *, edits: int, delta: int, seed: int,
    batch_size: int = 256, show_progress_bar: bool = True,
) -> Measured:  # fmt: skip
    """One language's queries, their perfect translations, `edits` edits of `delta` tokens of each, and the products."""
    queries = [query for query in part.queries if query.row.text is not None and query.row.translations and query.english]
    if not queries:
        raise ValueError(f"data: no query of {part.language!r} has a text, a translation and the perfect one (english)")
    rows, products = [query.row for query in queries], [product.row for product in part.products.values()]
    total = len(rows) * (2 + edits) + len(products)
    with tqdm(total=total, desc=part.language, unit=" rows", disable=not show_progress_bar) as bar:
        run = lambda given, record=domain: passed(model, processor, given, record, batch_size, bar)  # noqa: E731
        here, perfect = run(rows), run([reference(query) for query in queries])
        # An edit must not change which candidate is read: the head is asked how far it moves, not the actor which it takes.
        chosen = [replace(row, translations=[row.translations[k]], scores=[row.scores[k]]) for row, k in zip(rows, here.choice.tolist(), strict=True)]
        moved, there = edited(chosen, processor, edits, delta, random.Random(f"{seed}/{part.language}"))
        again = run(moved, Domain()) if moved else None  # the domain is of the pairs that the limit is stated for
        bar.update(total - len(products) - bar.n)
        goods = run(products, Domain()).embeddings
    inputs = torch.full((len(rows), edits, 2 * here.source.shape[-1]), torch.nan)
    outputs = torch.full((len(rows), edits, here.embeddings.shape[-1]), torch.nan)
    if again is not None:
        inputs[there], outputs[there] = torch.cat([again.source, again.target], -1), again.embeddings
    tokens = (here.sequence - perfect.sequence).norm(dim=-1)  # [N, 2S + 1], or none
    far = (here.base - perfect.base).norm(dim=-1), tokens.amax(-1) if tokens.shape[1] else torch.zeros(len(rows))
    return Measured(
        part.language, [query.slices for query in queries], here.source, here.target, perfect.target, here.embeddings, perfect.embeddings, far,
        inputs, outputs, goods,
    )  # fmt: skip


# ---- edits --------------------------------------------------------------------------------------------------------------


def edited(rows: list[Row], processor: LiraProcessor, edits: int, delta: int, draw: random.Random) -> tuple[list[Row], Tensor]:
    """Up to `edits` edits of each row, by turns of its text and of its translation; and a mask [N, E] of those that were found.

    An edit substitutes, deletes or inserts `delta` tokens, new ones being drawn from those of all rows. It counts only if its text is read
    back as the very same tokens: it is then within delta edits, and something that a user could type."""
    tokenizers = processor.tokenizer, processor.english_tokenizer
    sides = [row.text for row in rows], [row.translations[0] for row in rows]
    ids = [tokenizer(texts, add_special_tokens=False)["input_ids"] for tokenizer, texts in zip(tokenizers, sides, strict=True)]
    known = [sorted({token for one in side for token in one}) for side in ids]
    found, there = [], torch.zeros(len(rows), edits, dtype=torch.bool)
    for i, row in enumerate(rows):
        for e in range(edits):
            side = e % 2
            text = edit(tokenizers[side], ids[side][i], known[side], delta, draw)
            if text is not None:
                there[i, e] = True
                found.append(replace(row, text=text) if side == 0 else replace(row, translations=[text]))
    return found, there


def edit(tokenizer, ids: list[int], known: list[int], delta: int, draw: random.Random) -> str | None:
    """A text whose tokens are `ids` after `delta` edits; None where none was found."""
    for _ in range(TRIES):
        new = list(ids)
        for _ in range(delta):
            kind = draw.choice(("substitute", "delete", "insert"))
            place = draw.randrange(len(new) + (kind == "insert")) if new or kind == "insert" else None
            if place is not None:
                new[place : place + (kind != "insert")] = [] if kind == "delete" else [draw.choice(known)]
        text = tokenizer.decode(new, skip_special_tokens=True)
        if new and new != ids and tokenizer(text, add_special_tokens=False)["input_ids"] == new:
            return text
    return None


# ---- anchors -------------------------------------------------------------------------------------------------------------


def anchor_sentences(parts: Iterable[RetrievalData], measured: Iterable[RetrievalData], size: int, seed: int) -> list[str]:
    """Distinct English sentences of queries and products of another split, none of which a measured row has: `size` of them, drawn by seed.
    Raises ValueError where there are fewer than two."""
    taken = {text for part in measured for query in part.queries for text in (query.english, *query.row.translations)}
    sentences = sorted({item.english for part in parts for item in (*part.queries, *part.products.values()) if item.english} - taken)
    if len(sentences) < 2:
        raise ValueError(f"data: {len(sentences)} English sentences are left for the anchors; two at least are needed")
    return sentences if len(sentences) <= size else random.Random(f"{seed}/anchors").sample(sentences, size)


def bank(model: LiraForRetrieval, processor: LiraProcessor, sentences: list[str], batch_size: int = 256, show_progress_bar: bool = True) -> Tensor:
    """E_en of the anchors, normalised [M, d]; read as queries are."""
    rows = [Row(sentence, [sentence], [None], "und", "query") for sentence in sentences]
    with tqdm(total=len(rows), desc="anchors", unit=" rows", disable=not show_progress_bar) as bar:
        return passed(model, processor, rows, Domain(), batch_size, bar).target

