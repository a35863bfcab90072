"""What a model makes of the rows of a data set: the vectors that the figures of a certificate are computed from.

Letters in shape comments: N rows, E edits, S bins, d shared width, D = d_g + d_h, M anchors."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from lira_hf.certificate.spectral import Domain, observed
from lira_hf.collation import RetrievalData, reference
from lira_hf.features.keys import ORIGIN, cache_key, weights_digest
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.modeling.processing_lira import Row

TRIES = 20  # draws of an edit, until one is near enough


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
    moved is how far the head's inputs of a query are from those of its perfect translation: of the base [N], and of the furthest token [N]; domain
    is of the first two, for which the spectral limit is stated."""

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
    domain: Domain

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
    model: LiraForRetrieval, processor: LiraProcessor, part: RetrievalData, *, edits: int, delta: int, seed: int,
    batch_size: int = 256, show_progress_bar: bool = True,
) -> Measured:  # fmt: skip
    """One language's queries, their perfect translations, `edits` edits of `delta` tokens of each, and the products."""
    queries = [query for query in part.queries if query.row.text is not None and query.row.translations and query.english]
    if not queries:
        raise ValueError(f"data: no query of {part.language!r} has a text, a translation and the perfect one (english)")
    rows, products = [query.row for query in queries], [product.row for product in part.products.values()]
    domain, total = Domain(), len(rows) * (2 + edits) + len(products)
    with tqdm(total=total, desc=part.language, unit=" rows", disable=not show_progress_bar) as bar:
        run = lambda given, record=domain: passed(model, processor, given, record, batch_size, bar)  # noqa: E731
        here, perfect = run(rows), run([reference(query) for query in queries])
        # An edit must not change which candidate is read: the head is asked how far it moves, not the actor which it takes.
        chosen = [replace(row, translations=[row.translations[k]], scores=[row.scores[k]]) for row, k in zip(rows, here.choice.tolist(), strict=True)]
        moved, there = edited(chosen, processor, edits, delta, random.Random(f"{seed}/{part.language}"))
        again = run(moved, Domain()) if moved else None
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
        inputs, outputs, goods, domain,
    )  # fmt: skip


# ---- going on after a kill ------------------------------------------------------------------------------------------------


def fingerprint(model: LiraForRetrieval, processor: LiraProcessor, **options) -> str:
    """What the vectors of a text depend on, beside it."""
    parts = [cache_key(model.lira, processor, path, "float32") for path in ("multilingual", "english")]
    trained = [weights_digest(part) for part in (model.lira.arca, model.lira.lasr)]
    own = {name: value for name, value in model.config.to_dict().items() if name not in ORIGIN and not name.endswith("_config")}
    return hashlib.sha256(json.dumps([parts, trained, own, processor.prompts, options], sort_keys=True, default=str).encode()).hexdigest()


def kept(folder: Path, key: str, part: RetrievalData, run) -> Measured:
    """What run() measured of a part, from folder if it was measured there already with the same key."""
    file, key = folder / f"{part.language}.pt", hashlib.sha256(f"{key} {part.queries} {part.products}".encode()).hexdigest()
    if file.exists() and (found := torch.load(file, weights_only=True))["key"] == key:
        return Measured(**found["measured"] | {"domain": Domain(found["measured"]["domain"])})
    measured = run()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"key": key, "measured": vars(measured) | {"domain": dict(measured.domain)}}, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)
    return measured


# ---- edits --------------------------------------------------------------------------------------------------------------


def edited(rows: list[Row], processor: LiraProcessor, edits: int, delta: int, draw: random.Random) -> tuple[list[Row], Tensor]:
    """Up to `edits` edits of each row, by turns of its text and of its translation; and a mask [N, E] of those that were found.

    An edit substitutes, deletes or inserts the pieces of `delta` tokens in the text itself, new pieces being drawn from those of all rows. It
    counts only if the new text, read anew, is 1 to delta token edits away: cutting a piece can change how its neighbours are read."""
    tokenizers = processor.tokenizer, processor.english_tokenizer
    sides = [row.text for row in rows], [row.translations[0] for row in rows]
    read = [[pieces(tokenizer, text) for text in texts] for tokenizer, texts in zip(tokenizers, sides, strict=True)]
    known = [
        sorted({piece for one, spans in zip(texts, side, strict=True) for piece in cut(one, spans)}) for texts, side in zip(sides, read, strict=True)
    ]
    found, there = [], torch.zeros(len(rows), edits, dtype=torch.bool)
    for i, row in enumerate(rows):
        for e in range(edits):
            side = e % 2
            text = edit(tokenizers[side], sides[side][i], read[side][i], known[side], delta, draw)
            if text is not None:
                there[i, e] = True
                found.append(replace(row, text=text) if side == 0 else replace(row, translations=[text]))
    return found, there


def pieces(tokenizer, text: str) -> list[tuple[int, int]]:
    """Where the tokens of a text stand in it; its words, for a tokenizer that does not say."""
    if not tokenizer.is_fast:
        return [match.span() for match in re.finditer(r"\S+", text)]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [span for span in spans if span[0] < span[1]]


def cut(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def edit(tokenizer, text: str, spans: list[tuple[int, int]], known: list[str], delta: int, draw: random.Random) -> str | None:
    """The text after edits of `delta` pieces, at most delta token edits from it; None where none was found."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for _ in range(TRIES):
        new = text
        for start, end in sorted(draw.sample(spans, min(delta, len(spans))), reverse=True):  # from the end: earlier places stay
            kind = draw.choice(("substitute", "delete", "insert"))
            piece = "" if kind == "delete" else draw.choice(known)
            new = new[:start] + piece + new[start if kind == "insert" else end :]
        if new.strip() and 1 <= token_edits(ids, tokenizer(new, add_special_tokens=False)["input_ids"]) <= delta:
            return new
    return None


def token_edits(one: list[int], other: list[int]) -> int:
    """Levenshtein's distance of two lists of tokens."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


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
