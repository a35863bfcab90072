"""The certificate: closed forms where the terms are known, planted violations that must be reported, and a model's own."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_backbones import SMALL, stirred
from small_data import cut

import lira_hf.certificate as package
from lira_hf import LiraForRetrieval
from lira_hf.certificate import certificate, certify, theory
from lira_hf.certificate.figures import FIGURES, Rows, anchored_rows, by_temperature
from lira_hf.certificate.measuring import edited, kept, token_edits
from lira_hf.certificate.spectral import GELU_SLOPE, Domain, SpectralBound, attention_slope, observed, spectral_bound
from lira_hf.certificate.theory import Term, blind_bound, plain_bound
from lira_hf.collation import read
from lira_hf.modeling.lasr_lira import Lasr


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*size: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*size, generator=generator(seed), dtype=torch.float64), dim=-1)


# ---- closed forms ------------------------------------------------------------------------------------------------------


def test_epsilon1_of_a_rotation_and_of_a_translation():
    angle = torch.tensor([0.0, 0.1, math.pi / 2, math.pi])
    turned = torch.stack([angle.cos(), angle.sin()], -1)
    still = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    torch.testing.assert_close(theory.distance(turned, still), 2 * (angle.double() / 2).sin(), atol=1e-7, rtol=0)
    vectors = unit(5, 3, seed=0)
    assert theory.distance(vectors, vectors + torch.tensor([0.3, 0.0, 0.4])).allclose(torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.parametrize(("anchors", "temperature"), [(2, 1.0), (7, 0.3), (50, 0.05)])
def test_epsilon2_between_two_orthonormal_anchors(anchors, temperature):
    bank = torch.eye(anchors)
    logits = theory.anchor_logits(bank[:2], 3 * bank, temperature)  # the length of an anchor is no part of a cosine
    large = math.exp(1 / temperature)
    expected = (large - 1) / (large + anchors - 1) / temperature
    assert theory.divergence(logits[:1], logits[1:]).item() == pytest.approx(expected, rel=1e-9)
    assert theory.divergence(logits, logits).abs().max() == 0


def mixtures(rows: int, anchors: int = 6, width: int = 4, norm: float = 0.7, sharp: float = 1.5):
    """English vectors that are means of anchors under known distributions: v and v* [N, d], KL(p* || p) [N], and the anchors."""
    bank = norm * unit(anchors, width, seed=1)
    logits = sharp * torch.randn(2, rows, anchors, generator=generator(2), dtype=torch.float64)
    chosen, perfect = logits.softmax(-1) @ bank
    return chosen, perfect, theory.divergence(logits[1], logits[0]), bank


@pytest.mark.parametrize("sharp", [0.01, 1.5, 20.0])
def test_every_bound_holds_and_is_certified_where_all_terms_are_known(sharp):
    chosen, perfect, divergence, bank = mixtures(2000, sharp=sharp)
    source = perfect + 0.4 * torch.rand(2000, 1, generator=generator(3), dtype=torch.float64) * unit(2000, 4, seed=4)
    apart, c = theory.deviation(source, chosen, perfect), Term(theory.largest_norm(bank), False)
    assert c.value == pytest.approx(0.7)
    known = Term(divergence, False)
    reference = plain_bound(Term(theory.distance(source, perfect), False), known, c)
    blind = blind_bound(Term(theory.distance(source, chosen), False), known, c)
    for bound in (reference, blind):
        assert bound.word == "certified" and theory.coverage(apart, bound.value) == 1
        assert theory.looseness(apart, bound.value)["p50"] >= 1
    assert plain_bound(Term(0.1, False), Term(divergence, True), c).word == "empirical"
    assert blind_bound(Term(0.1, True), known, c).word == "empirical"


def test_the_blind_bound_is_tight_where_the_plain_sum_fails():
    """Two anchors, nearly even distributions: Pinsker's inequality is an equality in the limit; x lies beyond its translation."""
    shift, c, far = 0.01, 0.7, 0.2
    bank = torch.tensor([[c, 0.0], [-c, 0.0]], dtype=torch.float64)
    perfect, chosen = (torch.tensor([[0.5 + s, 0.5 - s]], dtype=torch.float64) for s in (0.0, shift))
    divergence = (perfect * (perfect / chosen).log()).sum(-1)
    perfect, chosen = perfect @ bank, chosen @ bank
    source = chosen + torch.tensor([far, 0.0])
    apart = theory.deviation(source, chosen, perfect)
    terms = Term(theory.distance(source, chosen), False), Term(divergence, False), Term(c, False)
    assert apart.item() == pytest.approx(math.hypot(far + 2 * c * shift, 2 * c * shift))
    assert blind_bound(*terms).value.item() == pytest.approx(apart.item(), rel=1e-4) and theory.coverage(apart, blind_bound(*terms).value) == 1
    assert theory.coverage(apart, plain_bound(*terms).value) == 0


def test_the_sharp_term_is_a_limit_and_never_over_the_diameter():
    chosen, perfect, divergence, bank = mixtures(2000, sharp=4.0)
    term, plain = theory.translation_term(divergence, 0.7, sharp=True), theory.translation_term(divergence, 0.7)
    assert (theory.distance(chosen, perfect) <= term).all() and (term <= plain).all() and (term < plain).any() and (term <= 1.4).all()
    assert plain[0].item() == pytest.approx(0.7 * math.sqrt(2 * divergence[0].item()))


def test_bootstrap_interval_of_known_divergences():
    bank, n = unit(300, 8, seed=5), generator(6)
    source, target = unit(400, 8, seed=7), unit(400, 8, seed=8)
    logits = theory.anchor_logits(source, bank, 0.5), theory.anchor_logits(target, bank, 0.5)
    values = theory.divergence(*logits)
    wide = theory.bootstrap_interval(values[:20], theory.resampled_divergences(logits[0][:20], logits[1][:20], 200, n), n)
    low, high = theory.bootstrap_interval(values, theory.resampled_divergences(*logits, 200, n), n)
    assert low < values.mean() < high and high - low < wide[1] - wide[0]
    # many more anchors are what an interval over banks is to foresee
    large = unit(20_000, 8, seed=9)
    limit = theory.divergence(theory.anchor_logits(source, large, 0.5), theory.anchor_logits(target, large, 0.5)).mean()
    assert low < limit < high
    same = theory.resampled_divergences(logits[0], logits[0], 10, n)
    assert theory.bootstrap_interval(torch.zeros(400), same, n) == [0.0, 0.0]


def test_local_lipschitz_of_a_linear_map():
    matrix = torch.diag(torch.tensor([3.0, 0.5, 0.1])).double()
    z = unit(4, 3, seed=10)
    edits = z[:, None] + 0.01 * torch.stack([torch.eye(3)[0], torch.eye(3)[1], torch.zeros(3), torch.full((3,), torch.nan)])  # [4, 4, 3]
    slopes = theory.local_lipschitz(z @ matrix, edits @ matrix, z, edits)
    torch.testing.assert_close(slopes[:, :2], torch.tensor([3.0, 0.5], dtype=torch.float64).expand(4, 2))
    assert slopes[:, 2:].isnan().all()  # nothing moved; no edit was found
    assert theory.quantile(slopes, 1.0) == pytest.approx(3.0) and theory.quantile(slopes, 0.5) == pytest.approx(1.75)


def test_coverage_looseness_and_halves_by_hand():
    seen, bound = torch.tensor([0.1, 0.2, 0.0, 0.4]), torch.tensor([0.2, 0.1, 0.1, 0.4])
    assert theory.coverage(seen, bound) == 0.75
    assert theory.looseness(seen, bound) == pytest.approx({"p50": 1.0, "p95": 1.9, "max": 2.0})
    held = lambda first, apart: theory.held_out_coverage(first, torch.zeros(8), 1.0, apart, blind_bound, 1.0, generator())  # noqa: E731
    assert held(torch.ones(8), torch.ones(8)) == 1.0 and held(torch.ones(8), torch.full((8,), 1.1)) == 0.0
    one_far = torch.tensor([1.0] * 7 + [2.0])
    assert held(one_far, one_far) == 7 / 8  # the half without it cannot foresee it


# ---- rank stability ------------------------------------------------------------------------------------------------------


def test_stability_radius_by_hand_and_tight():
    products = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    query = torch.tensor([[0.1, 0.99]])
    assert theory.stability_radius(query, products, 1).item() == pytest.approx(0.1)
    for step, same in ((0.099, True), (0.101, False)):
        assert theory.same_order(query, query - torch.tensor([step, 0.0]), products, 1).item() is same
    scores = torch.tensor([[0.9, 0.8, 0.3, 0.28]])
    radii = [theory.stability_radius(torch.eye(4)[:1] * 1.0, scores.T @ torch.eye(4)[:1], k).item() for k in (1, 2, 3, 4, 9)]
    assert radii == pytest.approx([0.05, 0.05, 0.01, 0.01, 0.01])
    assert theory.stability_radius(torch.eye(2)[:1], torch.eye(2)[[0, 0]], 1).item() == 0  # a tie
    with pytest.raises(ValueError, match="k: 0"):
        theory.stability_radius(query, products, 0)


def test_no_move_within_the_radius_changes_the_order_and_scores_move_no_further():
    queries, products = unit(300, 6, seed=11), unit(40, 6, seed=12)
    radius = theory.stability_radius(queries, products, 3)
    moved = queries + 0.999 * radius[:, None] * unit(300, 6, seed=13)
    assert theory.same_order(queries, moved, products, 3).all()
    assert not theory.same_order(queries, queries + 0.5 * unit(300, 6, seed=14), products, 3).all()
    assert (theory.score_deviation(queries, moved, products) <= theory.distance(queries, moved) + 1e-12).all()


# ---- the head's spectral limit ----------------------------------------------------------------------------------------------


def heads(backbones, **fields) -> Lasr:
    torch.manual_seed(0)
    return LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL | fields).lira.lasr.eval()


def head_inputs(lasr: Lasr, rows: int, seed: int) -> list[torch.Tensor]:
    sizes, bins = (32, 24), (rows, 4, 32)
    draw = generator(seed)
    streams = [torch.randn(bins, generator=draw) for _ in range(2)]
    pooled = [F.normalize(torch.randn(rows, size, generator=draw), dim=-1) for size in sizes]
    return [*streams, *pooled, torch.ones(rows, 2, dtype=torch.bool), torch.zeros(rows, dtype=torch.long)]


def moves(lasr: Lasr, one: list[torch.Tensor], other: list[torch.Tensor], domain: Domain):
    """How far the embedding, the base and the furthest token move from one to the other."""
    found = []
    with torch.no_grad(), observed(lasr, domain) as seen:
        for given in (one, other):
            found.append((lasr(*given), seen["base"], seen.get("sequence", torch.zeros(len(given[0]), 1, 1))))
    out, base, sequence = zip(*found, strict=True)
    return theory.distance(*out), theory.distance(*base), theory.distance(*sequence).amax(-1)


@pytest.mark.parametrize("fields", [{}, {"fusion": "pooled"}, {"embedding_dim": 16}], ids=["transformer", "pooled", "projected"])
@pytest.mark.parametrize("step", [1e-3, 0.3, 10.0])
def test_the_spectral_limit_holds(backbones, fields, step):
    model = LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL | fields)
    lasr, domain = stirred(model).lira.lasr.eval(), Domain()
    one, other = head_inputs(lasr, 64, 1), head_inputs(lasr, 64, 2)
    for i in range(4):
        other[i] = one[i] + step * (other[i] - one[i])
    moved, base, sequence = moves(lasr, one, other, domain)
    limit = spectral_bound(lasr, domain).limit(base, sequence)
    assert (moved <= limit).all() and moved.max() > 1e-5


def test_the_spectral_limit_of_a_head_at_its_start_is_that_of_normalising(backbones):
    for fields in ({}, {"fusion": "pooled"}):
        lasr, domain = heads(backbones, **fields), Domain()
        one, other = head_inputs(lasr, 32, 1), head_inputs(lasr, 32, 2)
        moved, base, sequence = moves(lasr, one, other, domain)
        found = spectral_bound(lasr, domain)
        assert found.base == pytest.approx(1 / math.sqrt(2), rel=1e-5) and found.sequence == 0
        torch.testing.assert_close(moved, found.limit(base, sequence), atol=1e-5, rtol=0)  # all bases are equally long: an equality


def test_hooks_leave_the_head_as_it_was(backbones):
    lasr = heads(backbones)
    given = head_inputs(lasr, 8, 3)
    with torch.no_grad(), observed(lasr, Domain()) as seen:
        inside = lasr(*given)
    assert seen["sequence"].shape == (8, 9, 32) and seen["base"].shape == (8, 56)
    torch.testing.assert_close(inside, lasr(*given))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lasr.modules())
    with pytest.raises(ValueError, match="domain"):
        spectral_bound(lasr, Domain())


def test_slopes_of_gelu_and_attention_are_limits():
    grid = torch.linspace(-6, 6, 200_001, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(F.gelu(grid).sum(), grid)[0].abs().max().item()
    assert slope == pytest.approx(GELU_SLOPE, abs=1e-6)
    torch.manual_seed(3)
    attention, entry = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.nn.LayerNorm(8)
    with torch.no_grad():
        for parameter in (*attention.parameters(), *entry.parameters()):
            parameter.normal_()
    ball = math.sqrt(8) * F.normalize(torch.randn(200, 5, 8), dim=-1)
    for step in (1e-3, 1.0):
        other = math.sqrt(8) * F.normalize(ball + step * torch.randn(200, 5, 8), dim=-1)
        run = lambda x: (lambda y: attention(y, y, y)[0])(x * entry.weight + entry.bias)  # noqa: E731
        ratio = theory.distance(run(ball), run(other)).amax(-1) / theory.distance(ball, other).amax(-1)
        assert ratio.max().item() < attention_slope(attention, entry)


# ---- planted violations ------------------------------------------------------------------------------------------------------


def constructed(jump: float = 0.0, missing: bool = False, rows: int = 60):
    """Rows of a head that only scales z by 2, whose English vectors are means of two orthonormal anchors, and the bank that is used.

    jump: of the head's output, beyond all edits. missing: the chosen translations differ in a direction that no anchor has."""
    bank = torch.eye(3, dtype=torch.float64)[:2]
    weight = 0.35 + 0.3 * torch.rand(2, rows, 1, generator=generator(20), dtype=torch.float64)
    chosen, perfect = (F.normalize(torch.cat([w, 1 - w, torch.zeros(rows, 1)], -1), dim=-1) for w in weight)
    if missing:
        chosen = F.normalize(perfect + torch.tensor([0.0, 0.0, 1.0]), dim=-1)
    source = F.normalize(perfect + torch.tensor([0.0, 0.0, 0.1]), dim=-1)  # p(s|x) stays nearly that of y*
    z, perfect_z = torch.cat([source, chosen], -1), torch.cat([perfect, perfect], -1)
    edits = z[:, None] + 0.01 * unit(rows, 4, 6, seed=22)
    moved = torch.cat([2 * perfect_z, torch.full((rows, 1), jump)], -1)
    embeddings = torch.cat([2 * z, torch.zeros(rows, 1)], -1)
    products = unit(12, 7, seed=23)
    found = Rows(
        **anchored_rows(source, chosen, perfect, bank, 0.3, 20, generator()),
        slopes=theory.local_lipschitz(embeddings, torch.cat([2 * edits, torch.zeros(rows, 4, 1)], -1), z, edits),
        embedding_deviation=theory.distance(embeddings, moved), score_deviation=theory.score_deviation(embeddings, moved, products),
        limit=2 * theory.distance(z, perfect_z), radii={1: theory.stability_radius(embeddings, products, 1)},
        unchanged={1: theory.same_order(embeddings, moved, products, 1)},
    )  # fmt: skip
    return found, bank


def certified(rows: Rows, bank: torch.Tensor) -> dict:
    count = len(rows.epsilon1)
    return certificate(rows, ["th"] * count, [["clean"]] * count, bank, SpectralBound(1.0, 1.0, {}), 0.95, generator())


def broken(found: dict) -> set[str]:
    return {one["name"] for one in found["assumptions"] if not one["holds"]}


def test_without_a_plant_nothing_is_reported_and_every_bound_holds():
    found = certified(*constructed())
    assert broken(found) == set() and found["violations"] == []
    overall = found["overall"]
    for name in ("bound_blind", "bound_reference", "embedding_bound", "embedding_limit"):
        assert overall[name]["coverage"] == 1.0
    assert found["word"] == "empirical" and found["constants"]["l_at_q"] == pytest.approx(2.0) and found["constants"]["c"] == 1.0
    assert found["languages"]["th"]["rows"] == found["slices"]["clean"]["rows"] == 60
    # what cannot change by a bound did not change
    for by in ("empirical", "certified", "observed", "observed_scores"):
        assert overall["stability"]["1"][by] <= overall["stability"]["1"]["unchanged"]


def test_a_jump_beyond_the_edits_is_reported():
    found = certified(*constructed(jump=5.0))
    assert broken(found) == {"lipschitz", "spectral"}
    assert any("holds as far as z*" in line and "60 of 60" in line for line in found["violations"])
    assert found["overall"]["embedding_limit"]["coverage"] == 0


def test_a_bank_that_misses_a_direction_is_reported():
    rows, bank = constructed(missing=True)
    found = certified(rows, bank)
    assert rows.epsilon2_reference.max() < 0.05 and rows.translation_gap.min() > 0.7  # the translations look alike to the anchors
    assert {"anchors", "text_for_perfect"} <= broken(found) and any("the anchors represent" in line for line in found["violations"])
    assert found["overall"]["bound_reference"]["coverage"] < 0.1 and found["overall"]["anchor_residual"]["p50"] > 0.5


def test_too_small_a_c_is_reported(monkeypatch):
    rows, bank = constructed()
    monkeypatch.setattr(theory, "largest_norm", lambda bank: 0.05)
    found = certified(rows, bank)
    assert {"largest_norm", "anchors"} <= broken(found) and any("2 of 2 anchors" in line for line in found["violations"])


def test_a_warm_softmax_makes_the_bound_small_and_the_anchors_fail():
    chosen, perfect, _, bank = mixtures(200, sharp=4.0)
    cold, warm = by_temperature(perfect, chosen, perfect, bank, [0.2, 200.0])
    assert warm["bound_blind"]["p50"] < cold["bound_blind"]["p50"] and warm["epsilon2"] < 1e-4
    assert warm["anchors_fail"] > 0.95 and cold["anchors_fail"] < warm["anchors_fail"]


# ---- a model and its data ------------------------------------------------------------------------------------------------------


def test_token_edits_by_hand():
    letters = lambda word: [ord(c) for c in word]  # noqa: E731
    assert [token_edits(letters(a), letters(b)) for a, b in (("kitten", "sitting"), ("", "ab"), ("ab", "ab"), ("abc", "ac"))] == [3, 2, 0, 1]


@pytest.fixture(scope="module")
def folder(backbones, processor, stage_data, tmp_path_factory):
    """A saved model, and data for it."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("certified")
    stirred(LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL)).save_pretrained(place)
    processor.save_pretrained(place)
    return place, cut(Path(stage_data("retrieval")), tmp_path_factory.mktemp("rows") / "id", ["id"])


@pytest.mark.parametrize("delta", [1, 3])
def test_edits_are_within_delta_tokens_and_never_none(processor, folder, delta):
    rows = [replace(query.row, translations=query.row.translations[:1], scores=[None]) for query in read(folder[1], "id", "test").queries]
    found, there = edited(rows, processor, 4, delta, random.Random(0))
    assert there.double().mean() > 0.9 and len(found) == there.sum()
    ids = lambda tokenizer, text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for (i, _), new in zip(there.nonzero().tolist(), found, strict=True):
        text = token_edits(ids(processor.tokenizer, rows[i].text), ids(processor.tokenizer, new.text))
        translation = token_edits(ids(processor.english_tokenizer, rows[i].translations[0]), ids(processor.english_tokenizer, new.translations[0]))
        assert min(text, translation) == 0 and 1 <= text + translation <= delta


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    else:
        yield path, value


OPTIONS = {"languages": ["id"], "anchors": 30, "edits": 2, "k": 3, "resamples": 20, "show_progress_bar": False}


def test_a_models_certificate_and_the_same_after_a_kill(folder, tmp_path, capsys, monkeypatch):
    model, data = folder
    found = certify(model, data, tmp_path / "one", **OPTIONS)
    assert found == json.loads((tmp_path / "one" / "certificate.json").read_text())
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["certificate.json", "certificate.png"]
    assert not (Path(model) / "results" / "certificate.json").exists()  # of one language alone: not for the card
    assert found["word"] == "empirical" and found["overall"]["rows"] == found["languages"]["id"]["rows"] == len(read(data, "id", "test").queries)
    for group in (found["overall"], *found["languages"].values(), *found["slices"].values()):
        assert set(group) == set(FIGURES)
        assert group["embedding_limit"]["coverage"] == 1.0
    assert {kind for kind, _ in found["figures"].values()} == {"observed", "estimated", "certified", "empirical"}
    card = found["card"]
    assert len(card["rows"]) == 1 + len(found["languages"]) + len(found["slices"])
    assert all(len(row) == len(card["header"]) for row in card["rows"]) and all(
        "|" not in cell for row in [card["header"], *card["rows"]] for cell in row
    )
    assert any("vacuous: the bound exceeds the largest possible distance 2 " in line for line in card["notes"])
    assert card["title"] in capsys.readouterr().out
    assert all(math.isfinite(value) for _, value in leaves(found["overall"]) if isinstance(value, float))

    monkeypatch.setattr(package, "rows_of", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        certify(model, data, tmp_path / "cut", **OPTIONS)
    assert (tmp_path / "cut" / "measured" / "id.pt").exists()
    monkeypatch.undo()
    calls, measure = [], package.measure
    monkeypatch.setattr(package, "measure", lambda *arguments, **named: calls.append(1) or measure(*arguments, **named))
    assert certify(model, data, tmp_path / "cut", **OPTIONS) == found and calls == []


def test_what_was_measured_is_asked_for_again_with_another_key(folder, tmp_path):
    part = read(folder[1], "id", "test")
    run = lambda: package.measure(*package.opened(folder[0]), part, edits=1, delta=1, seed=0, show_progress_bar=False)  # noqa: E731
    first = kept(tmp_path, "key", part, run)
    again = kept(tmp_path, "key", part, lambda: 1 / 0)
    assert vars(again).keys() == vars(first).keys() and again.domain == first.domain and again.z.equal(first.z)
    for key, other in (("another", part), ("key", replace(part, queries=part.queries[1:]))):
        with pytest.raises(ZeroDivisionError):
            kept(tmp_path, key, other, lambda: 1 / 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"q": 0.0}, "q: 0.0"), ({"k": 0}, "k: 0"), ({"anchors": 1}, "anchors: 1"), ({"split": "dev"}, "split: 'dev'"), ({"languages": ["xx"]}, "'xx'"),
     ({"temperature": 0.0}, "temperature: 0.0")],
)  # fmt: skip
def test_bad_options_are_named(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        certify(*folder, tmp_path / "out", **{"languages": ["id"], "show_progress_bar": False} | options)
