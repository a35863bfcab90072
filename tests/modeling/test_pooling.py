"""Temporal and sentence pooling against loops that follow METHOD 1.1 to the letter."""

import math

import pytest
import torch

from lira_hf.modeling.arca_lira import sentence_pooling, temporal_pooling

LENGTHS = range(1, 65)
PLACES = {  # where a row's n valid tokens sit among its positions
    "right padding": lambda n, width, generator: torch.arange(n),
    "left padding": lambda n, width, generator: torch.arange(width - n, width),
    "gaps": lambda n, width, generator: torch.randperm(width, generator=generator)[:n].sort().values,
}


def padded(lengths, place, width=70, hidden=3):
    """States [N, width, hidden] and mask [N, width]; what is masked holds values that would show."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(len(lengths), width, hidden, generator=generator)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, PLACES[place](n, width, generator)] = 1
    return torch.where(mask[..., None].bool(), states, 1e4), mask


def looped(states, mask, bins):
    rows = []
    for state, valid in zip(states.double(), mask.bool(), strict=True):
        tokens = state[valid]
        n = len(tokens)
        rows.append(torch.stack([tokens[s * n // bins : math.ceil((s + 1) * n / bins)].mean(0) for s in range(bins)]))
    return torch.stack(rows).float()


@pytest.mark.parametrize("place", PLACES)
def test_temporal_pooling_equals_a_loop_for_every_length_and_number_of_bins(place):
    states, mask = padded(LENGTHS, place)
    for bins in range(1, 17):
        torch.testing.assert_close(temporal_pooling(states, mask, bins), looped(states, mask, bins), atol=1e-5, rtol=0)


def test_no_bin_is_empty_when_there_are_fewer_tokens_than_bins():
    states, mask = torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2)
    assert temporal_pooling(states, mask, 5)[0, :, 0].tolist() == [1, 1, 2, 3, 3]


def test_a_row_without_a_token_gives_zeros_and_leaves_the_others_alone():
    states, mask = padded([5, 7], "gaps")
    states, mask = torch.cat([states, states[:1]]), torch.cat([mask, torch.zeros_like(mask[:1])])
    pooled = temporal_pooling(states, mask, 4)
    assert torch.equal(pooled[2], torch.zeros(4, 3))
    torch.testing.assert_close(pooled[:2], looped(states[:2], mask[:2], 4), atol=1e-5, rtol=0)


def test_temporal_pooling_of_bfloat16_states_is_as_exact_as_that_of_the_same_values_in_float():
    states, mask = padded([1, 17, 64], "left padding")
    states = states.bfloat16()
    pooled = temporal_pooling(states, mask, 8)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, looped(states, mask, 8), atol=1e-6, rtol=1e-6)


def test_a_sum_over_many_large_states_keeps_small_differences():
    states = torch.full((1, 4096, 1), 1000.0)
    states[0, -1] = 1000.1  # float32 knows sums near four million to 0.25 only
    assert temporal_pooling(states, torch.ones(1, 4096), 4096)[0, -1, 0].item() == pytest.approx(1000.1, abs=1e-3)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentence_pooling_takes_valid_tokens_only(pooling, place):
    states, mask = padded([1, 2, 9, 70], place)
    expected = []
    for state, valid in zip(states, mask.bool(), strict=True):
        tokens = state[valid]
        vector = {"mean": tokens.mean(0), "cls": tokens[0], "last": tokens[-1]}[pooling]
        expected.append(vector / vector.norm())
    torch.testing.assert_close(sentence_pooling(states, mask, pooling), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pool", [lambda s, m: temporal_pooling(s, m, 3), lambda s, m: sentence_pooling(s, m, "mean")], ids=["temporal", "sentence"])
def test_padding_that_is_not_a_number_never_enters(pool):
    states, mask = padded([4, 6], "left padding")
    broken = torch.where(mask[..., None].bool(), states, torch.nan)
    assert torch.equal(pool(broken, mask), pool(states, mask))
