"""LiraForSequenceClassification: texts and pairs, classes, labels and scores; the queue; the plain Trainer; the processor's pairs."""

import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small_backbones import SENTENCES, SMALL, stirred
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from lira_hf import LiraForPreTraining, LiraForSequenceClassification
from lira_hf.modeling.objectives_lira import correlation_loss, least_squares_line

TEXTS, OTHERS = SENTENCES[6:12], SENTENCES[12:]
CANDIDATES = [["tv 55 inch black", "black tv"], ["red cotton dress"], ["black t-shirt"], ["rice cooker 1.8 l"], ["blue shoes"], []]
OTHER_CANDIDATES = [["red cotton clothes"], ["rice cooker", "cook"], [], ["blue shoe"], ["red dress for women", "dress"], ["blue shoes"]]
SCORES = [[(9, 9, 9)] * len(row) for row in CANDIDATES]
GOLD = torch.tensor([0.0, 1.5, 5.0, 2.0, 4.0, 3.0])
STILL = {"dropout": 0.0, "path_dropout": 0.0}


def built(backbones, **fields):
    torch.manual_seed(0)
    return LiraForSequenceClassification.from_backbones(backbones["xlm-r"], backbones["bert"], **{**SMALL, "num_labels": 1, **fields})


def livened(model):
    """A head past its start: every weight of it counts."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.comparison.correction.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return stirred(model)


@pytest.fixture(scope="module")
def pairs(processor):
    return dict(
        processor(
            TEXTS,
            CANDIDATES,
            SCORES,
            "th",
            text_pair=OTHERS,
            pair_translations=OTHER_CANDIDATES,
            pair_language=["ur", "ur", "bn", "bn", "fil", "fil"],
        )
    )


@pytest.fixture(scope="module")
def singles(processor):
    return dict(processor(TEXTS, CANDIDATES, SCORES, "th"))


def steps(model, batch, count, rate=3e-3):
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], rate)
    losses = []
    for _ in range(count):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- the start -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regression", ["correlation", "mse"])
def test_a_pairs_first_prediction_is_the_cosine_of_the_frozen_concatenation(backbones, pairs, regression):
    model = built(backbones, regression=regression).eval()
    second = {name.removeprefix("pair_"): tensor for name, tensor in pairs.items() if name.startswith("pair_")}
    first = {name: tensor for name, tensor in pairs.items() if not name.startswith("pair_")}
    with torch.no_grad():
        output = model(**pairs)
        one, other = model.lira(**first).embeddings, model.lira(**second).embeddings
    torch.testing.assert_close(output.logits[:, 0], F.cosine_similarity(one, other, dim=-1))
    assert torch.equal(output.embeddings, one) and output.loss is None


@pytest.mark.parametrize("labels, fields, expected", [
    (torch.tensor([0, 2, 1, 0, 2, 1]), {"num_labels": 3}, torch.log(torch.tensor(3.0))),
    (torch.ones(6, 3), {"num_labels": 3}, torch.log(torch.tensor(2.0))),
    (torch.zeros(6, 3).long(), {"num_labels": 3, "problem_type": "multi_label_classification"}, torch.log(torch.tensor(2.0))),
])  # fmt: skip
def test_classes_start_equally_likely(backbones, pairs, singles, labels, fields, expected):
    for batch in (pairs, singles):
        torch.testing.assert_close(built(backbones, **fields)(**batch, labels=labels).loss.detach(), expected)


# ---- the kinds of problem ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels, num_labels, problem", [
    (torch.arange(6) % 3, 3, "single_label_classification"), (torch.eye(6)[:, :4], 4, "multi_label_classification"),
    (GOLD, 1, "regression"), (torch.arange(6), 1, "regression"),
])  # fmt: skip
def test_the_problem_is_inferred_as_in_transformers_and_kept(backbones, singles, tmp_path, labels, num_labels, problem):
    model = built(backbones, num_labels=num_labels)
    output = model(**singles, labels=labels)
    assert model.config.problem_type == problem and list(output.losses) == [problem] and output.logits.shape == (6, num_labels)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is LiraForSequenceClassification and again.config.problem_type == problem and again.config.num_labels == num_labels


def test_losses_are_those_of_their_definitions(backbones, pairs):
    classes, several = torch.tensor([0, 2, 1, 0, -100, 1]), torch.eye(6)[:, :3]
    model = livened(built(backbones, num_labels=3)).eval()
    output = model(**pairs, labels=classes)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, classes))
    model.config.problem_type = None
    torch.testing.assert_close(model(**pairs, labels=several).loss, F.binary_cross_entropy_with_logits(output.logits, several))
    model = livened(built(backbones, regression="mse", num_labels=3, problem_type="regression")).eval()
    output = model(**pairs, labels=several)
    torch.testing.assert_close(output.loss, (output.logits - several).square().mean())
    model = livened(built(backbones, pearson_weight=0.3, spearman_temperature=0.4)).eval()
    output = model(**pairs, labels=GOLD)
    torch.testing.assert_close(output.loss, correlation_loss(output.logits[:, 0], GOLD, 0.3, 0.4))


@pytest.mark.parametrize("fields, labels", [
    ({}, GOLD), ({"corr_queue_size": 4}, GOLD), ({"regression": "mse"}, GOLD), ({"num_labels": 3}, torch.arange(6) % 3),
    ({"num_labels": 2}, torch.eye(2).repeat(3, 1)),
], ids=["correlation", "queue", "mse", "classes", "several labels"])  # fmt: skip
@pytest.mark.parametrize("kind", ["pairs", "singles"])
def test_every_loss_falls_for_texts_and_pairs_and_backbones_stay(backbones, request, fields, labels, kind):
    model, batch = built(backbones, **STILL, **fields), {**request.getfixturevalue(kind), "labels": labels}
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(("lira.multilingual", "lira.english"))}
    losses = steps(model, batch, 20, rate=5e-3)
    assert torch.tensor(losses).isfinite().all() and min(losses[-3:]) < 0.7 * losses[0]
    assert frozen and all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in frozen.items())


def test_both_sides_count_and_so_does_their_order(backbones, pairs, processor):
    model = livened(built(backbones)).eval()
    swapped = {(name.removeprefix("pair_") if name.startswith("pair_") else f"pair_{name}"): tensor for name, tensor in pairs.items()}
    other = {**pairs, **{name: tensor.roll(1, 0) for name, tensor in pairs.items() if name.startswith("pair_")}}
    logits = model(**pairs).logits
    assert (logits - model(**swapped).logits).abs().max() > 1e-3 and (logits - model(**other).logits).abs().max() > 1e-3


def test_cached_features_of_both_sides_give_the_same_logits(backbones, pairs):
    model = livened(built(backbones)).eval()
    first = model.lira.encode_features({name: tensor for name, tensor in pairs.items() if not name.startswith("pair_")})
    second = model.lira.encode_features({name.removeprefix("pair_"): tensor for name, tensor in pairs.items() if name.startswith("pair_")})
    features = {**first, **{f"pair_{name}": tensor for name, tensor in second.items()}}
    torch.testing.assert_close(model(**features).logits, model(**pairs).logits)


# ---- scale ---------------------------------------------------------------------------------------------------------------------


def test_a_correlating_model_answers_on_the_labels_scale_after_saving_too(backbones, pairs, tmp_path):
    model = built(backbones, **STILL)
    steps(model, {**pairs, "labels": GOLD}, 15, rate=1e-2)
    raw = model(**pairs, labels=GOLD).logits[:, 0].detach()  # in training mode: predictions, to which the line was just fitted
    logits = model.eval()(**pairs).logits[:, 0].detach()
    slope, intercept = least_squares_line(raw, GOLD)
    torch.testing.assert_close(logits, slope * raw + intercept)
    assert (logits - GOLD).square().mean() < 0.2 * GOLD.var(unbiased=False)
    model.save_pretrained(tmp_path)
    assert "comparison.line" in load_file(tmp_path / "model.safetensors")
    assert torch.equal(LiraForSequenceClassification.from_pretrained(tmp_path)(**pairs).logits[:, 0], logits)


def test_squared_error_starts_on_the_labels_scale_and_learns_it_from_there(backbones, pairs):
    model = built(backbones, regression="mse", **STILL).train()
    loss = model(**pairs, labels=100 + 50 * GOLD).loss.item()
    assert loss < 1.01 * (50 * GOLD).var(unbiased=False)  # hardly worse than the mean of the labels; unscaled it is five times that
    line = model.comparison.line.clone()
    steps(model, {**pairs, "labels": 100 + 50 * GOLD}, 5)
    assert torch.equal(model.comparison.line, line) and not torch.equal(model.comparison.affine.detach(), torch.tensor([1.0, 0.0]))


def test_evaluation_neither_fits_the_line_nor_fills_the_queue(backbones, pairs):
    model = livened(built(backbones, corr_queue_size=8)).eval()
    model(**pairs, labels=GOLD)
    assert model.comparison.line.tolist() == [1, 0] and model.queue.filled == 0 and model.pop_measured() == {}


# ---- the queue -------------------------------------------------------------------------------------------------------------------


def rows_of(batch, rows):
    return {name: tensor[rows] for name, tensor in batch.items()}


def test_the_loss_is_that_of_the_batch_and_the_queue_together(backbones, pairs):
    model = livened(built(backbones, corr_queue_size=4, **STILL)).train()
    every = {**pairs, "labels": GOLD}
    past = model(**rows_of(every, slice(0, 4))).logits[:, 0].detach()
    output = model(**rows_of(every, slice(4, 6)))
    both = torch.cat([output.logits[:, 0], past])
    expected = correlation_loss(both, GOLD[[4, 5, 0, 1, 2, 3]], 0.5, 0.1)
    torch.testing.assert_close(output.loss, expected)
    ours, theirs = (torch.autograd.grad(loss, model.lira.lasr.path_weight, retain_graph=True)[0] for loss in (output.loss, expected))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(model.comparison.line, least_squares_line(both.detach(), GOLD[[4, 5, 0, 1, 2, 3]]))
    held = model.queue.contents()["label"].tolist()
    assert sorted(held) == sorted(GOLD[2:].tolist())  # the oldest two made place
    measured = model.pop_measured()
    assert measured["queue_filled"] == 4 and measured["queue_age"] == measured["queue_age_max"] == 1 and -1 <= measured["pearson"] <= 1


def test_the_queue_goes_with_a_checkpoint_and_not_with_the_model(backbones, pairs):
    model, other = (built(backbones, corr_queue_size=8, **STILL).train() for _ in range(2))
    model(**pairs, labels=GOLD)
    other.load_queue_state({name: tensor.clone() for name, tensor in model.queue_state().items()})
    assert torch.equal(other.queue.contents()["prediction"], model.queue.contents()["prediction"])
    assert torch.equal(model(**pairs, labels=GOLD).loss, other(**pairs, labels=GOLD).loss)
    assert not any("queue" in name for name in model.state_dict()) and built(backbones).queue_state() == {}


# ---- bad input -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels, fields, message", [
    (torch.tensor([0, 1, 2, 3, 0, 0]), {"num_labels": 3}, "labels: 3 is not allowed; whole numbers from 0 to 2"),
    (torch.tensor([0, 1]), {"num_labels": 3}, "labels: (2,) is not allowed; single_label_classification needs (6,)"),
    (torch.zeros(6, 2), {"num_labels": 3}, "labels: (6, 2) is not allowed; multi_label_classification needs (6, 3)"),
    (torch.zeros(6, 2), {}, "labels: (6, 2) is not allowed; regression needs (6,)"),
    (torch.zeros(6), {"num_labels": 3, "problem_type": "single_label_classification"}, "labels: 0.0 is not allowed; whole numbers"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(backbones, singles, labels, fields, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        built(backbones, **fields)(**singles, labels=labels)


def test_fields_that_do_not_fit_are_refused(backbones, pairs):
    for fields, message in (
        ({"regression": "rank"}, "regression: 'rank'"), ({"pearson_weight": 1.5}, "pearson_weight: 1.5"), ({"corr_queue_size": -1}, "corr_queue_size: -1"),
        ({"spearman_temperature": 0}, "spearman_temperature: 0"), ({"num_labels": 2, "problem_type": "regression"}, "num_labels: 2 .*'mse' any number"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="^" + message):
            built(backbones, **fields)
    with pytest.raises(ValueError, match="^pair_.*: 2 second texts for 6 first ones"):
        built(backbones)(**{name: tensor[:2] if name.startswith("pair_") else tensor for name, tensor in pairs.items()})
    with pytest.raises(ValueError, match="^colour: no input"):
        built(backbones)(**pairs, pair_colour=GOLD)


# ---- around it -------------------------------------------------------------------------------------------------------------------


def test_a_stage_1_folder_opens_with_its_weights_and_a_new_head(backbones, tmp_path):
    torch.manual_seed(0)
    stage_1 = stirred(LiraForPreTraining.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL))
    stage_1.save_pretrained(tmp_path)
    model, report = LiraForSequenceClassification.from_pretrained(tmp_path, num_labels=1, output_loading_info=True)
    assert all(name.startswith("comparison.") for name in report["missing_keys"]) and not report["unexpected_keys"]
    assert all(torch.equal(tensor, model.lira.state_dict()[name]) for name, tensor in stage_1.lira.state_dict().items())
    last = model.comparison.correction[-1]
    assert model.comparison.line.tolist() == [1, 0] and not last.weight.any() and not last.bias.any()


def test_half_precision_backbones_leave_the_head_in_full(backbones, pairs, tmp_path):
    model = livened(built(backbones, dtype=torch.bfloat16))
    model.save_pretrained(tmp_path)
    again = LiraForSequenceClassification.from_pretrained(tmp_path)
    assert {p.dtype for p in again.comparison.parameters()} == {torch.float32} and again.lira.english.dtype == torch.bfloat16
    torch.testing.assert_close(again(**pairs).logits, model(**pairs).logits)


def test_predict_gives_the_logits_in_input_order_whatever_the_batches(backbones, processor, pairs, singles):
    model = livened(built(backbones, num_labels=2)).train()
    sides = {"translations": CANDIDATES, "scores": SCORES, "language": "th", "processor": processor}
    other = {"pair_translations": OTHER_CANDIDATES, "pair_language": ["ur", "ur", "bn", "bn", "fil", "fil"]}
    for batch_size in (1, 4, 64):
        found = model.predict(TEXTS, OTHERS, **sides, **other, batch_size=batch_size)
        torch.testing.assert_close(found, model.eval()(**pairs).logits.detach(), atol=1e-5, rtol=1e-5)
        single = model.predict(TEXTS, **sides, batch_size=batch_size)
        torch.testing.assert_close(single, model(**singles).logits.detach(), atol=1e-5, rtol=1e-5)
        assert found.dtype == torch.float32 and not model.train().eval().training
    model.train().predict(TEXTS, processor=processor)
    assert model.training
    with pytest.raises(ValueError, match="^batch_size: 0"):
        model.predict(TEXTS, processor=processor, batch_size=0)


def test_the_plain_trainer_trains_a_classifier_and_evaluates_its_logits(backbones, processor, tmp_path):
    def collate(rows):
        texts, labels = zip(*rows, strict=True)
        return {**processor(list(texts), language="th"), "labels": torch.tensor(labels)}

    rows = [(text, number % 2) for number, text in enumerate(TEXTS)]
    args = TrainingArguments(str(tmp_path), max_steps=30, learning_rate=5e-3, per_device_train_batch_size=6, report_to="none", disable_tqdm=True,
                             remove_unused_columns=False, save_strategy="no", use_cpu=True, logging_strategy="no")  # fmt: skip
    model = built(backbones, num_labels=2, id2label={0: "even", 1: "odd"}, label2id={"even": 0, "odd": 1})
    accuracy = lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}  # noqa: E731
    trainer = Trainer(model, args, data_collator=collate, train_dataset=rows, eval_dataset=rows, compute_metrics=accuracy)
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    assert [model.config.id2label[int(i)] for i in model.predict([TEXTS[0], TEXTS[1]], processor=processor, language="th").argmax(-1)] == [
        "even",
        "odd",
    ]


# ---- the processor's pairs ---------------------------------------------------------------------------------------------------------


def test_a_pairs_second_text_has_the_keys_of_a_first_one(processor):
    batch = processor(TEXTS, CANDIDATES, SCORES, "th", text_pair=OTHERS, pair_translations=OTHER_CANDIDATES, pair_language="ur")
    alone = processor(OTHERS, OTHER_CANDIDATES, language="ur")
    assert set(batch) == {*alone, *(f"pair_{name}" for name in alone)}
    assert all(torch.equal(batch[f"pair_{name}"].nan_to_num(-1), tensor.nan_to_num(-1)) for name, tensor in alone.items())


def test_language_and_prompt_of_a_second_text_default_to_the_firsts(processor):
    batch = processor(TEXTS[:2], language=["th", "vi"], text_pair=OTHERS[:2])
    assert torch.equal(batch["pair_language_ids"], batch["language_ids"]) and batch["language_ids"].unique().numel() == 2
    processor.prompts["query"] = {"multilingual": "query: ", "english": "query: "}
    try:
        plain, asked = processor("a", text_pair="a"), processor("a", text_pair="a", prompt_name="query")
        mixed = processor("a", text_pair="a", prompt_name="query", pair_prompt_name="document")
    finally:
        processor.prompts["query"] = {"multilingual": "", "english": ""}
    assert torch.equal(asked["pair_multilingual_input_ids"], asked["multilingual_input_ids"])
    assert torch.equal(mixed["pair_multilingual_input_ids"], plain["multilingual_input_ids"])
    assert mixed["multilingual_input_ids"].shape != plain["multilingual_input_ids"].shape


@pytest.mark.parametrize("arguments, message", [
    ({"text_pair": ["a", None]}, "text_pair[1]: None"), ({"text_pair": ["a"]}, "text_pair: 1 second texts for 2 first ones"),
    ({"text_pair": ["a", "b"], "pair_translations": ["x"]}, "pair_translations: 1 entries for 2 texts"),
    ({"text_pair": ["a", "b"], "pair_translations": [["x"], [2]]}, "pair_translations[1][0]: 2"),
    ({"text_pair": ["a", "b"], "pair_translations": [["x"], []], "pair_scores": [[(1, 2, 30)], None]}, "pair_scores[0][0]: (1, 2, 30)"),
    ({"text_pair": ["a", "b"], "pair_language": ["th"]}, "pair_language: ['th']"), ({"pair_language": "th"}, "pair_language: given, but"),
    ({"pair_scores": [None, None]}, "pair_scores: given, but"), ({"text_pair": ["a", "b"], "pair_prompt_name": "quary"}, "pair_prompt_name: 'quary'"),
    ({"pair_translations": [["x"], []]}, "pair_translations[1]: empty"),
])  # fmt: skip
def test_bad_pairs_are_refused_with_the_arguments_own_name(processor, arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        processor(["a", "b"], **arguments)
