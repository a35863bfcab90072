"""From the vectors of measured rows to the figures of a certificate, for any group of rows.

A group (overall, a language, a query slice) is a dictionary; FIGURES says of each of its entries what kind of number it is and how it came
about: "observed" is what was measured on these rows, "estimated" what stands for something else, "certified" and "empirical" are METHOD's."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from lira_hf.certificate import theory
from lira_hf.certificate.theory import ROUNDING, Term

FIGURES = {
    "rows": ("observed", "queries measured"),
    "epsilon1": ("observed", "quantiles over rows of ‖E_lr - E_en,a‖, both normalised: x against the chosen translation"),
    "epsilon1_reference": ("observed", "the same against the perfect translation: ‖g(x) - h(y*)‖"),
    "epsilon2": (
        "estimated",
        "KL in nats between the softmax of cos(E_lr, A) / temperature and that of cos(E_en,a, A) / temperature over a bank A of "
        "English anchor sentences; `interval` is the 95 % basic bootstrap of the mean, rows and anchors drawn anew together",
    ),
    "epsilon2_reference": ("estimated", "the same between the perfect and the chosen translation"),
    "anchor_residual": (
        "observed",
        "‖E_en,a - mean of the anchors under its softmax‖: what the anchors cannot represent, and the theory takes to be 0",
    ),
    "unrelated": ("observed", "distance of E_lr to the perfect translation of another row, drawn by seed: what epsilon1 is to be compared with"),
    "nearer_than_unrelated": ("observed", "share of rows nearer to their own perfect translation than to that other one"),
    "lipschitz": (
        "estimated",
        "‖f(z) - f(z')‖ / ‖z - z'‖ over real edits of the query's or the translation's tokens, re-encoded: quantile q, and the largest",
    ),
    "deviation": ("observed", "‖z - z*‖ with z* = [h(y*); h(y*)]"),
    "embedding_deviation": ("observed", "distance between the embeddings from (x, y_a) and from (y*, y*)"),
    "score_deviation": ("observed", "largest change of the score of any product, for the same two embeddings"),
    "signal": (
        "observed",
        "Spearman's correlation over rows of bound_blind and deviation: whether the bound, which needs no perfect translation, orders rows by it",
    ),
    "bound_blind": (
        "empirical",
        "sqrt((e1 + c)^2 + c^2), c = C min(sqrt(2 e2), 2 sqrt(1 - exp(-e2))), of each row's own epsilons; needs no perfect "
        "translation. `held_out_coverage`: of the bound from quantile q of the epsilons over one half of the rows, on the other half",
    ),
    "bound_reference": ("empirical", "e1 + C sqrt(2 e2), both epsilons against the perfect translation"),
    "bound_plain": ("empirical", "METHOD's e1 + C sqrt(2 e2) of the blind epsilons; not a limit even where the assumptions hold"),
    "embedding_bound": ("empirical", "L at quantile q of all rows times bound_blind"),
    "embedding_limit": (
        "certified",
        "constants of the spectral norms times how far the head's inputs of (x, y_a) and (y*, y*) were observed to be apart; for these rows only",
    ),
    "stability": (
        "observed",
        "share of queries whose order of the k best products cannot change, every margin being over twice the deviation: by "
        "embedding_bound (empirical), by embedding_limit (certified), by the observed embedding_deviation or score_deviation "
        "(observed); `unchanged` is the share that has the same order with the perfect translation",
    ),
}


@dataclass
class Rows:
    """Figures of each row [N], from vectors alone; resampled divergences [R, N], slopes [N, E]. Radii are by k."""

    epsilon1: Tensor
    epsilon1_reference: Tensor
    epsilon2: Tensor
    epsilon2_reference: Tensor
    resampled: Tensor
    resampled_reference: Tensor
    residual: Tensor
    unrelated: Tensor
    slopes: Tensor
    translation_gap: Tensor
    deviation: Tensor
    embedding_deviation: Tensor
    score_deviation: Tensor
    limit: Tensor
    radii: dict[int, Tensor]
    unchanged: dict[int, Tensor]


def anchored_rows(
    source: Tensor, target: Tensor, perfect: Tensor, bank: Tensor, temperature: float, resamples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """What stage 1's vectors say: u, v and v* [N, d] and the bank [M, d], as fields of Rows."""
    texts, chosen, true = (theory.anchor_logits(vectors, bank, temperature) for vectors in (source, target, perfect))
    other = (torch.arange(len(source)) + torch.randint(1, max(len(source), 2), (len(source),), generator=generator)) % len(source)
    state = generator.get_state()  # the same banks for both readings
    resampled = theory.resampled_divergences(texts, chosen, resamples, generator)
    return {
        "epsilon1": theory.distance(source, target), "epsilon1_reference": theory.distance(source, perfect),
        "epsilon2": theory.divergence(texts, chosen), "epsilon2_reference": theory.divergence(true, chosen), "resampled": resampled,
        "resampled_reference": theory.resampled_divergences(true, chosen, resamples, generator.set_state(state)),
        "residual": theory.distance(target, chosen.softmax(-1) @ bank.double()), "unrelated": theory.distance(source, perfect[other]),
        "translation_gap": theory.distance(target, perfect), "deviation": theory.deviation(source, target, perfect),
    }  # fmt: skip


def bounds(rows: Rows, c: float) -> dict[str, theory.Bound]:
    """The bounds on ‖z - z*‖ of each row, from its own terms; the anchors make the epsilons of translation estimates, whatever they are."""
    blind = Term(rows.epsilon1, False), Term(rows.epsilon2, True), Term(c, False)
    reference = Term(rows.epsilon1_reference, False), Term(rows.epsilon2_reference, True), Term(c, False)
    return {"bound_blind": theory.blind_bound(*blind), "bound_reference": theory.plain_bound(*reference), "bound_plain": theory.plain_bound(*blind)}


def group(rows: Rows, index: Tensor, c: float, slope: float, q: float, generator: torch.Generator) -> dict:
    """The figures of the rows in index; c is C, slope is L at quantile q of all rows."""
    take = lambda name: getattr(rows, name)[index]  # noqa: E731
    found: dict = {"rows": len(index)}
    for name in ("epsilon1", "epsilon1_reference", "epsilon2", "epsilon2_reference"):
        found[name] = theory.quantiles(take(name))
    for name, resampled in (("epsilon2", rows.resampled), ("epsilon2_reference", rows.resampled_reference)):
        found[name] |= {"mean": take(name).mean().item(), "interval": theory.bootstrap_interval(take(name), resampled[:, index], generator)}
    found["anchor_residual"] = theory.quantiles(take("residual"))
    found["unrelated"] = {"p5": theory.quantile(take("unrelated"), 0.05), "p50": theory.quantile(take("unrelated"), 0.5)}
    found["nearer_than_unrelated"] = (take("epsilon1_reference") < take("unrelated")).double().mean().item()
    slopes = take("slopes")
    found["lipschitz"] = {"at_q": theory.quantile(slopes, q), "max": theory.quantile(slopes, 1.0), "edits": int((~slopes.isnan()).sum())}
    for name in ("deviation", "embedding_deviation", "score_deviation"):
        found[name] = theory.quantiles(take(name))
    limits = bounds(rows, c)
    for name, bound in limits.items():
        found[name] = against(take("deviation"), bound.value[index], theory.LARGEST["deviation"])
    found["signal"] = theory.rank_correlation(limits["bound_blind"].value[index], take("deviation"))
    held = functools.partial(theory.held_out_coverage, c=c, observed=take("deviation"), q=q, generator=generator)
    found["bound_blind"]["held_out_coverage"] = held(take("epsilon1"), take("epsilon2"), bound=theory.blind_bound)
    found["bound_reference"]["held_out_coverage"] = held(take("epsilon1_reference"), take("epsilon2_reference"), bound=theory.plain_bound)
    moves = {"embedding_bound": slope * limits["bound_blind"].value[index], "embedding_limit": take("limit")}
    for name, limit in moves.items():
        found[name] = against(take("embedding_deviation"), limit, theory.LARGEST["embedding"])
    reach = {"empirical": moves["embedding_bound"], "certified": moves["embedding_limit"], "observed": take("embedding_deviation"),
             "observed_scores": take("score_deviation")}  # fmt: skip
    found["stability"] = {
        str(k): {name: (rows.radii[k][index] > far).double().mean().item() for name, far in reach.items()}
        | {"unchanged": rows.unchanged[k][index].double().mean().item()}
        for k in rows.radii
    }
    return found


def against(observed: Tensor, bound: Tensor, largest: float) -> dict:
    """A bound beside what it limits: its quantiles, coverage, looseness, and the share of rows where it says nothing."""
    return {
        **theory.quantiles(bound), "coverage": theory.coverage(observed, bound), "looseness": theory.looseness(observed, bound),
        "vacuous": (bound >= largest).double().mean().item(),
    }  # fmt: skip


def by_temperature(source: Tensor, target: Tensor, perfect: Tensor, bank: Tensor, temperatures: list[float]) -> list[dict]:
    """The estimate of epsilon2 hangs on the temperature: a warmer one makes every bound small, and false sooner or later. For each: the means of
    both readings of epsilon2, the residual, the share of rows on which the anchors fail (see assumptions), and the blind bound."""
    c, apart, observed, found = theory.largest_norm(bank), theory.distance(target, perfect), theory.deviation(source, target, perfect), []
    for temperature in temperatures:
        texts, chosen, true = (theory.anchor_logits(vectors, bank, temperature) for vectors in (source, target, perfect))
        blind, reference = theory.divergence(texts, chosen), theory.divergence(true, chosen)
        bound = theory.blind_bound(Term(theory.distance(source, target), False), Term(blind, True), Term(c, False)).value
        found.append({
            "temperature": temperature, "epsilon2": blind.mean().item(), "epsilon2_reference": reference.mean().item(),
            "anchor_residual": theory.distance(target, chosen.softmax(-1) @ bank.double()).mean().item(),
            "anchors_fail": 1 - theory.coverage(apart, theory.translation_term(reference, c, sharp=True)),
            "bound_blind": against(observed, bound, theory.LARGEST["deviation"]),
        })  # fmt: skip
    return found


# ---- assumptions ----------------------------------------------------------------------------------------------------------


def check(name: str, statement: str, found: Tensor, allowed: Tensor | float) -> dict:
    """An assumption that can be looked at: on how many rows it fails, and by how much at worst; found and allowed [N]."""
    excess = found.double() - torch.as_tensor(allowed, dtype=torch.float64)
    broken = excess > ROUNDING
    return {
        "name": name, "statement": statement, "holds": not bool(broken.any()), "violated": int(broken.sum()), "of": len(found),
        "worst": max(0.0, excess.max().item()),
    }  # fmt: skip


def assumptions(rows: Rows, bank: Tensor, c: float, slope: float) -> list[dict]:
    """What the bounds rest on, as far as the perfect translations let it be looked at."""
    return [
        check("largest_norm", "no anchor's feature vector is longer than C", bank.double().norm(dim=-1), c),
        check(
            "anchors", "the anchors represent what sets y apart from y*: ‖h(y) - h(y*)‖ <= c of KL(y*, y)", rows.translation_gap,
            theory.translation_term(rows.epsilon2_reference, c, sharp=True),
        ),
        check(
            "text_for_perfect", "p(s|x) can stand for p(s|y*): ‖h(y) - h(y*)‖ <= c of KL(x, y)", rows.translation_gap,
            theory.translation_term(rows.epsilon2, c, sharp=True),
        ),
        check(
            "lipschitz", "L, from edits of a few tokens, holds as far as z*: ‖f(z) - f(z*)‖ <= L ‖z - z*‖", rows.embedding_deviation,
            slope * rows.deviation,
        ),
        check("spectral", "the spectral limit holds: ‖f - f*‖ is at most embedding_limit", rows.embedding_deviation, rows.limit),
    ]  # fmt: skip


def violations(found: list[dict]) -> list[str]:
    """A line for each assumption that does not hold."""
    unit = {"largest_norm": "anchors"}
    return [
        f"violated: {one['statement']}; not so for {one['violated']} of {one['of']} {unit.get(one['name'], 'rows')}, by {one['worst']:.2g} at worst"
        for one in found
        if not one["holds"]
    ]


def verdicts(figures: dict, slope: float, q: float) -> list[str]:
    """What the figures of a group mean, in words."""
    near, far = figures["epsilon1"], figures["unrelated"]
    told = "tells translations from unrelated text" if near["p95"] < far["p5"] else "does not always tell a translation from unrelated text"
    lines = [
        f"epsilon1: half of the rows are within {near['p50']:.2f} of their translation, 95 % within {near['p95']:.2f}; unrelated rows are "
        f"{far['p50']:.2f} apart, the nearest 5 % of them within {far['p5']:.2f}: it {told} "
        f"({100 * figures['nearer_than_unrelated']:.1f} % of the rows are nearer to their own)"
    ]
    for name, what, largest in (
        ("bound_blind", "the empirical bound on ‖z - z*‖", theory.LARGEST["deviation"]),
        ("embedding_bound", f"the empirical bound on the embedding, L = {slope:.2f} at q = {q:g}", theory.LARGEST["embedding"]),
        ("embedding_limit", "the certified limit on the embedding", theory.LARGEST["embedding"]),
    ):
        one = figures[name]
        share = f"{100 * one['vacuous']:.1f} % of the rows"
        said = f"vacuous: the bound exceeds the largest possible distance {largest:.3g} for {share}" if one["vacuous"] else "not vacuous for any row"
        covers = f"{one['looseness']['p50']:.3g} times what is observed, covers {100 * one['coverage']:.1f} %"
        lines.append(f"{what}: {one['p50']:.3g} at the median, {covers}; {said}")
    if figures["signal"] is not None:
        lines.append(f"as an order of rows, the empirical bound correlates with the deviation at {figures['signal']:.2f} (Spearman)")
    return lines


def temperatures(found: list[dict]) -> str:
    """How much by_temperature says the bound hangs on the temperature, in words."""
    each = (f"{one['temperature']:.2g}: {100 * one['bound_blind']['vacuous']:.1f} and {100 * one['anchors_fail']:.1f} %" for one in found)
    return f"rows with a vacuous bound, and rows on which the anchors fail, by temperature: {'; '.join(each)}"
