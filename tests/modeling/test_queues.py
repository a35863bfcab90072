"""Rings of past products and predictions: what they hold, what they cost in memory, and what a checkpoint carries of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lira_hf.modeling.queues_lira import CorrQueue, DocQueue, SlowCopy, first_of_each

few = settings(max_examples=25, deadline=None)


def rows(numbers):
    values = torch.tensor(numbers, dtype=torch.float32)
    return {"id": values.long(), "embedding": values[:, None] * torch.tensor([1.0, -1.0])}


@given(size=st.integers(1, 9), pushes=st.lists(st.integers(0, 14), min_size=1, max_size=8))
@few
def test_the_queue_holds_the_latest_rows_whatever_the_sizes_of_the_pushes(size, pushes):
    queue, pushed = DocQueue(size), []
    for count in pushes:
        new = list(range(len(pushed), len(pushed) + count))
        pushed += new
        queue.push(rows(new))
        held = queue.contents()
        assert sorted(held["id"].tolist()) == pushed[-size:]
        assert torch.equal(held["embedding"], held["id"][:, None] * torch.tensor([1.0, -1.0]))  # rows stay together


def test_the_oldest_row_leaves_first_across_the_end_of_the_ring():
    queue = DocQueue(3)
    for number in range(8):
        queue.push(rows([number]))
        assert set(queue.contents()["id"].tolist()) == set(range(max(0, number - 2), number + 1))


def test_an_unused_queue_is_empty():
    assert DocQueue(4).contents() == {}


def test_the_ring_is_allocated_once():
    queue = DocQueue(5)
    queue.push(rows([0]))
    places = {name: tensor.data_ptr() for name, tensor in queue.rows.items()}
    for start in range(1, 40, 3):
        queue.push(rows([start, start + 1, start + 2]))
    assert {name: tensor.data_ptr() for name, tensor in queue.rows.items()} == places


def test_queued_rows_are_constants():
    embedding = torch.randn(2, 3).requires_grad_()
    queue = DocQueue(4)
    queue.push({"embedding": 2 * embedding})
    assert not queue.contents()["embedding"].requires_grad


def test_a_restored_queue_goes_on_where_the_saved_one_stopped():
    queue, other = DocQueue(4), DocQueue(4)
    queue.push(rows(range(6)))
    other.load_state_dict({name: tensor.clone() for name, tensor in queue.state_dict().items()})
    assert sorted(other.contents()["id"].tolist()) == [2, 3, 4, 5]
    for each in (queue, other):
        each.push(rows([6, 7]))
    assert torch.equal(queue.contents()["id"], other.contents()["id"])
    assert torch.equal(queue.contents()["embedding"], other.contents()["embedding"])


def test_a_restored_queue_does_not_share_memory_with_the_state():
    queue, other = DocQueue(4), DocQueue(4)
    queue.push(rows(range(4)))
    other.load_state_dict(queue.state_dict())
    other.push(rows([9]))
    assert sorted(queue.contents()["id"].tolist()) == [0, 1, 2, 3]


def test_a_queue_that_was_never_filled_can_be_saved_and_restored():
    other = DocQueue(4)
    other.load_state_dict(DocQueue(4).state_dict())
    other.push(rows([1]))
    assert other.contents()["id"].tolist() == [1]


def test_a_state_of_another_size_is_refused_with_both_sizes():
    queue = DocQueue(4)
    queue.push(rows(range(4)))
    with pytest.raises(ValueError, match="queue_size: 5, .* 4 entries"):
        DocQueue(5).load_state_dict(queue.state_dict())


def test_ages_count_pushes():
    queue = DocQueue(4)
    for number in range(3):
        queue.push(rows([2 * number, 2 * number + 1]))
    assert dict(zip(queue.contents()["id"].tolist(), queue.ages().tolist(), strict=True)) == {2: 2, 3: 2, 4: 1, 5: 1}
    again = DocQueue(4)
    again.load_state_dict(queue.state_dict())
    again.push(rows([9]))
    assert sorted(again.ages().tolist()) == [1, 2, 2, 3]


def test_drift_is_one_minus_the_cosine_of_stored_and_fresh_embeddings_of_the_same_products():
    queue = DocQueue(6)
    queue.push({"product": torch.tensor([7, 3, 9]), "embedding": torch.eye(3)})
    fresh = torch.tensor([[0.0, 1, 0], [0.6, 0.8, 0], [1, 0, 0]])
    assert queue.drift(torch.tensor([9, 3, 5]), fresh) == pytest.approx((1 + 0.2) / 2)
    assert queue.drift(torch.tensor([1, 2]), fresh[:2]) is None


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_queued_features_are_embedded_in_chunks_with_the_gradient_of_one_piece(chunk):
    weight = torch.randn(4, 3, requires_grad=True)
    features = torch.randn(7, 4)
    queue, largest = DocQueue(7), []

    def embed(rows):
        largest.append(len(rows["features"]))
        return torch.tanh(rows["features"] @ weight) * rows["language_ids"][:, None]

    queue.push({"features": features, "language": torch.arange(7), "product": torch.arange(7)})
    embeddings = queue.embeddings(embed, chunk)
    torch.testing.assert_close(embeddings, torch.tanh(features @ weight) * torch.arange(7)[:, None])
    (gradient,) = torch.autograd.grad(embeddings.square().sum(), weight)
    (expected,) = torch.autograd.grad((torch.tanh(features @ weight) * torch.arange(7)[:, None]).square().sum(), weight)
    torch.testing.assert_close(gradient, expected)
    assert max(largest) == min(chunk, 7)


def test_the_step_is_joined_with_queued_predictions_that_are_constants():
    queue, predictions = CorrQueue(3), torch.tensor([1.0, 2.0], requires_grad=True)
    assert queue.joined(predictions, torch.ones(2)) == (predictions, pytest.approx(torch.ones(2)))
    queue.push({"prediction": predictions * 2, "label": torch.tensor([3.0, 4.0])})
    joined, labels = queue.joined(predictions, torch.ones(2))
    assert joined.tolist() == [1, 2, 2, 4] and labels.tolist() == [1, 1, 3, 4]
    assert torch.autograd.grad(joined.sum(), predictions)[0].tolist() == [1, 1]


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=12))
@few
def test_each_id_is_kept_once_where_it_stands_first(values):
    kept = [value for value, first in zip(values, first_of_each(torch.tensor(values)).tolist(), strict=True) if first]
    assert kept == list(dict.fromkeys(values))


def test_a_slow_copy_is_restored_into_a_run_that_has_none_yet_and_goes_on_from_there():
    module, slow, again = torch.nn.Linear(2, 2), SlowCopy(0.5), SlowCopy(0.5)
    slow.follow(module)
    torch.nn.init.zeros_(module.weight)
    slow.follow(module)
    again.load_state_dict(slow.state_dict())
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, slow.state_dict()[name])
    expected, found = slow.follow(module)[0].weight, again.follow(module)[0].weight
    assert torch.equal(found, expected) and expected.abs().sum() > 0
