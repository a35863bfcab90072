"""Losses whose value is known in closed form, their gradients, and the rules for safe negatives."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lira_hf.modeling.objectives_lira import (
    anchor_loss,
    average_ranks,
    closest_positives,
    collapse_figures,
    consistency_loss,
    contrastive_loss,
    correlation_loss,
    effective_negatives,
    grades_of,
    grouped_correlation_loss,
    hinge_loss,
    judged_among,
    least_squares_line,
    mean_variance_loss,
    pearson,
    policy_loss,
    soft_ndcg_loss,
    soft_rank,
    unsafe_negatives,
)

few = settings(max_examples=25, deadline=None)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- stage 1 -------------------------------------------------------------------------------------------------------


def test_anchor_loss_is_zero_for_equal_two_for_opposite_and_one_for_orthogonal_directions():
    source = normal(5, 7)
    assert anchor_loss(source, 3 * source).item() == pytest.approx(0, abs=1e-6)
    assert anchor_loss(source, -source).item() == pytest.approx(2, abs=1e-6)
    assert anchor_loss(torch.eye(4)[:2], torch.eye(4)[2:]).item() == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 2, 13])
def test_contrastive_loss_of_zero_vectors_is_log_of_the_number_of_rows(rows):
    assert contrastive_loss(torch.zeros(rows, 6), torch.zeros(rows, 6), 0.05).item() == pytest.approx(math.log(rows), abs=1e-6)


def test_contrastive_loss_of_separated_rows_is_zero_and_of_swapped_rows_is_large():
    rows = 5 * torch.eye(8)
    assert contrastive_loss(rows, rows, 0.05).item() < 1e-6
    assert contrastive_loss(rows, rows.roll(1, 0), 0.05).item() == pytest.approx(20, abs=1e-4)  # (1 - 0) / 0.05


def test_contrastive_loss_asks_both_ways():
    source, target = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    # from source: 1 s.t. scores (1, 0) for both rows; from target: ties for both rows
    forward = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert contrastive_loss(source, target, 1.0).item() == pytest.approx((forward + math.log(2)) / 2, abs=1e-6)


POLICY = torch.tensor([0.8, 0.2])
REWARDS = torch.tensor([[0.3, 0.9]])


def test_expected_policy_loss_is_minus_the_mean_reward_under_the_policy():
    loss = policy_loss(POLICY.log()[None], REWARDS, torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(-(0.8 * 0.3 + 0.2 * 0.9))


@pytest.mark.parametrize("baseline, offset", [("none", 0.0), ("expected", 0.8 * 0.3 + 0.2 * 0.9)])
def test_reinforce_is_minus_log_probability_times_advantage_of_candidates_drawn_from_the_policy(baseline, offset):
    torch.manual_seed(0)
    draws = [policy_loss(POLICY.log()[None], REWARDS, torch.ones(1, 2, dtype=torch.bool), "reinforce", baseline).item() for _ in range(400)]
    first, second = -math.log(0.8) * (0.3 - offset), -math.log(0.2) * (0.9 - offset)
    drawn_first = [draw == pytest.approx(first, abs=1e-5) for draw in draws]
    assert all(one or draw == pytest.approx(second, abs=1e-5) for one, draw in zip(drawn_first, draws, strict=True))
    assert sum(drawn_first) / 400 == pytest.approx(0.8, abs=0.08)


def gradients(policy, baseline, samples):
    """Gradient of each of many samples of one row of three candidates and a masked one [samples, 4]."""
    logits = normal(4, seed=5).expand(samples, 4).clone().requires_grad_()
    mask = torch.tensor([True, True, True, False]).expand(samples, 4)
    loss = policy_loss(logits, torch.tensor([0.9, 0.1, 0.5, 1.0]).expand(samples, 4), mask, policy, baseline)
    return torch.autograd.grad(loss * samples, logits)[0]


@pytest.mark.parametrize("baseline", ["none", "expected"])
def test_the_expectation_of_reinforces_gradient_is_the_gradient_of_expected(baseline):
    torch.manual_seed(11)
    sampled = gradients("reinforce", baseline, 200_000).mean(0)
    exact = gradients("expected", baseline, 1)[0]
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(sampled, exact, atol=3e-3, rtol=0)


def test_the_expected_baseline_lowers_the_variance_of_reinforce():
    torch.manual_seed(12)
    assert gradients("reinforce", "expected", 20_000).var(0).sum() < 0.5 * gradients("reinforce", "none", 20_000).var(0).sum()


@pytest.mark.parametrize("policy", ["expected", "reinforce"])
def test_masked_candidates_have_no_say_and_no_gradient(policy):
    mask = torch.tensor([[True, False, True], [True, True, False]])
    logits, rewards = normal(2, 3, seed=1), normal(2, 3, seed=2)
    results = []
    for in_logits, in_rewards in ((0.0, 0.0), (100.0, 100.0), (-torch.inf, torch.nan)):
        torch.manual_seed(4)
        moved = torch.where(mask, logits, logits + in_logits).requires_grad_()
        loss = policy_loss(moved, torch.where(mask, rewards, rewards + in_rewards), mask, policy)
        gradient = torch.autograd.grad(loss, moved)[0]
        assert torch.equal(gradient[~mask], torch.zeros(2)) and (gradient[mask] != 0).all()
        results.append(loss.item())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("policy", ["expected", "reinforce"])
def test_a_row_without_candidates_is_left_out_of_the_mean(policy):
    mask = torch.tensor([[True, True], [False, False], [True, True]])
    logits, rewards = normal(3, 2, seed=1), normal(3, 2, seed=2)
    losses = []
    for rows in ([0, 2], [0, 1, 2]):
        torch.manual_seed(3)
        losses.append(policy_loss(logits[rows], rewards[rows], mask[rows], policy).item())
    assert losses[0] == losses[1]


def test_without_any_candidate_the_policy_loss_is_a_zero_that_can_be_differentiated():
    logits = normal(2, 3).requires_grad_()
    loss = policy_loss(logits, normal(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(2, 3))


def test_rewards_carry_no_gradient():
    rewards = normal(2, 3).requires_grad_()
    policy_loss(normal(2, 3, seed=1).requires_grad_(), rewards, torch.ones(2, 3, dtype=torch.bool)).backward()
    assert rewards.grad is None


def test_collapse_figures_of_identical_and_of_orthonormal_rows():
    cosine, rank = collapse_figures(normal(1, 9).expand(6, 9) * torch.arange(1, 7)[:, None])
    assert (cosine.item(), rank.item()) == pytest.approx((1, 1), abs=1e-4)
    cosine, rank = collapse_figures(torch.eye(6, 9))
    assert (cosine.item(), rank.item()) == pytest.approx((0, 6), abs=1e-4)


def test_effective_rank_counts_directions_by_their_share():
    _, rank = collapse_figures(torch.eye(3)[[0, 0, 0, 1]])  # squared singular values 3 and 1
    assert rank.item() == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))), abs=1e-4)


# ---- soft ranks and nDCG ---------------------------------------------------------------------------------------------


def true_ranks(scores, mask):
    """Place of each valid candidate [Q, C] among the valid ones, 1 the best."""
    return torch.stack([1 + ((row[None] > row[:, None]) & valid[None]).sum(-1) for row, valid in zip(scores, mask, strict=True)])


def distinct_scores(queries, candidates, seed):
    """Cosines with a gap of at least 1 / C between any two of a query."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.stack([torch.randperm(candidates, generator=generator) for _ in range(queries)])
    return (2 * places + 1) / candidates - 1


@given(queries=st.integers(1, 4), candidates=st.integers(1, 60), seed=st.integers(0, 10**6))
@few
def test_soft_rank_becomes_the_true_rank_as_the_temperature_falls(queries, candidates, seed):
    scores = distinct_scores(queries, candidates, seed)
    mask = normal(queries, candidates, seed=seed) > -0.7
    rows, columns = torch.nonzero(mask, as_tuple=True)
    ranks = soft_rank(scores, rows, columns, mask, 1e-3)
    torch.testing.assert_close(ranks, true_ranks(scores, mask)[rows, columns].float(), atol=1e-4, rtol=0)


def test_soft_rank_by_hand():
    scores, mask = torch.tensor([[0.5, 0.5, 0.2, 0.9]]), torch.tensor([[True, True, True, False]])
    rank = soft_rank(scores, torch.tensor([0]), torch.tensor([0]), mask, 0.1)
    assert rank.item() == pytest.approx(1 + 0.5 + 1 / (1 + math.exp(3)), abs=1e-6)  # a tie counts half; the masked one does not count
    masked = soft_rank(scores, torch.tensor([0]), torch.tensor([3]), mask, 0.1)  # its rank among the others
    assert masked.item() == pytest.approx(1 + 2 / (1 + math.exp(4)) + 1 / (1 + math.exp(7)), abs=1e-6)


def true_ndcg(scores, gains, mask, k):
    """nDCG@k with linear gains, mean over the queries that have a gain; unjudged candidates (-1) have none."""
    values = []
    for score, gain, valid in zip(scores.tolist(), gains.tolist(), mask.tolist(), strict=True):
        kept = [(s, max(g, 0)) for s, g, v in zip(score, gain, valid, strict=True) if v]
        dcg = sum(g / math.log2(1 + place) for place, (_, g) in enumerate(sorted(kept, reverse=True)[:k], 1))
        ideal = sum(g / math.log2(1 + place) for place, g in enumerate(sorted((g for _, g in kept), reverse=True)[:k], 1))
        if ideal > 0:
            values.append(dcg / ideal)
    return sum(values) / len(values) if values else None


@given(queries=st.integers(1, 4), candidates=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 10**6), unjudged=st.booleans())
@few
def test_soft_ndcg_becomes_true_ndcg_as_the_temperatures_fall(queries, candidates, k, seed, unjudged):
    scores = distinct_scores(queries, candidates, seed)
    generator = torch.Generator().manual_seed(seed)
    gains = torch.randint(-1 if unjudged else 0, 4, (queries, candidates), generator=generator)
    mask = (torch.rand(queries, candidates, generator=generator) < 0.8) | (gains > 0)
    expected = true_ndcg(scores, gains, mask, k)
    loss = soft_ndcg_loss(scores, gains, mask, k, 1e-3, 1e-2).item()
    assert loss == pytest.approx(0 if expected is None else 1 - expected, abs=1e-4)


def test_soft_ndcg_by_hand():
    scores, gains = torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[3, 0, 1]])
    # true order: gains 0, 1, 3
    ndcg = (1 / math.log2(3) + 3 / math.log2(4)) / (3 / math.log2(2) + 1 / math.log2(3))
    assert soft_ndcg_loss(scores, gains, gains >= 0, 10, 1e-3, 1e-2).item() == pytest.approx(1 - ndcg, abs=1e-5)


def test_unjudged_candidates_do_not_lower_the_ideal():
    scores = torch.linspace(1, -1, 30)[None]
    gains = torch.full((1, 30), -1)
    gains[0, 0] = 1
    assert soft_ndcg_loss(scores, gains, torch.ones(1, 30, dtype=torch.bool), 10, 1e-3, 1e-2).item() == pytest.approx(0, abs=1e-5)


def test_a_perfect_order_gives_no_ndcg_loss_and_the_worst_order_nearly_all():
    gains = torch.tensor([[3, 2, 1] + 40 * [0]])
    mask = torch.ones_like(gains, dtype=torch.bool)
    best = torch.linspace(1, -1, 43)[None]
    assert soft_ndcg_loss(best, gains, mask, 10, 1e-3, 1e-2).item() == pytest.approx(0, abs=1e-5)
    assert soft_ndcg_loss(-best, gains, mask, 10, 1e-3, 1e-2).item() == pytest.approx(1, abs=1e-5)


def test_queries_without_a_gain_do_not_count():
    scores, gains = normal(3, 8).tanh(), torch.tensor([[0, 1, 3, 0, 0, 0, 2, 0], 8 * [0], [-1, 0, -1, 0, -1, -1, -1, -1]])
    mask = torch.ones_like(gains, dtype=torch.bool)
    alone = soft_ndcg_loss(scores[:1], gains[:1], mask[:1], 10, 0.1, 1.0)
    assert soft_ndcg_loss(scores, gains, mask, 10, 0.1, 1.0).item() == pytest.approx(alone.item())
    nothing = soft_ndcg_loss(scores[1:].requires_grad_(), gains[1:], mask[1:], 10, 0.1, 1.0)
    nothing.backward()
    assert nothing.item() == 0


# ---- hinge, mean-variance, consistency -------------------------------------------------------------------------------


HINGE = torch.tensor([[0.9, 0.5, 0.3, 0.8, 0.95]]), torch.tensor([[3, 1, 0, -1, -1]]), torch.tensor([[True, True, True, True, False]])


@pytest.mark.parametrize(
    "negatives, expected",
    [
        (1, (0.1 + 0.5) / 2),  # hardest safe negative 0.8
        (2, (0.1 + 0 + 0.5 + 0) / 4),  # and 0.3
        (9, (0.1 + 0 + 0.5 + 0) / 4),  # there are no more than two
    ],
)
def test_hinge_loss_by_hand(negatives, expected):
    assert hinge_loss(*HINGE, margin=0.2, negatives=negatives).item() == pytest.approx(expected, abs=1e-6)


def test_hinge_loss_is_zero_with_a_zero_gradient_where_nothing_can_be_compared():
    for gains in ([[3, 1, 2]], [[0, 0, -1]]):  # no negatives; no positives
        scores = normal(1, 3).requires_grad_()
        loss = hinge_loss(scores, torch.tensor(gains), torch.ones(1, 3, dtype=torch.bool), 0.2, 8)
        loss.backward()
        assert loss.item() == 0 and torch.equal(scores.grad, torch.zeros(1, 3))


def test_mean_variance_loss_by_hand():
    # means (.5, .5), deviations (.5, .5) above the floor of 0.5 / sqrt 2: only the means count, 2 * 0.25
    assert mean_variance_loss(torch.eye(2)).item() == pytest.approx(0.5, abs=1e-5)
    # means (1, 0), deviations 0: 2 * (1 + 0) / 2 and sqrt 2 * 0.5 / sqrt 2
    assert mean_variance_loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item() == pytest.approx(1.5, abs=1e-5)
    # balanced and spread
    assert mean_variance_loss(torch.cat([torch.eye(2), -torch.eye(2)])).item() == pytest.approx(0, abs=1e-6)
    assert mean_variance_loss(torch.ones(1, 5)).item() == 0  # one row has no deviation


def test_consistency_loss_pulls_the_embedding_and_never_the_reference():
    embeddings, references = normal(4, 6).requires_grad_(), normal(4, 6, seed=1).requires_grad_()
    loss = consistency_loss(embeddings, references)
    loss.backward()
    assert references.grad is None and embeddings.grad.abs().sum() > 0
    cosines = (embeddings * references).sum(-1) / embeddings.norm(dim=-1) / references.norm(dim=-1)
    assert loss.item() == pytest.approx(1 - cosines.mean().item(), abs=1e-6)


# ---- gradients -------------------------------------------------------------------------------------------------------


EVERYWHERE = torch.ones(3, 7, dtype=torch.bool)
GAINS = torch.tensor([[3, 0, 1, -1, -1, 0, 2], [0, 0, 0, 1, -1, -1, -1], [-1, 2, 2, 0, 0, 0, 0]])
ROWS, COLUMNS = torch.nonzero(GAINS > 0, as_tuple=True)


def reinforce(logits):
    torch.manual_seed(2)  # the same draw for every small step
    return policy_loss(logits, normal(3, 7, seed=9, dtype=torch.double), EVERYWHERE, "reinforce", "none")


LOSSES = {
    "anchor": lambda x: anchor_loss(x, normal(3, 7, seed=8, dtype=torch.double)),
    "contrastive": lambda x: contrastive_loss(x, normal(3, 7, seed=8, dtype=torch.double), 0.3),
    "policy, expected": lambda x: policy_loss(x, normal(3, 7, seed=9, dtype=torch.double), EVERYWHERE),
    "policy, reinforce": reinforce,
    "soft rank": lambda x: soft_rank(x, ROWS, COLUMNS, EVERYWHERE, 0.3),
    "hinge": lambda x: hinge_loss(x, GAINS, EVERYWHERE, 1.0, 3),
    "mean-variance": lambda x: mean_variance_loss(0.1 * x),
    "consistency": lambda x: consistency_loss(x, normal(3, 7, seed=8, dtype=torch.double)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name):
    assert torch.autograd.gradcheck(LOSSES[name], normal(3, 7, dtype=torch.double).requires_grad_())


def test_gradient_of_soft_ndcg_equals_finite_differences():
    scores, step = normal(3, 7).requires_grad_(), 1e-2  # computed in float32 whatever comes in, so no gradcheck
    loss = lambda x: soft_ndcg_loss(x, GAINS, EVERYWHERE, 3, 0.5, 1.0)  # noqa: E731
    gradient = torch.autograd.grad(loss(scores), scores)[0]
    with torch.no_grad():
        for seed in range(5):
            direction = normal(3, 7, seed=20 + seed)
            slope = (loss(scores + step * direction) - loss(scores - step * direction)) / (2 * step)
            assert slope.item() == pytest.approx((gradient * direction).sum().item(), abs=1e-3)
    assert gradient.abs().max() > 0.01


# ---- safe negatives --------------------------------------------------------------------------------------------------


PRODUCTS = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [0, 1.0, 0], [0, 0, 1.0]]), dim=-1)
NOWHERE = torch.zeros(1, 4, dtype=torch.bool)


def unsafe_among(scores, relevances, products, same_judged, max_cosine, max_margin):
    return unsafe_negatives(scores, relevances, closest_positives(products, relevances, products), same_judged, max_cosine, max_margin)


def test_a_product_that_shares_a_judged_id_is_no_negative():
    marked = torch.tensor([[False, False, True, False]])
    unsafe = unsafe_among(torch.zeros(1, 4), torch.tensor([[2, -1, -1, -1]]), PRODUCTS, marked, 1.0, 9.0)
    assert unsafe.tolist() == [[False, False, True, False]]


def test_a_product_close_to_a_relevant_one_is_no_negative_and_closeness_to_an_irrelevant_one_does_not_matter():
    for grades, expected in (([2, -1, -1, -1], [False, True, False, False]), ([0, -1, 2, -1], [False, False, False, False])):
        unsafe = unsafe_among(torch.zeros(1, 4), torch.tensor([grades]), PRODUCTS, NOWHERE, 0.95, 9.0)
        assert unsafe.tolist() == [expected]


def test_a_product_that_outscores_the_best_relevant_one_by_more_than_the_margin_is_no_negative():
    scores = torch.tensor([[0.5, 0.1, 0.59, 0.61]])
    unsafe = unsafe_among(scores, torch.tensor([[1, 1, -1, -1]]), PRODUCTS, NOWHERE, 1.0, 0.1)
    assert unsafe.tolist() == [[False, False, False, True]]


def test_rules_are_applied_per_query_and_a_query_without_a_relevant_product_drops_by_id_only():
    scores = torch.tensor([[0.1, 0.9, 0.9, 0.9], [0.1, 0.9, 0.9, 0.9]])
    marked = torch.tensor([[False] * 4, [False, False, False, True]])
    unsafe = unsafe_among(scores, torch.tensor([[1, -1, -1, -1], [0, -1, -1, -1]]), PRODUCTS, marked, 0.95, 0.1)
    assert unsafe.tolist() == [[False, True, True, True], [False, False, False, True]]


def test_judged_products_are_never_dropped():
    scores = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    unsafe = unsafe_among(scores, torch.tensor([[3, 0, 1, 0]]), PRODUCTS, torch.ones(1, 4, dtype=torch.bool), -1.0, 0.0)
    assert not unsafe.any()


def test_closeness_is_to_the_closest_relevant_product_whether_queries_share_their_candidates_or_not():
    products = torch.nn.functional.normalize(normal(7, 5), dim=-1)
    relevances = torch.tensor([[3, -1, 0, 1, -1, -1, 2], [-1, -1, 0, 0, -1, -1, -1], [-1, 1, -1, -1, -1, -1, -1]])
    cosines = products @ products.T
    expected = torch.stack([cosines[[0, 3, 6]].amax(0), torch.full((7,), -1.0), cosines[1]])
    torch.testing.assert_close(closest_positives(products, relevances, products), expected)
    torch.testing.assert_close(closest_positives(products, relevances, products.expand(3, 7, 5)), expected)


ids = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(judged=st.lists(st.lists(st.integers(-1, 6), min_size=4, max_size=4), min_size=1, max_size=5), candidates=ids)
@few
def test_judged_ids_are_found_wherever_and_however_often_they_stand(judged, candidates):
    found = judged_among(torch.tensor(judged), torch.tensor(candidates))
    assert found.tolist() == [[candidate in row for candidate in candidates] for row in judged]


@given(judged=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3, unique=True), min_size=1, max_size=5), candidates=ids)
@few
def test_grades_follow_their_products_and_the_rest_is_unjudged(judged, candidates):
    judged = [[*row, -1, -1] for row in judged]
    grades = [[2, 0, 3, -1, -1] for _ in judged]
    expected = [
        [dict(zip(row, grade, strict=True)).get(candidate, -1) for candidate in candidates] for row, grade in zip(judged, grades, strict=True)
    ]
    assert grades_of(torch.tensor(judged), torch.tensor(grades), torch.tensor(candidates)).tolist() == expected


def test_equal_negatives_count_in_full_and_hopeless_ones_hardly():
    gains = torch.tensor([[2, -1, -1, -1, -1], [-1, -1, -1, -1, -1]])
    negatives = torch.tensor([[False, True, True, True, False]] * 2)
    assert effective_negatives(torch.zeros(2, 5), gains, negatives, 0.03) == pytest.approx(3)
    one_hard = torch.tensor([[0.5, 0.9, -0.5, -0.5, 0.9]] * 2)
    assert effective_negatives(one_hard, gains, negatives, 0.03) == pytest.approx(1, abs=1e-4)
    assert effective_negatives(one_hard[1:], gains[1:], negatives[1:], 0.03) == 0


# ---- ranking -------------------------------------------------------------------------------------------------------


def test_pearson_of_hand_computed_lists():
    assert pearson(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])).item() == pytest.approx(0.5)
    assert pearson(torch.tensor([1.0, 2, 3]), torch.tensor([9.0, 5, 1])).item() == pytest.approx(-1)


@given(values=st.lists(st.integers(0, 5), min_size=2, max_size=30), seed=st.integers(0, 99))
@few
def test_correlations_and_ranks_are_those_of_scipy(values, seed):
    gold, predictions = torch.tensor(values).float(), normal(len(values), seed=seed)
    assert torch.equal(average_ranks(gold), torch.from_numpy(scipy.stats.rankdata(-gold.numpy())).float())
    if len(set(values)) > 1:
        assert pearson(predictions, gold).item() == pytest.approx(scipy.stats.pearsonr(predictions, gold).statistic, abs=1e-5)
        ranked = 1 - correlation_loss(predictions, gold, 0.0, 1e-6)  # at temperature 0 soft ranks are ranks
        assert ranked.item() == pytest.approx(scipy.stats.spearmanr(predictions, gold).statistic, abs=1e-4)


def test_tied_predictions_share_their_rank_at_every_temperature():
    predictions, gold = torch.tensor([1.0, 1, 2, 0]), torch.tensor([3.0, 3, 5, 1])
    assert correlation_loss(predictions, gold, 0.0, 1e-6).item() == pytest.approx(0, abs=1e-6)


def test_the_soft_ranks_of_two_predictions_are_known():
    # Deviation of (0, 2) is 1: the lower one has rank 1 + sigmoid(2 / t), the other 1 + sigmoid(-2 / t); of two any slope correlates fully.
    assert correlation_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0]), 0.0, 5.0).item() == pytest.approx(0, abs=1e-5)
    assert correlation_loss(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 1.0]), 0.3, 5.0).item() == pytest.approx(2, abs=1e-5)


def test_the_correlation_loss_is_the_weighted_sum_and_blind_to_scale_and_offset():
    predictions, gold = normal(20), normal(20, seed=1)
    linear, ranked = (correlation_loss(predictions, gold, weight, 0.2) for weight in (1.0, 0.0))
    assert linear.item() == pytest.approx(1 - pearson(predictions, gold).item())
    assert correlation_loss(predictions, gold, 0.3, 0.2).item() == pytest.approx((0.3 * linear + 0.7 * ranked).item(), abs=1e-6)
    assert correlation_loss(40 * predictions - 7, 0.1 * gold + 3, 0.3, 0.2).item() == pytest.approx((0.3 * linear + 0.7 * ranked).item(), abs=1e-5)


def test_the_correlation_loss_has_the_gradient_of_its_finite_differences():
    # Values go through float32, so steps are wide and the tolerance is that of their rounding.
    predictions, gold = normal(7).requires_grad_(), normal(7, seed=1)
    correlation_loss(predictions, gold, 0.5, 0.5).backward()
    for i in range(7):
        step = 1e-2 * torch.eye(7)[i]
        with torch.no_grad():
            slope = (correlation_loss(predictions + step, gold, 0.5, 0.5) - correlation_loss(predictions - step, gold, 0.5, 0.5)) / 2e-2
        assert predictions.grad[i].item() == pytest.approx(slope.item(), abs=2e-3)


@pytest.mark.parametrize("predictions, gold", [([0.5], [3.0]), ([0.5, 0.5, 0.5], [1.0, 2.0, 3.0]), ([0.1, 0.2, 0.3], [2.0, 2.0, 2.0])])
def test_where_nothing_varies_the_correlation_is_zero_and_the_gradient_finite(predictions, gold):
    predictions = torch.tensor(predictions).requires_grad_()
    loss = correlation_loss(predictions, torch.tensor(gold), 0.5, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(1) and predictions.grad.isfinite().all()


def test_groups_are_correlated_one_by_one_and_count_by_their_rows_of_the_step():
    predictions, gold, groups = normal(20), normal(20, seed=1), torch.tensor([0, 0, 0, 1, 0, 1, 2] + [0, 1, 2, 3] * 3 + [3])
    parts = [correlation_loss(predictions[groups == group], gold[groups == group], 0.3, 0.2) for group in range(3)]
    found = grouped_correlation_loss(predictions, gold, groups, 7, 0.3, 0.2)
    assert found.item() == pytest.approx(((4 * parts[0] + 2 * parts[1] + parts[2]) / 7).item(), abs=1e-6)
    moved = grouped_correlation_loss(predictions * (1 + groups) - 5 * groups, gold, groups, 7, 0.3, 0.2)
    assert moved.item() == pytest.approx(found.item(), abs=1e-5)
    one = grouped_correlation_loss(predictions, gold, torch.zeros_like(groups), 7, 0.3, 0.2)
    assert one.item() == pytest.approx(correlation_loss(predictions, gold, 0.3, 0.2).item(), abs=1e-6)


def test_groups_too_small_to_teach_anything_are_correlated_as_one():
    predictions, gold, groups = normal(9).requires_grad_(), normal(9, seed=1), torch.tensor([0, 0, 0, 5, 1, 1, 2, 0, 3])
    large, rest = groups == 0, groups != 0
    parts = [correlation_loss(predictions[each], gold[each], 0.3, 0.2) for each in (large, rest)]
    found = grouped_correlation_loss(predictions, gold, groups, 9, 0.3, 0.2)
    assert found.item() == pytest.approx(((4 * parts[0] + 5 * parts[1]) / 9).item(), abs=1e-6)
    found.backward()
    assert predictions.grad[rest].abs().min() > 0


def test_the_line_is_that_of_least_squares_and_never_falls():
    predictions = normal(30)
    torch.testing.assert_close(least_squares_line(predictions, 3 * predictions + 2), torch.tensor([3.0, 2.0]))
    gold = predictions + normal(30, seed=1)
    fitted = scipy.stats.linregress(predictions, gold)
    torch.testing.assert_close(least_squares_line(predictions, gold), torch.tensor([fitted.slope, fitted.intercept]).float())
    slope, intercept = least_squares_line(predictions, -predictions).tolist()  # they do not rise together: only the means are brought together
    assert slope == 1 and intercept == pytest.approx(-2 * predictions.mean().item())
    assert least_squares_line(torch.full((4,), 0.5), torch.arange(4.0)).tolist() == [1, 1]
