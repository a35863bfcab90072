"""Stage 1 and stage 2: what their losses are made of, what they train, the queue, and the plain Trainer."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small_backbones import SENTENCES, SMALL, stirred
from transformers import Trainer, TrainingArguments

from lira_hf import LiraForPreTraining, LiraForRetrieval, LiraModel
from lira_hf.modeling import AUTO_MAP, CollapseError
from lira_hf.modeling.objectives_lira import anchor_loss, contrastive_loss, policy_loss

CANDIDATES = [
    ["tv 55 inch black", "black tv"], ["red cotton dress", "dress"], ["black t-shirt for men", "shirt"], ["rice cooker 1.8 l", "pot"],
    ["blue shoes size 42", "shoe"], ["blue shoes size 42", "shoes blue"], ["red cotton clothes", "red"], ["rice cooker", "cook"],
    ["red cotton shirt", "cotton"], ["blue shoe", "shoe blue"], ["red dress for women", "dress"], ["blue shoes", "shoes"],
]  # fmt: skip
TEXTS, SCORES = SENTENCES[6:], [[(9, 9, 9), (6, 5, 6)]] * 12
LANGUAGES = ["th", "th", "vi", "vi", "id", "ms", "ur", "ur", "bn", "bn", "fil", "fil"]


def built(backbones, cls, **fields):
    torch.manual_seed(0)
    return cls.from_backbones(backbones["xlm-r"], backbones["bert"], **{**SMALL, **fields})


@pytest.fixture
def anchoring_batch(processor):
    return dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))


def steps(model, batches, learning_rate, count):
    """Trains on the batches in turn; the losses."""
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], learning_rate)
    losses = []
    for step in range(count):
        loss = model(**batches[step % len(batches)]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- stage 1 -------------------------------------------------------------------------------------------------------------


def test_the_anchoring_loss_is_the_weighted_sum_of_its_three_parts(backbones, anchoring_batch):
    model = stirred(built(backbones, LiraForPreTraining, anchor_weight=0.7, contrast_weight=1.3, reward_semantic=0.5, reward_similarity=0.4))
    output = model(**anchoring_batch)
    scores, similarity = anchoring_batch["translation_scores"], output.similarity
    rewards = 0.1 * (0.5 * scores[..., 0] + 0.25 * scores[..., 1] + 0.25 * scores[..., 2]) + 0.4 * similarity
    source, chosen = output.multilingual_embeds, output.english_embeds[torch.arange(12), output.choice]
    parts = {
        "policy": policy_loss(output.actor_logits, rewards, anchoring_batch["candidate_mask"]),
        "anchor": anchor_loss(source, chosen),
        "contrast": contrastive_loss(source, chosen, 0.05),
    }
    for name, part in parts.items():
        torch.testing.assert_close(output.losses[name], part.detach())
    torch.testing.assert_close(output.loss, parts["policy"] + 0.7 * parts["anchor"] + 1.3 * parts["contrast"])
    cosines = torch.nn.functional.cosine_similarity(output.multilingual_embeds[:, None], output.english_embeds, dim=-1)
    torch.testing.assert_close(similarity, cosines)


def test_anchoring_trains_adaptor_and_actor_and_nothing_else(backbones, processor):
    model = stirred(built(backbones, LiraForPreTraining)).train()
    partly = [[None, SCORES[0][1]], *SCORES[1:]]
    model(**processor(TEXTS, CANDIDATES, partly, LANGUAGES)).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    useless = {"lira.arca.actor.correction.2.bias"}  # the same for each candidate: no softmax sees it
    assert trained - useless == {name for name, _ in model.named_parameters() if name.startswith("lira.arca.")} - useless
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("lira.arca."))


@pytest.mark.parametrize("policy", ["expected", "reinforce"])
def test_rows_without_a_text_or_a_candidate_do_not_count(backbones, processor, policy):
    model = stirred(built(backbones, LiraForPreTraining, policy=policy))
    more = processor([*TEXTS[:3], "TV 55", "rice cooker"], [*CANDIDATES[:3], [], []], [*SCORES[:3], None, None], [*LANGUAGES[:3], "th", "en"])
    less = processor(TEXTS[:3], CANDIDATES[:3], SCORES[:3], LANGUAGES[:3])
    losses = []
    for batch in (more, less):
        torch.manual_seed(5)
        losses.append(model(**batch).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_batch_without_anything_to_anchor_is_refused(backbones, processor):
    model = built(backbones, LiraForPreTraining)
    for batch in (processor(TEXTS), processor(translations=CANDIDATES)):
        with pytest.raises(ValueError, match="^translations: no row of the batch has both"):
            model(**batch)


def test_anchoring_without_a_loss_returns_what_was_computed(backbones, anchoring_batch):
    model = built(backbones, LiraForPreTraining)
    output, full = model(**anchoring_batch, return_loss=False), model(**anchoring_batch)
    assert output.loss is None and output.losses is None and full.loss is not None
    assert torch.equal(output.actor_logits, full.actor_logits) and torch.equal(output.choice, full.choice)
    assert output.multilingual_embeds.shape == (12, 32) and output.english_embeds.shape == (12, 2, 32)


@pytest.mark.parametrize("fields", [{}, {"policy": "reinforce"}, {"policy": "reinforce", "baseline": "none"}], ids=str)
def test_the_anchoring_loss_falls(backbones, anchoring_batch, fields):
    losses = steps(built(backbones, LiraForPreTraining, **fields), [anchoring_batch], 3e-3, 25)
    assert all(loss == loss for loss in losses) and sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_the_actor_learns_to_prefer_what_is_rewarded(backbones, processor):
    unlike = [[(1, 1, 1), (10, 10, 10)], [(10, 10, 10), (1, 1, 1)]] * 6
    batch = dict(processor(TEXTS, CANDIDATES, unlike, LANGUAGES))
    model = built(backbones, LiraForPreTraining, anchor_weight=0, contrast_weight=0, collapse_patience=10**6)
    best = torch.tensor([1, 0] * 6)
    share = lambda: model(**batch).actor_logits.softmax(-1).gather(1, best[:, None]).mean().item()  # noqa: E731
    before = share()
    steps(model, [batch], 1e-2, 40)
    assert share() > before + 0.1


def test_without_contrast_a_high_learning_rate_collapses_and_the_error_names_the_cure(backbones, anchoring_batch):
    with pytest.raises(CollapseError, match="contrast_weight above 0"):
        steps(built(backbones, LiraForPreTraining, contrast_weight=0), [anchoring_batch], 0.01, 60)


def test_with_contrast_the_same_training_does_not_collapse(backbones, anchoring_batch):
    losses = steps(built(backbones, LiraForPreTraining), [anchoring_batch], 0.01, 60)
    assert len(losses) == 60


def test_the_alarm_counts_training_steps_in_a_row(backbones, anchoring_batch):
    model = built(backbones, LiraForPreTraining, collapse_rank=10**6, collapse_patience=3)  # every step is under the alarm
    for _ in range(5):
        model(**anchoring_batch)  # evaluation does not count
    model.train()
    for rank in (10**6, 10**6, 0.0, 10**6, 10**6):  # the third step is a good one
        model.config.collapse_rank = rank
        model(**anchoring_batch)
    with pytest.raises(CollapseError, match="for 3 steps"):
        model(**anchoring_batch)


def test_what_a_training_step_measured_is_the_mean_since_the_last_look(backbones, anchoring_batch):
    model = built(backbones, LiraForPreTraining)
    model(**anchoring_batch)
    assert model.pop_measured() == {}
    losses = steps(model, [anchoring_batch], 1e-2, 3)
    measured = model.pop_measured()
    parts = measured["loss_policy"] + measured["loss_anchor"] + measured["loss_contrast"]
    assert parts == pytest.approx(sum(losses) / 3, abs=1e-4)
    assert 0 <= measured["actor_entropy"] <= torch.log(torch.tensor(2.0)) + 1e-6
    assert 0 <= measured["epsilon1_p50"] <= measured["epsilon1_p95"] <= measured["epsilon1_max"] <= 2
    assert -1 <= measured["collapse_cosine"] <= 1 <= measured["collapse_rank"] <= 32 and 0 < measured["reward"] < 1.1
    assert model.pop_measured() == {}


@pytest.mark.parametrize("cls", [LiraForRetrieval, LiraModel])
def test_a_stage_1_folder_opens_whole_in_the_other_classes(backbones, tmp_path, cls):
    model = stirred(built(backbones, LiraForPreTraining))
    model.save_pretrained(tmp_path)
    again, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    weights = (again if cls is LiraModel else again.lira).state_dict()
    own = model.lira.state_dict()
    assert weights.keys() == own.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def test_fields_may_be_changed_when_a_folder_is_opened_and_are_checked(backbones, tmp_path):
    built(backbones, LiraForPreTraining).save_pretrained(tmp_path)
    model = LiraForRetrieval.from_pretrained(tmp_path, queue="ema", queue_size=7, path_dropout=0.0)
    assert model.queue.size == 7 and model.config.path_dropout == 0
    with pytest.raises(ValueError, match="^queue: 'nonsense'"):
        LiraForRetrieval.from_pretrained(tmp_path, queue="nonsense")


# ---- stage 2 -------------------------------------------------------------------------------------------------------------


STILL = {"dropout": 0.0, "path_dropout": 0.0}  # training steps that can be compared
CALM = {**STILL, "false_negative_cosine": 1.0, "false_negative_margin": 9.0, "mean_variance_weight": 0.0}  # no safe-negative rule but ids


def retrieval_batch(processor, rows, language="th", ids=True):
    """Queries `rows` of TEXTS and as many products, each relevant to its query alone, the rest unjudged."""
    rows = list(rows)
    batch = dict(processor([TEXTS[i] for i in rows], [CANDIDATES[i] for i in rows], [SCORES[i] for i in rows], language))
    batch["products"] = dict(processor([TEXTS[i] + " x" for i in rows], [CANDIDATES[i][:1] for i in rows], language=language))
    batch["relevances"] = torch.where(torch.eye(len(rows)).bool(), 3, -1)
    if ids:
        batch["product_ids"], batch["family_ids"] = torch.tensor(rows), 100 + torch.tensor(rows) // 2
        batch["judged_product_ids"] = torch.tensor([[i, -1] for i in rows])
    return batch


@pytest.mark.parametrize("queue", ["none", "embeddings", "ema", "features"])
def test_the_retrieval_loss_is_finite_and_falls_for_every_kind_of_queue(backbones, processor, queue):
    model = built(backbones, LiraForRetrieval, queue=queue, queue_size=10)
    batches = [retrieval_batch(processor, rows) for rows in (range(4), range(4, 8), range(8, 12))]
    every = retrieval_batch(processor, range(12))
    before = model(**every).loss.item()
    assert torch.tensor(steps(model, batches, 1e-2, 30)).isfinite().all()
    assert model.eval()(**every).loss.item() < 0.9 * before
    assert (model.queue is None) == (queue == "none")
    if model.queue is not None:
        assert (model.queue.filled, model.queue.head) == (10, 120 % 10)


def test_the_retrieval_loss_is_the_weighted_sum_of_its_parts(backbones, processor):
    weights = {"hinge_weight": 0.3, "mean_variance_weight": 0.7, "consistency_weight": 1.9}
    model = stirred(built(backbones, LiraForRetrieval, **weights))
    output = model(**retrieval_batch(processor, range(4)), references=dict(processor(SENTENCES[:4], [[s] for s in SENTENCES[:4]])))
    assert set(output.losses) == {"ndcg", "hinge", "mean_variance", "consistency"} and all(loss > 0 for loss in output.losses.values())
    expected = output.losses["ndcg"] + sum(weight * output.losses[name.removesuffix("_weight")] for name, weight in weights.items())
    torch.testing.assert_close(output.loss.detach(), expected)


def test_a_perfect_ranking_has_almost_no_ndcg_loss_though_most_products_are_unjudged(backbones, processor):
    model = built(backbones, LiraForRetrieval, rank_temperature=1e-4, gate_temperature=1e-2)
    batch = retrieval_batch(processor, range(12))
    batch["products"] = {name: batch[name] for name in batch["products"]}  # each query finds itself
    assert model(**batch).losses["ndcg"].item() == pytest.approx(0, abs=1e-4)


def test_retrieval_trains_arca_and_lasr(backbones, processor):
    model = stirred(built(backbones, LiraForRetrieval)).train()
    batch = retrieval_batch(processor, range(6))
    model(**batch).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("lira.multilingual", "lira.english")) for name in trained)
    parts = tuple(f"lira.{part}." for part in ("arca.adaptor", "lasr.encoder", "lasr.correction", "lasr.language", "lasr.position"))
    assert {"lira.lasr.path_weight", *(name for name, _ in model.named_parameters() if name.startswith(parts))} <= trained


def test_without_products_or_without_return_loss_queries_are_only_embedded(backbones, processor):
    model = stirred(built(backbones, LiraForRetrieval, queue="embeddings")).train().eval()
    batch = retrieval_batch(processor, range(4))
    queries = {name: tensor for name, tensor in batch.items() if name in processor.model_input_names}
    full, bare, off = model(**batch), model(**queries), model(**batch, return_loss=False)
    assert full.loss is not None and bare.loss is None and off.loss is None
    assert torch.equal(full.embeddings, bare.embeddings) and torch.equal(full.embeddings, off.embeddings)


@pytest.mark.parametrize("relevances", [None, torch.zeros(3, 4)])
def test_grades_that_do_not_fit_the_queries_are_refused(backbones, processor, relevances):
    batch = retrieval_batch(processor, range(4)) | {"relevances": relevances}
    with pytest.raises(ValueError, match="^relevances: "):
        built(backbones, LiraForRetrieval)(**batch)


# ---- the queue -------------------------------------------------------------------------------------------------------------


def unjudged_too(processor, rows, others, **kwargs):
    """The batch of `rows` with the products of `others` in the step itself, unjudged."""
    batch, other = retrieval_batch(processor, rows, **kwargs), retrieval_batch(processor, others, **kwargs)
    both = retrieval_batch(processor, [*rows, *others], **kwargs)
    relevances = torch.cat([batch["relevances"], torch.full((len(rows), len(other["relevances"])), -1)], 1)
    return batch | {"products": both["products"], "relevances": relevances, "product_ids": both["product_ids"], "family_ids": both["family_ids"]}


def loss_and_gradient(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("queue, same_gradient", [("features", True), ("embeddings", False), ("ema", False)])
def test_queued_products_count_like_products_of_the_step_and_features_with_their_gradient_too(backbones, processor, queue, same_gradient):
    past, now = retrieval_batch(processor, range(4)), retrieval_batch(processor, range(4, 8))
    model = stirred(built(backbones, LiraForRetrieval, queue=queue, **CALM)).train()
    model(**past)
    loss, gradient = loss_and_gradient(model, now)
    large = stirred(built(backbones, LiraForRetrieval, **CALM)).train()
    expected_loss, expected_gradient = loss_and_gradient(large, unjudged_too(processor, range(4, 8), range(4)))
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    distance = (gradient - expected_gradient).norm() / expected_gradient.norm()
    assert distance < 1e-3 if same_gradient else distance > 1e-2
    alone, _ = loss_and_gradient(stirred(built(backbones, LiraForRetrieval, **CALM)).train(), now)
    assert abs(loss - alone) > 1e-3


@pytest.mark.parametrize("queue", ["embeddings", "features"])
def test_of_a_large_queue_each_query_meets_its_hardest_products_only(backbones, processor, queue):
    past, now = retrieval_batch(processor, range(8)), retrieval_batch(processor, [8])
    few = stirred(built(backbones, LiraForRetrieval, queue=queue, queue_hardest=3, **CALM)).train()
    with torch.no_grad():
        scores = few.lira(**{name: now[name] for name in processor.model_input_names}).embeddings @ few.lira(**past["products"]).embeddings.T
    hardest = scores[0].topk(3).indices
    few(**past)
    few.pop_measured()
    loss, gradient = loss_and_gradient(few, now)
    assert few.pop_measured()["negatives"] == 3
    alone = stirred(built(backbones, LiraForRetrieval, queue=queue, **CALM)).train()
    alone(**retrieval_batch(processor, hardest.tolist()))
    expected_loss, expected_gradient = loss_and_gradient(alone, now)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("queue", ["embeddings", "ema", "features"])
def test_the_health_of_the_queue_is_measured(backbones, processor, queue):
    model = stirred(built(backbones, LiraForRetrieval, queue=queue, queue_size=8, **CALM)).train()
    for rows in (range(4), range(4, 8), range(4)):
        model(**retrieval_batch(processor, rows))
    measured = model.pop_measured()
    assert measured["queue_filled"] == (4 + 8) / 2 and measured["queue_age"] == (1 + 1.5) / 2 and measured["queue_age_max"] == (1 + 2) / 2
    assert 0 <= measured["dropped_negatives"] <= 1 and 0 < measured["effective_negatives"] <= measured["negatives"]
    if queue == "features":
        assert "queue_drift" not in measured  # embedded anew, they never drift
    else:
        assert measured["queue_drift"] == pytest.approx(0, abs=1e-5)  # the weights have not moved
        stirred(model)(**retrieval_batch(processor, range(4)))
        assert model.pop_measured()["queue_drift"] > 1e-3


def test_grades_of_the_judged_products_stand_in_for_relevances(backbones, processor):
    model, batch = stirred(built(backbones, LiraForRetrieval)), retrieval_batch(processor, range(4))
    batch["judged_relevances"] = torch.tensor([[3, -1]] * 4)
    full = model(**batch).loss.item()
    grades = {name: value for name, value in batch.items() if name != "relevances"}
    assert model(**grades).loss.item() == full
    assert model(**batch | {"judged_relevances": None}).loss.item() == full
    batch["judged_relevances"] = torch.tensor([[1, -1]] * 4)  # what is known already stays
    assert model(**batch).loss.item() == full


@pytest.mark.parametrize("name", ["product", "family"])
def test_queued_products_that_share_a_judged_id_are_no_negatives(backbones, processor, name):
    past, now = retrieval_batch(processor, range(4)), retrieval_batch(processor, range(4, 8))
    judged = {"product": past["product_ids"], "family": past["family_ids"]}[name].expand(4, -1)
    losses = {}
    for kind, ids in (("unrelated", judged + 1000), ("judged", judged), ("empty queue", judged)):
        model = stirred(built(backbones, LiraForRetrieval, queue="embeddings", **CALM)).train()
        if kind != "empty queue":
            model(**past)
            model.pop_measured()
        own = torch.cat([now[f"{name}_ids"][:, None], torch.full((4, 1), -1)], 1)
        losses[kind] = model(**now | {f"judged_{name}_ids": torch.cat([own, ids], 1)}).loss.item()
        others = 3 if name == "product" else 2  # in the step; two of the four share a family
        assert model.pop_measured()["negatives"] == others + (4 if kind == "unrelated" else 0)
    assert losses["judged"] == pytest.approx(losses["empty queue"], abs=1e-6)
    assert abs(losses["unrelated"] - losses["empty queue"]) > 1e-3


def test_the_queue_is_filled_and_read_in_training_only(backbones, processor):
    model = stirred(built(backbones, LiraForRetrieval, queue="embeddings", **CALM))
    batch, other = retrieval_batch(processor, range(4)), retrieval_batch(processor, range(4, 8))
    expected = model(**other).loss.item()
    assert model.queue.filled == 0
    model.train()(**batch)
    assert model.queue.filled == 4
    assert model.eval()(**other).loss.item() == expected and model.queue.filled == 4


def test_the_queue_works_without_ids_and_without_languages(backbones, processor):
    model = built(backbones, LiraForRetrieval, queue="embeddings", **CALM).train()
    for rows in (range(4), range(4, 8)):
        batch = retrieval_batch(processor, rows, ids=False)
        del batch["language_ids"], batch["products"]["language_ids"]
        assert model(**batch).loss.isfinite()
    assert model.pop_measured()["negatives"] == (3 + 7) / 2


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_the_slow_copy_follows_the_weights_by_its_decay(backbones, processor, decay):
    model = built(backbones, LiraForRetrieval, queue="ema", ema_decay=decay, **CALM).train()
    batch = retrieval_batch(processor, range(4))
    model(**batch)
    old = {name: tensor.clone() for name, tensor in model.lira.lasr.state_dict().items()}
    new = stirred(model).lira.lasr.state_dict()
    model(**batch)
    state = model.queue_state()
    for name in old:
        torch.testing.assert_close(state[f"slow.1.{name}"], decay * old[name] + (1 - decay) * new[name], atol=1e-6, rtol=0)
    first, second = state["queue.embedding"][:4], state["queue.embedding"][4:8]
    if decay == 1:
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    if decay == 0:
        torch.testing.assert_close(second, model.lira(**batch["products"]).embeddings.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("queue", ["embeddings", "ema", "features"])
def test_a_restored_queue_gives_the_same_next_losses(backbones, processor, tmp_path, queue):
    batches = [retrieval_batch(processor, rows) for rows in (range(4), range(4, 8), range(8, 12))]
    model = built(backbones, LiraForRetrieval, queue=queue, queue_size=6, ema_decay=0.5, hinge_margin=1.0, **CALM)
    steps(model, batches, 1e-2, 4)
    model.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in model.queue_state().items()}
    again, forgetful = (LiraForRetrieval.from_pretrained(tmp_path).train() for _ in range(2))
    again.load_queue_state(state)
    for number, batch in enumerate(batches):
        expected = model(**batch).loss.item()
        assert again(**batch).loss.item() == pytest.approx(expected, abs=1e-6)
        assert number > 0 or abs(forgetful(**batch).loss.item() - expected) > 1e-4


def test_a_queue_of_another_size_is_refused(backbones, processor):
    model = built(backbones, LiraForRetrieval, queue="embeddings", queue_size=6).train()
    model(**retrieval_batch(processor, range(4)))
    with pytest.raises(ValueError, match="queue_size: 7, .* 6 entries"):
        built(backbones, LiraForRetrieval, queue="embeddings", queue_size=7).load_queue_state(model.queue_state())


@pytest.mark.parametrize("queue", ["embeddings", "ema", "features"])
def test_a_published_model_holds_nothing_of_the_queue(backbones, processor, tmp_path, queue):
    model = built(backbones, LiraForRetrieval, queue=queue, queue_size=16)
    model.save_pretrained(tmp_path / "before")
    model.train()(**retrieval_batch(processor, range(4)))
    model.save_pretrained(tmp_path / "after")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "after"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert len(list((tmp_path / "before").iterdir())) == len(list((tmp_path / "after").iterdir()))


@pytest.mark.parametrize("queue", ["embeddings", "ema", "features"])
def test_mixed_precision_leaves_loss_and_queue_nearly_as_they_are(backbones, processor, queue):
    losses = {}
    for precise in (True, False):
        model = stirred(built(backbones, LiraForRetrieval, queue=queue, embedding_dim=20, **CALM)).train()
        for rows in (range(4), range(4, 8)):
            with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
                loss = model(**retrieval_batch(processor, rows)).loss
            loss.backward()
        losses[precise] = loss.item()
    assert losses[False] == pytest.approx(losses[True], abs=0.1)


# ---- languages, consistency --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True])
def test_unjudged_products_of_another_language_are_no_negatives_unless_asked_for(backbones, processor, allowed):
    model = stirred(built(backbones, LiraForRetrieval, queue="embeddings", cross_language_negatives=allowed, **CALM)).train()
    model(**retrieval_batch(processor, range(4), language="vi"))
    model.pop_measured()
    batch = retrieval_batch(processor, range(4, 8))
    batch["products"]["language_ids"] = torch.tensor([2, 2, 1, 1])  # two of the query's language, th
    batch["relevances"][0, 3] = 0  # judged, in another language: a negative in any case
    model(**batch)
    # of the three other products of each of the four queries, those in the query's language count, and the judged one
    expected = 3 + 4 if allowed else (2 + 1 + 2 + 2) / 4
    assert model.pop_measured()["negatives"] == pytest.approx(expected)


def test_consistency_is_one_minus_the_cosine_to_the_perfect_translation_where_there_is_one(backbones, processor):
    model = stirred(built(backbones, LiraForRetrieval))
    perfect = SENTENCES[:4]
    references = dict(processor(perfect, [[text] for text in perfect], language="en"))
    reference = model.lira(**references).embeddings
    references["multilingual_attention_mask"][1:3] = 0  # two rows have none
    references["candidate_mask"][1:3] = False
    output = model(**retrieval_batch(processor, range(4)), references=references)
    cosines = (output.embeddings * reference).sum(-1)[[0, 3]]
    assert output.losses["consistency"].item() == pytest.approx(1 - cosines.mean().item(), abs=1e-5)
    references["multilingual_attention_mask"][:] = 0
    assert model(**retrieval_batch(processor, range(4)), references=references).losses["consistency"] == 0
    assert "consistency" not in model(**retrieval_batch(processor, range(4))).losses


def test_products_have_a_consistency_term_of_their_own(backbones, processor):
    model, batch = stirred(built(backbones, LiraForRetrieval)), retrieval_batch(processor, range(4))
    perfect = [dict(processor(texts, [[text] for text in texts], language="en")) for texts in (SENTENCES[:4], SENTENCES[2:6])]
    queries, products = ({name: part} for name, part in zip(("references", "product_references"), perfect, strict=True))
    alone = [model(**batch, **given).losses["consistency"].item() for given in (queries, products)]
    cosines = (model.lira(**batch["products"]).embeddings * model.lira(**perfect[1]).embeddings).sum(-1)
    assert alone[1] == pytest.approx(1 - cosines.mean().item(), abs=1e-5)
    assert model(**batch, **queries, **products).losses["consistency"].item() == pytest.approx(sum(alone) / 2, abs=1e-6)


def test_perfect_translations_are_read_without_the_noise_of_training(backbones, processor):
    model = stirred(built(backbones, LiraForRetrieval, dropout=0.0, path_dropout=0.5))
    batch = retrieval_batch(processor, range(4))
    batch |= dict(processor(TEXTS[:4], language="th"))  # queries with one path, which is never dropped
    references = dict(processor(SENTENCES[:4], [[text] for text in SENTENCES[:4]], language="en"))
    expected = model(**batch, references=references).losses["consistency"].item()
    model.train()
    for _ in range(5):
        assert model(**batch, references=references).losses["consistency"].item() == pytest.approx(expected, abs=1e-6)
        assert model.lira.lasr.training and model.lira.lasr.encoder.training


def test_consistency_pulls_the_query_and_never_its_reference(backbones, processor):
    fields = {**CALM, "hinge_weight": 0.0, "consistency_weight": 1.0}
    batch = retrieval_batch(processor, range(3))
    batch["relevances"] = torch.full((3, 3), -1)  # no ranking loss at all
    perfect = dict(processor(SENTENCES[:3], [[text] for text in SENTENCES[:3]], language="bn"))  # the only rows in Bengali
    model = stirred(built(backbones, LiraForRetrieval, **fields)).train()
    model(**batch, references=perfect).loss.backward()
    gradient = model.lira.lasr.language.weight.grad.abs().sum(-1)
    assert gradient[2] > 0 and gradient[6] == 0  # Thai, Bengali


# ---- the plain Trainer -----------------------------------------------------------------------------------------------------


def train(model, processor, folder, collate):
    """Four steps of transformers' own Trainer with an evaluation and a checkpoint half way; weights before and the log."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arguments = TrainingArguments(
        str(folder), max_steps=4, per_device_train_batch_size=4, per_device_eval_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to="none",
        remove_unused_columns=False, save_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=2, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, collate, train_dataset=list(range(12)), eval_dataset=list(range(4)), processing_class=processor)
    trainer.train()
    return before, trainer.state.log_history


def moved(model, before):
    return {name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_the_plain_trainer_trains_stage_1(backbones, processor, tmp_path):
    model = built(backbones, LiraForPreTraining)
    collate = lambda rows: dict(processor(*([part[i] for i in rows] for part in (TEXTS, CANDIDATES, SCORES, LANGUAGES))))  # noqa: E731
    before, log = train(model, processor, tmp_path, collate)
    assert moved(model, before) == {"arca"}
    assert sum("loss" in entry for entry in log) == 4 and sum(entry.get("eval_loss", -9) > -9 for entry in log) == 2
    config = json.loads((tmp_path / "checkpoint-2" / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    assert LiraForRetrieval.from_pretrained(tmp_path / "checkpoint-4").lira.arca.actor.unscored.shape == (3,)


def test_the_plain_trainer_trains_stage_2(backbones, processor, tmp_path):
    model = built(backbones, LiraForRetrieval, queue="features", queue_size=8)
    before, log = train(model, processor, tmp_path, lambda rows: retrieval_batch(processor, rows))
    assert moved(model, before) == {"arca", "lasr"}
    assert sum("loss" in entry for entry in log) == 4 and sum("eval_loss" in entry for entry in log) == 2
    assert model.queue.filled == 8
    config = json.loads((tmp_path / "checkpoint-2" / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    again = LiraForRetrieval.from_pretrained(tmp_path / "checkpoint-4")
    torch.testing.assert_close(again.encode(TEXTS, processor=processor), model.encode(TEXTS, processor=processor))
