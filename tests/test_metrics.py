import math

import pytest
import torch

from lira_hf.evaluation.metrics import ndcg, top_k
from lira_hf.evaluation.retrieval import Scoreboard


def test_equal_scores_are_ranked_by_descending_id_as_trec_eval_does():
    assert [d for d, _ in top_k(torch.tensor([[0.5, 0.5, 0.9, 0.5]]), ["a", "c", "b", "d"], 3)[0]] == ["b", "d", "c"]


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        (["x", "y", "z"], 100.0),
        (["y", "x", "z"], 100 * (2 + 3 / math.log2(3)) / (3 + 2 / math.log2(3))),
        (["z", "n", "x"], 100 * (3 / 2) / (3 + 2 / math.log2(3))),
        (["n", "z"], 0.0),
        ([], 0.0),
    ],
)
def test_ndcg_by_hand_with_linear_gains(ranking, expected):
    run = {"q": [(d, 1.0 - 0.1 * i) for i, d in enumerate(ranking)]}
    assert ndcg({"q": {"x": 3, "y": 2, "z": 0}}, run)["q"] == pytest.approx(expected, abs=1e-4)


def test_a_query_without_relevant_products_has_no_ndcg():
    assert ndcg({"q": {"x": 0}, "r": {"x": 1}}, {"q": [("x", 1.0)], "r": [("x", 1.0)]}) == {"r": 100.0}


def test_order_is_kept_where_scores_differ_by_less_than_single_precision():
    run = {"q": [("a", 0.1 + 1e-12), ("z", 0.1)]}
    assert ndcg({"q": {"a": 1, "z": 0}}, run)["q"] == 100.0


def test_scoreboard_gives_mean_and_spread_over_seeds():
    board = Scoreboard()
    for value in (70.0, 72.0):
        board.add("lira", {"languages": {"th": value}, "average": value, "slices": {"typo": value - 1}})
    found = board.systems()["lira"]
    assert found["average"] == 71.0 and found["slices"] == {"typo": 70.0} and found["seeds"] == [70.0, 72.0]
    assert found["spread"]["languages"]["th"] == pytest.approx(math.sqrt(2), abs=1e-4)
