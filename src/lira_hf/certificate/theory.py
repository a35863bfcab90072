"""The figures of METHOD "Theory" as functions of vectors: tensors in, figures out; nothing here knows a model or a data set.

With u = g(x), v = h(y) and v* = h(y*): z = [u; v], z* = [v*; v*]. Letters in shape comments: N rows, M anchors, R resamples, E edits,
C products, d width.

What the theory rests on. h(y) is the mean of anchors under p(s|y), so h(y) - h(y*) is the sum of (p - p*)(s) times an anchor s; with
anchors of norm C at most its norm is at most C |p - p*|_1, by Pinsker C sqrt(2 KL), and never over 2 C. That is the translation's term c. Then
    reference (y* is known):   |z - z*|^2 = |u - v*|^2 + |v - v*|^2 <= e1^2 + c^2, e1 = |u - v*|; METHOD's sum e1 + c is above that;
    blind (y* is not known):   e1 = |u - v|, so |u - v*| <= e1 + c, and |z - z*| <= sqrt((e1 + c)^2 + c^2). METHOD's sum leaves out that
                               y is not y*, and can be below the deviation; so it is reported beside, not used.
Scores of unit products d: |e.d - e*.d| <= |e - e*|, so an order cannot change while every margin is over twice the deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

LARGEST = {"deviation": 2 * math.sqrt(2), "embedding": 2.0}  # of two unit vectors on each side, and of unit embeddings
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}
ROUNDING = 1e-5  # what single precision adds to distances of unit vectors


@dataclass(frozen=True)
class Term:
    """A term of a bound: a value for each row [N], or one for all; whether it is estimated, or else exact or an upper limit."""

    value: Tensor | float
    estimated: bool


@dataclass(frozen=True)
class Bound:
    """value [N] limits a deviation; word is "certified" where no term is estimated, else "empirical"."""

    value: Tensor
    word: str


def word(*terms: Term) -> str:
    """The one place that decides between the two words of METHOD."""
    return "empirical" if any(term.estimated for term in terms) else "certified"


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean, [N, d] and [N, d] -> [N]."""
    return (one.double() - other.double()).norm(dim=-1)


def deviation(source: Tensor, chosen: Tensor, perfect: Tensor) -> Tensor:
    """|z - z*| [N] from u, v and v*, each [N, d]."""
    return torch.hypot(distance(source, perfect), distance(chosen, perfect))


# ---- the translation's term ---------------------------------------------------------------------------------------------


def anchor_logits(vectors: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """cos(vector, anchor) / temperature: [N, d] and [M, d] -> [N, M]; their softmax is p(s|vector)."""
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature!r} is not allowed; a number above 0 is")
    return F.normalize(vectors.double(), dim=-1) @ F.normalize(bank.double(), dim=-1).T / temperature


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(others)) in nats, [N, M] -> [N]."""
    log_p, log_q = logits.log_softmax(-1), others.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)  # below 0 by rounding alone


def resampled_divergences(logits: Tensor, others: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """The divergences [R, N] over banks drawn with replacement from the given one: how far they hang on which anchors were taken."""
    draws = torch.randint(logits.shape[1], (resamples, logits.shape[1]), generator=generator)
    return torch.stack([divergence(logits[:, draw], others[:, draw]) for draw in draws])


def bootstrap_interval(values: Tensor, resampled: Tensor, generator: torch.Generator, level: float = 0.95) -> list[float]:
    """Basic bootstrap interval of the mean of values [N], over rows and anchors drawn anew together; resampled [R, N].

    Basic and not percentile, because drawing a bank with replacement leaves it fewer anchors, and fewer anchors see less of a divergence."""
    rows = torch.randint(resampled.shape[1], resampled.shape, generator=generator)
    found, mean = resampled.gather(1, rows).mean(1), values.mean()
    return [max(0.0, (2 * mean - found.quantile(each)).item()) for each in ((1 + level) / 2, (1 - level) / 2)]


def largest_norm(bank: Tensor) -> float:
    """C: the largest norm among the anchors' feature vectors [M, d]."""
    return bank.double().norm(dim=-1).max().item()


def translation_term(epsilon2: Tensor | float, c: float, sharp: bool = False) -> Tensor:
    """C sqrt(2 e2), which limits |h(y) - h(y*)|; sharp: or Bretagnolle and Huber's 2 C sqrt(1 - exp(-e2)), where that is less."""
    epsilon2 = torch.as_tensor(epsilon2, dtype=torch.float64)
    pinsker = (2 * epsilon2).sqrt()
    return c * (torch.minimum(pinsker, 2 * (-torch.expm1(-epsilon2)).sqrt()) if sharp else pinsker)


def plain_bound(epsilon1: Term, epsilon2: Term, c: Term) -> Bound:
    """METHOD's e1 + C sqrt(2 e2): limits |z - z*| where both epsilons are taken against the perfect translation."""
    return Bound(torch.as_tensor(epsilon1.value, dtype=torch.float64) + translation_term(epsilon2.value, c.value), word(epsilon1, epsilon2, c))


def blind_bound(epsilon1: Term, epsilon2: Term, c: Term) -> Bound:
    """Limit of |z - z*| where both epsilons are taken against the translation that there is: sqrt((e1 + c)^2 + c^2) (ours, see above)."""
    first, second = torch.as_tensor(epsilon1.value, dtype=torch.float64), translation_term(epsilon2.value, c.value, sharp=True)
    return Bound(torch.hypot(first + second, second), word(epsilon1, epsilon2, c))


# ---- the head -----------------------------------------------------------------------------------------------------------


def local_lipschitz(outputs: Tensor, moved: Tensor, inputs: Tensor, moved_inputs: Tensor) -> Tensor:
    """|f(z) - f(z')| / |z - z'| [N, E] from outputs [N, d], inputs [N, d] and those of E edits [N, E, d]; NaN where the edit moved nothing
    (or is NaN itself: no edit was found)."""
    gap = distance(inputs[:, None], moved_inputs)
    return distance(outputs[:, None], moved) / torch.where(gap > ROUNDING, gap, torch.nan)


def quantile(values: Tensor, q: float) -> float:
    """Of what is no NaN; NaN where nothing is left."""
    values = values[~values.isnan()]
    return values.double().quantile(q).item() if len(values) else math.nan


def quantiles(values: Tensor) -> dict[str, float]:
    """p50, p95 and the largest."""
    return {name: quantile(values.flatten(), q) for name, q in QUANTILES.items()}


# ---- the bound against what is observed -----------------------------------------------------------------------------------


def coverage(observed: Tensor, bound: Tensor | float) -> float:
    """Share of rows, 0 to 1, whose deviation the bound covers."""
    return (observed <= torch.as_tensor(bound) + ROUNDING).double().mean().item()


def looseness(observed: Tensor, bound: Tensor) -> dict[str, float]:
    """Quantiles of bound / observed, 1 being tight; rows that did not deviate have none."""
    return quantiles(bound / torch.where(observed > ROUNDING, observed, torch.nan))


def held_out_coverage(epsilon1: Tensor, epsilon2: Tensor, c: float, observed: Tensor, bound, q: float, generator: torch.Generator) -> float:
    """Coverage of the bound (plain_bound or blind_bound) from the quantiles q of both epsilons over one half of the rows, on the other half;
    both ways. NaN for one row."""
    order = torch.randperm(len(observed), generator=generator)
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    if not len(halves[0]):
        return math.nan
    inside = 0.0
    for known, asked in (halves, halves[::-1]):
        terms = Term(quantile(epsilon1[known], q), True), Term(quantile(epsilon2[known], q), True), Term(c, False)
        inside += coverage(observed[asked], bound(*terms).value) * len(asked)
    return inside / len(order)


def rank_correlation(bound: Tensor, observed: Tensor) -> float | None:
    """Spearman's, -1 to 1; None where either is constant or there are fewer than three rows."""
    if len(bound) < 3 or bound.min() == bound.max() or observed.min() == observed.max():
        return None
    return float(spearmanr(bound.numpy(), observed.numpy()).statistic)


# ---- rank stability -------------------------------------------------------------------------------------------------------


def stability_radius(queries: Tensor, products: Tensor, k: int) -> Tensor:
    """How far a query's embedding may move, whichever way, before its top-k order can change: queries [N, d], products [C, d] -> [N].

    Half of the smallest margin (METHOD): between neighbours among the k best, and between the k-th and all that follow. Zero for ties."""
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k: {k!r} is not allowed; a whole number of at least 1 is")
    best = (queries.double() @ products.double().T).topk(min(k + 1, len(products)), dim=-1).values  # [N, k + 1]
    margins = best[:, :-1] - best[:, 1:]
    return margins.amin(-1) / 2 if margins.shape[1] else torch.full((len(queries),), torch.inf, dtype=torch.float64)


def score_deviation(queries: Tensor, others: Tensor, products: Tensor) -> Tensor:
    """The largest change of any product's score [N]; it is at most the embedding's deviation, products being unit vectors."""
    return ((queries - others).double() @ products.double().T).abs().amax(-1)


def same_order(queries: Tensor, others: Tensor, products: Tensor, k: int) -> Tensor:
    """Whether both embeddings of a query give the same k best products in the same order, [N] bool."""
    ranked = [(each.double() @ products.double().T).topk(min(k, len(products)), dim=-1).indices for each in (queries, others)]
    return (ranked[0] == ranked[1]).all(-1)
