"""LiraModel: what the embedding depends on and what it does not, missing paths, frozen backbones, building and configuring."""

import itertools
import json
import re

import pytest
import torch
import torch.nn.functional as F
from small_backbones import KINDS, SENTENCES, SMALL, stirred, train_tokenizer
from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer, BartConfig, M2M100Config, MarianConfig, Trainer, TrainingArguments

from lira_hf import LiraConfig, LiraForPreTraining, LiraForRetrieval, LiraModel, LiraProcessor

PAIRS = [("xlm-r", "bert"), ("bert", "t5"), ("t5", "qwen3"), ("qwen3", "xlm-r")]

# text, translations, scores, language: a bit of everything, lengths far apart
ROWS = [
    (SENTENCES[6], ["tv 55 inch black", "tv", "black television of 55 inches with a long name"], [(9, 8, 7), (2, 3, 2), (5, 9, 9)], "th"),
    (SENTENCES[8], ["black t-shirt for men"], [None], "vi"),
    (SENTENCES[10] + " " + SENTENCES[11] + " " + SENTENCES[16], ["shoes", "blue shoes size 42"], [None, (7, 7, 7)], "id"),
    (SENTENCES[12], [], [], "ur"),
    ("rice cooker", [], [], "en"),
    (None, ["red dress", "dress red cotton"], [(4, 4, 4), (8, 8, 8)], "bn"),
    (SENTENCES[14], ["a red cotton shirt", "cotton"], [(3, 3, 3), (6, 6, 6)], "tlh"),
]  # fmt: skip


def batch_of(processor, rows):
    return processor.batch([row for text, *rest in rows for row in processor.check([text] if text else None, *([part] for part in rest))])


def built(backbones, pair=("xlm-r", "bert"), cls=LiraForRetrieval, **fields):
    torch.manual_seed(0)
    return cls.from_backbones(backbones[pair[0]], backbones[pair[1]], **{**SMALL, **fields})


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


@pytest.fixture(scope="module", params=PAIRS, ids="+".join)
def couple(request, backbones):
    """A stirred model and its processor, of each pair of backbones."""
    pair = request.param
    return stirred(built(backbones, pair)), LiraProcessor.from_backbones(backbones[pair[0]], backbones[pair[1]])


# ---- what does not matter ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(couple):
    model, processor = couple
    alone = torch.cat([model(**batch_of(processor, [row])).embeddings for row in ROWS])
    assert (alone @ alone.T - torch.eye(len(ROWS))).abs().max() > 0.01  # the rows do differ
    for size in range(1, 8):
        batches = [ROWS[start : start + size] for start in range(0, len(ROWS), size)]
        close(torch.cat([model(**batch_of(processor, rows)).embeddings for rows in batches]), alone)
    close(model(**batch_of(processor, ROWS[::-1])).embeddings.flip(0), alone)


@torch.no_grad()
def test_an_embedding_does_not_depend_on_padding_tokens_and_padding_candidates(couple):
    model, processor = couple
    batch = batch_of(processor, ROWS)
    expected = model(**batch).embeddings
    for path, tokenizer in (("multilingual", processor.tokenizer), ("english", processor.english_tokenizer)):
        batch[f"{path}_input_ids"] = F.pad(batch[f"{path}_input_ids"], (0, 9), value=tokenizer.pad_token_id)
        batch[f"{path}_attention_mask"] = F.pad(batch[f"{path}_attention_mask"], (0, 9))
    close(model(**batch).embeddings, expected)
    for name, value in (("english_input_ids", 3), ("english_attention_mask", 1), ("candidate_mask", False), ("translation_scores", 10.0)):
        absent = torch.full_like(batch[name][:, :2], value)
        batch[name] = torch.cat([absent, batch[name], absent], 1)
    assert batch["candidate_mask"].shape == batch["english_input_ids"].shape[:2] == batch["translation_scores"].shape[:2] == (7, 7)
    close(model(**batch).embeddings, expected)


def permuted(row, order):
    text, candidates, scores, language = row
    return text, [candidates[k] for k in order], [scores[k] for k in order], language


@torch.no_grad()
def assert_order_does_not_matter(model, processor, row):
    orders = [permuted(row, order) for order in itertools.permutations(range(len(row[1])))]
    output = model(**batch_of(processor, orders))
    assert len({each[1][choice] for each, choice in zip(orders, output.choice.tolist(), strict=True)}) == 1
    close(output.embeddings, output.embeddings[:1].expand(len(orders), -1))


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2], ROWS[5]], ids=["three scored", "partly scored", "without a text"])
@pytest.mark.parametrize("trained", [False, True])
def test_the_order_of_scored_candidates_does_not_matter(backbones, processor, trained, row):
    model = built(backbones)
    assert_order_does_not_matter(stirred(model) if trained else model, processor, row)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("state", ["fresh", "stirred", "critic"])
def test_the_order_of_candidates_that_tie_by_score_does_not_matter(backbones, processor, state, count):
    model = built(backbones, selection="critic" if state == "critic" else "actor")
    model = stirred(model) if state == "stirred" else model
    for triple in (None, (9, 9, 9)):
        for start in range(4):
            assert_order_does_not_matter(model, processor, (SENTENCES[6], SENTENCES[start : start + count], [triple] * count, "th"))


def test_the_choice_among_candidates_that_tie_does_not_depend_on_the_batch(backbones, processor):
    model = built(backbones)
    rows = [(SENTENCES[6], list(pair), [None, None], "th") for pair in itertools.combinations(SENTENCES[:6], 2)]
    alone = [int(model(**batch_of(processor, [row])).choice) for row in rows]
    assert model(**batch_of(processor, [*rows, ROWS[0], ROWS[2]])).choice[:-2].tolist() == alone
    assert len(set(alone)) == 2


# ---- what does matter --------------------------------------------------------------------------------------------------


def own_vector(folder, texts, pooling):
    """A backbone's own normalised sentence vectors, straight from transformers, one text at a time."""
    loader = AutoModelForTextEncoding if "t5" in folder else AutoModel
    model, tokenizer = loader.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append({"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling])
    return F.normalize(torch.stack(vectors), dim=-1)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
@pytest.mark.parametrize("selection, read", [("actor", 1), ("critic", 1), ("first", 0)])
def test_at_step_0_the_embedding_is_the_frozen_concatenation_with_the_critics_best(backbones, pair, selection, read):
    model, processor = built(backbones, pair, selection=selection), LiraProcessor.from_backbones(backbones[pair[0]], backbones[pair[1]])
    rows = [
        (SENTENCES[6], ["tv", "tv 55 inch black"], [(5, 5, 5), (6, 5, 5)], "th"),
        (SENTENCES[9], ["rice cooker", "cooker 1.8 l", "l"], [None, (9, 9, 9), (3, 3, 3)], "vi"),
    ]
    poolings = ["last" if kind == "qwen3" else "mean" for kind in pair]
    assert [model.config.multilingual_pooling, model.config.english_pooling] == poolings
    g = own_vector(backbones[pair[0]], [row[0] for row in rows], poolings[0])
    h = own_vector(backbones[pair[1]], [row[1][read] for row in rows], poolings[1])
    output = model(**batch_of(processor, rows))
    assert output.choice.tolist() == [read, read]
    close(output.embeddings, F.normalize(torch.cat([g, h], -1), dim=-1))


def test_after_training_the_correction_shows_and_correction_scale_shrinks_it(backbones, processor):
    batch, fresh = batch_of(processor, ROWS), built(backbones)(**batch_of(processor, ROWS)).embeddings
    model = stirred(built(backbones))
    assert (model(**batch).embeddings - fresh).norm(dim=-1).min() > 0.1
    distances = []
    for scale in (0.0, 0.25, 1.0):
        model.config.correction_scale = scale
        output, features, lasr = model(**batch), model.lira.encode_features(dict(batch)), model.lira.lasr
        g, h = features["multilingual_pooled"], features["english_pooled"][torch.arange(len(ROWS)), output.choice]
        here, there = features["text_mask"][:, None], features["candidate_mask"].any(-1, keepdim=True)
        base = torch.where(here, lasr.path_weight[0] * g, lasr.absent_multilingual), torch.where(there, lasr.path_weight[1] * h, lasr.absent_english)
        distances.append((output.embeddings - F.normalize(torch.cat(base, -1), dim=-1)).norm(dim=-1).mean().item())
    assert distances[0] < 1e-5 < distances[1] < distances[2]


@pytest.mark.parametrize("fields", [{}, {"fusion": "pooled"}, {"num_bins": 1}, {"fusion_layers": 3}, {"embedding_dim": 11}], ids=str)
def test_text_candidate_and_language_all_show_in_a_trained_embedding(backbones, processor, fields):
    model = stirred(built(backbones, **fields))
    row = ("TV 55", ["a tv"], [(9, 9, 9)], "th")
    changed = [("TV 56", *row[1:]), ("TV 55", ["a tvs"], *row[2:])] + ([] if "fusion" in fields else [(*row[:3], "vi")])
    output = model(**batch_of(processor, [row, *changed])).embeddings
    assert output.shape == (1 + len(changed), model.config.hidden_size)
    assert ((output[1:] - output[0]).norm(dim=-1) > 1e-3).all()
    close(output.norm(dim=-1), torch.ones(len(output)))


def test_the_place_of_a_word_shows_in_a_trained_embedding_of_the_same_sentence_vector(model):
    torch.manual_seed(0)
    features = {"multilingual_features": torch.randn(1, 4, 32), "multilingual_pooled": F.normalize(torch.randn(1, 32), dim=-1)}
    turned = features | {"multilingual_features": features["multilingual_features"].flip(1)}
    assert (model(**features).embeddings - model(**turned).embeddings).norm() > 1e-2


# ---- what may be missing -----------------------------------------------------------------------------------------------


def test_the_actor_takes_scores_into_account_and_unscored_candidates_are_legal(backbones, processor):
    model = built(backbones)
    for scores, best in (([(1, 1, 1), None, (2, 2, 2)], 1), ([None, (7, 7, 7), (8, 8, 8)], 2), ([(9, 9, 9), None, None], 0)):
        assert int(model(**batch_of(processor, [(SENTENCES[6], ["tv", "a tv", "tv 55"], scores, "th")])).choice) == best


@pytest.mark.parametrize("state", ["fresh", "stirred"])
@pytest.mark.parametrize(
    "arguments",
    [
        dict(text=SENTENCES[6:9]),
        dict(text=SENTENCES[6:9], translations=[["tv"], None, []], language="th"),
        dict(text=SENTENCES[6:9], translations=[["tv", "a tv"], ["dress"], ["shirt"]]),
        dict(text=SENTENCES[6:9], translations=[["tv", "a tv"], ["dress"], []], scores=[[None, (1, 2, 3)], [(9, 9, 9)], []]),
        dict(text=SENTENCES[:3], language="en"),
        dict(translations=[["tv"], ["a", "b"]]),
        dict(text=SENTENCES[6:9], language=["tlh", None, "xx"]),
        dict(text=["", " ", SENTENCES[6]], translations=[[""], [], ["", "tv"]]),
    ],
    ids=["texts only", "some without translation", "unscored", "partly scored", "English only", "translations only", "unknown language", "empty"],
)
def test_whatever_is_missing_the_embedding_is_finite_and_of_length_one(backbones, processor, arguments, state):
    model = built(backbones) if state == "fresh" else stirred(built(backbones))
    embeddings = model(**processor(**arguments)).embeddings
    assert embeddings.isfinite().all()
    close(embeddings.norm(dim=-1), torch.ones(len(embeddings)))


def test_scores_that_are_left_out_equal_scores_that_are_unknown(model, processor):
    batch = batch_of(processor, [(text, candidates, [None] * len(candidates), language) for text, candidates, _, language in ROWS])
    expected = model(**batch).embeddings
    del batch["translation_scores"]
    close(model(**batch).embeddings, expected)


def test_one_path_alone_may_be_given_without_the_keys_of_the_other(model, processor):
    batch = processor(SENTENCES[6:9], language="th")
    multilingual = {name: batch[name] for name in ("multilingual_input_ids", "multilingual_attention_mask", "language_ids")}
    close(model(**multilingual).embeddings, model(**batch).embeddings)
    batch = processor(translations=[["tv", "a tv"], ["red dress"]])
    english = {name: batch[name] for name in batch if name.startswith("english") or name in ("candidate_mask", "translation_scores")}
    close(model(**english).embeddings, model(**batch).embeddings)


def test_inputs_that_lira_does_not_know_and_a_batch_without_any_are_refused_by_name(model):
    with pytest.raises(ValueError, match="^token_type_ids: no input of LiRA"):
        model.lira.encode_features({"token_type_ids": torch.ones(1, 2)})
    for text in ({}, {"input_ids": torch.ones(1, 2)}):  # that of a language model
        with pytest.raises(ValueError, match="^multilingual_input_ids: missing"):
            model.lira.encode_features(text)


def test_a_tokenizer_that_makes_nothing_of_an_empty_text_does_no_harm(backbones, model):
    special = dict(KINDS["qwen3"][0])
    bare = LiraProcessor(train_tokenizer(special, template=False), train_tokenizer(special, template=False))
    batch = bare(["", "TV"], [[""], ["tv", ""]])
    assert batch["multilingual_attention_mask"].any(-1).tolist() == [False, True]
    batch |= {f"{path}_input_ids": batch[f"{path}_input_ids"].clamp(max=300) for path in ("multilingual", "english")}
    assert model(**batch).embeddings.isfinite().all()
    assert model(**bare([""])).embeddings.isfinite().all()  # not one token in the whole batch


@pytest.mark.parametrize("paths, shows, hidden", [("multilingual", "text", "candidate"), ("english", "candidate", "text")])
def test_a_single_path_control_reads_one_path_only(backbones, processor, paths, shows, hidden):
    model = stirred(built(backbones, paths=paths))
    rows = {
        "base": ("TV 55", ["a tv", "b"], [(9, 9, 9), (1, 1, 1)], "th"),
        "text": ("TV 55 black", ["a tv", "b"], [(9, 9, 9), (1, 1, 1)], "th"),
        "candidate": ("TV 55", ["dress", "b"], [(9, 9, 9), (1, 1, 1)], "th"),
    }
    embeddings = dict(zip(rows, model(**batch_of(processor, list(rows.values()))).embeddings, strict=True))
    close(embeddings[hidden], embeddings["base"])
    assert (embeddings[shows] - embeddings["base"]).norm() > 1e-2


@pytest.mark.parametrize("fields", [{}, {"embedding_dim": 9}, {"fusion": "pooled"}], ids=str)
def test_a_row_with_neither_path_does_not_explode_the_gradient(backbones, processor, fields):
    model = built(backbones, paths="english", **fields).train()
    output = model(**processor(SENTENCES[6:9], [["tv"], [], ["red dress"]]))
    (output.embeddings @ torch.randn(model.config.hidden_size)).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert 1e-3 < gradients.norm() < 1e3


def test_training_drops_each_path_with_its_probability_and_never_both(backbones, processor):
    model = built(backbones, path_dropout=0.3, dropout=0.0).train()
    features = model.lira.encode_features(dict(processor([SENTENCES[6]] * 2000, [["tv"]] * 2000)))
    embeddings = model.lira.fuse(features).embeddings.detach()  # at step 0 a dropped path is a block of zeros
    text, candidate = embeddings[:, :32].abs().sum(-1) > 0, embeddings[:, 32:].abs().sum(-1) > 0
    assert (text | candidate).all()
    assert [(~path).float().mean().item() for path in (text, candidate)] == pytest.approx([0.3, 0.3], abs=0.04)
    assert (model.eval().lira.fuse(features).embeddings.abs() > 0).all(-1).all()


def test_training_never_drops_the_only_path(backbones, processor):
    model = built(backbones, path_dropout=0.5, dropout=0.0).train()
    embeddings = model(**processor([SENTENCES[6]] * 200 + SENTENCES[:1] * 200, language=["th"] * 200 + ["en"] * 200)).embeddings
    close(embeddings.norm(dim=-1), torch.ones(400))


# ---- cached features ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_cached_features_give_the_embeddings_that_ids_give(couple):
    model, processor = couple
    batch = batch_of(processor, ROWS)
    expected, features = model(**batch), model.lira.encode_features(dict(batch))
    assert set(features) == {
        "multilingual_features", "multilingual_pooled", "text_mask", "english_features", "english_pooled", "candidate_mask",
        "translation_scores", "language_ids",
    }  # fmt: skip
    cached = model(**features)
    close(cached.embeddings, expected.embeddings, 1e-6)
    assert torch.equal(cached.choice, expected.choice)
    half = {name: tensor.half() if name.endswith(("features", "pooled")) else tensor for name, tensor in features.items()}
    close(model(**half).embeddings, expected.embeddings, 2e-3)


def test_features_have_the_documented_shapes(model, processor):
    features = model.lira.encode_features(dict(batch_of(processor, ROWS)))
    assert {name: tuple(tensor.shape) for name, tensor in features.items()} == {
        "multilingual_features": (7, 4, 32), "multilingual_pooled": (7, 32), "text_mask": (7,), "english_features": (7, 3, 4, 24),
        "english_pooled": (7, 3, 24), "candidate_mask": (7, 3), "translation_scores": (7, 3, 3), "language_ids": (7,),
    }  # fmt: skip
    absent = ~features["candidate_mask"]
    assert not features["english_features"][absent].any() and not features["english_pooled"][absent].any()


def test_only_texts_and_candidates_that_are_there_are_encoded(model, processor):
    counts = {}
    for path in ("multilingual", "english"):
        getattr(model.lira, path).register_forward_pre_hook(
            lambda module, args, kwargs, path=path: counts.update({path: len(kwargs["input_ids"])}), with_kwargs=True
        )
    model(**batch_of(processor, ROWS))
    assert counts == {"multilingual": sum(row[0] is not None and row[3] != "en" for row in ROWS), "english": 3 + 1 + 2 + 0 + 1 + 2 + 2}
    counts.clear()
    model(**processor(SENTENCES[6:9]))
    assert counts == {"multilingual": 3}


# ---- embedding_dim, precision --------------------------------------------------------------------------------------------


def test_a_smaller_embedding_dim_projects_orthogonally(backbones, processor):
    model = built(backbones, embedding_dim=20)
    weight = model.lira.lasr.projection.weight
    close(weight @ weight.T, torch.eye(20))
    batch = batch_of(processor, ROWS)
    wide = built(backbones)(**batch).embeddings
    embeddings = model(**batch).embeddings
    assert embeddings.shape == (len(ROWS), 20) and model.config.hidden_size == 20
    close(embeddings, F.normalize(wide @ weight.T, dim=-1))


def test_half_precision_backbones_leave_liras_own_part_in_float_also_when_loaded_again(backbones, processor, tmp_path):
    model = stirred(built(backbones, dtype=torch.bfloat16))
    batch = batch_of(processor, ROWS)
    expected = model(**batch).embeddings
    close(expected, stirred(built(backbones))(**batch).embeddings, 2e-2)
    model.save_pretrained(tmp_path)
    again = LiraForRetrieval.from_pretrained(tmp_path)
    for each in (model, again):
        assert {p.dtype for part in (each.lira.arca, each.lira.lasr) for p in part.parameters()} == {torch.float32}
        assert {p.dtype for part in (each.lira.multilingual, each.lira.english) for p in part.parameters()} == {torch.bfloat16}
    close(again(**batch).embeddings, expected, 1e-6)


def test_a_model_that_was_cast_as_a_whole_still_embeds(model, processor):
    batch = batch_of(processor, ROWS)
    expected = model(**batch).embeddings
    close(model.bfloat16()(**batch).embeddings.float(), expected, 0.1)


# ---- frozen --------------------------------------------------------------------------------------------------------------


def backbone_parameters(model):
    return [p for part in (model.lira.multilingual, model.lira.english) for p in part.parameters()]


@pytest.fixture(params=["built", "loaded", "unfrozen by hand"])
def trainable(request, backbones, tmp_path):
    model = built(backbones)
    if request.param == "loaded":
        model.save_pretrained(tmp_path)
        return LiraForRetrieval.from_pretrained(tmp_path)
    return model.requires_grad_(True) if request.param == "unfrozen by hand" else model


def test_backbones_stay_frozen_in_training(trainable, processor):
    trainable.train()
    assert trainable.lira.lasr.training and trainable.lira.arca.training
    assert not any(module.training for part in (trainable.lira.multilingual, trainable.lira.english) for module in part.modules())
    assert not any(p.requires_grad for p in backbone_parameters(trainable))
    products = dict(processor(SENTENCES[:4], language="en"))
    relevances = torch.tensor([[3, 0, -1, -1], [-1, 2, 0, -1], [-1, -1, 1, 0]])
    trainable(**processor(SENTENCES[6:9], [["tv"]] * 3), products=products, relevances=relevances).loss.backward()
    assert all(p.grad is None for p in backbone_parameters(trainable))
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable.lira.lasr.parameters())


def test_the_trainers_optimizer_holds_no_parameter_of_a_backbone(trainable, tmp_path):
    trainer = Trainer(trainable, TrainingArguments(str(tmp_path), use_cpu=True))
    trainable.train()
    held = {id(p) for group in trainer.create_optimizer().param_groups for p in group["params"]}
    assert held == {id(p) for part in (trainable.lira.arca, trainable.lira.lasr) for p in part.parameters()}


def test_dropout_of_the_backbones_is_off_in_training(model, processor):
    assert model.config.english_config.hidden_dropout_prob > 0
    batch = dict(batch_of(processor, ROWS))
    expected = model.lira.encode_features(batch)
    model.train()
    for _ in range(2):
        features = model.lira.encode_features(batch)
        assert torch.equal(features["english_features"], expected["english_features"])
        assert torch.equal(features["multilingual_pooled"], expected["multilingual_pooled"])


# ---- encode ----------------------------------------------------------------------------------------------------------------


def arguments_of(rows):
    return {name: [row[place] for row in rows] for place, name in enumerate(("texts", "translations", "scores", "language"))}


WITH_TEXT = [row for row in ROWS if row[0] is not None]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_encode_keeps_the_order_whatever_the_batch_size(model, processor, batch_size):
    expected = model(**batch_of(processor, WITH_TEXT)).embeddings
    found = model.encode(**arguments_of(WITH_TEXT), processor=processor, batch_size=batch_size)
    close(found, expected.detach())
    assert found.dtype == torch.float32 and found.device.type == "cpu" and not found.requires_grad


def test_encode_begins_with_the_longest_rows(model, processor):
    widths = []
    model.lira.multilingual.register_forward_pre_hook(lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    model.encode(["a", "a" * 90, "a" * 30], processor=processor, batch_size=1)
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3


def test_encode_takes_one_string_and_candidates_alone_and_a_prompt(model, processor):
    assert model.encode(SENTENCES[6], processor=processor).shape == (1, 56)
    alone = model.encode(None, processor=processor, translations=[["tv"], ["red dress"]])
    close(alone, model(**processor(translations=[["tv"], ["red dress"]])).embeddings.detach())
    prompted = LiraProcessor(processor.tokenizer, processor.english_tokenizer, prompts={"query": {"multilingual": "find ", "english": "find "}})
    close(model.encode("TV", processor=prompted, prompt_name="query"), model.encode("find TV", processor=prompted))


def test_encode_works_in_eval_mode_and_gives_the_mode_back(model, processor):
    expected = model.encode(SENTENCES, processor=processor)
    model.train()
    assert torch.equal(model.encode(SENTENCES, processor=processor), expected) and model.training
    with pytest.raises(ValueError):
        model.encode(["a"], processor=processor, prompt_name="unknown")
    assert model.training
    model.eval()
    model.encode("a", processor=processor)
    assert not model.training


def test_encode_shows_a_progress_bar_on_demand_only(model, processor, capsys):
    model.encode(SENTENCES, processor=processor, batch_size=4)
    assert capsys.readouterr() == ("", "")
    model.encode(SENTENCES, processor=processor, batch_size=4, show_progress_bar=True)
    assert "encode" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(texts=[]), "text: []"),
        (dict(texts=["a", 3]), "text[1]: 3"),
        (dict(texts=["a"], scores=[[(9, 9, 11)]], translations=[["b"]]), "scores[0][0]: (9, 9, 11)"),
        (dict(texts=["a"], batch_size=0), "batch_size: 0"),
        (dict(texts=["a"], batch_size=2.0), "batch_size: 2.0"),
        (dict(texts=["a"], prompt_name="q"), "prompt_name: 'q'"),
    ],
    ids=["empty", "number", "score", "no batch", "float batch", "prompt"],
)
def test_encode_refuses_bad_input_by_name(model, processor, arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        model.encode(**arguments, processor=processor)


# ---- building --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["multilingual", "english"])
@pytest.mark.parametrize("broken", ["empty", "no weights", "not there"])
def test_a_folder_that_holds_no_model_is_named_with_its_path(backbones, tmp_path, path, broken):
    folder = tmp_path / "backbone"
    if broken != "not there":
        folder.mkdir()
    if broken == "no weights":
        config = json.loads(open(f"{backbones['bert']}/config.json").read())
        (folder / "config.json").write_text(json.dumps(config))
    folders = {"multilingual": backbones["xlm-r"], "english": backbones["bert"]} | {path: str(folder)}
    with pytest.raises(ValueError, match=f"^{path}: {re.escape(repr(str(folder)))}"):
        LiraModel.from_backbones(**folders)


@pytest.mark.parametrize("name, near", [("num_bin", "num_bins"), ("fusion_layer", "fusion_layers"), ("contrast_wieght", "contrast_weight")])
def test_a_misspelt_field_is_answered_with_the_nearest_one(backbones, name, near):
    with pytest.raises(ValueError, match=f"^{name}: .* did you mean {near}"):
        LiraModel.from_backbones(backbones["bert"], backbones["bert"], **{name: 1})


def test_a_field_like_no_other_is_answered_with_all_fields(backbones):
    with pytest.raises(ValueError, match="^zzz: .*'anchor_weight'.*'width'"):
        LiraModel.from_backbones(backbones["bert"], backbones["bert"], zzz=1)


@pytest.mark.parametrize("make", [BartConfig, M2M100Config, MarianConfig])
def test_of_an_encoder_decoder_the_encoder_is_used_with_mean_pooling(backbones, processor, tmp_path, make):
    torch.manual_seed(0)
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}
    source = AutoModel.from_config(make(vocab_size=450, d_model=16, pad_token_id=1, decoder_start_token_id=0, **sizes)).eval()
    source.save_pretrained(tmp_path / "seq2seq")
    model = LiraForRetrieval.from_backbones(tmp_path / "seq2seq", backbones["bert"], **SMALL)
    assert not any("decoder" in name for name, _ in model.named_parameters()) and model.config.multilingual_pooling == "mean"
    batch = processor([SENTENCES[6]])
    states = source.get_encoder()(batch["multilingual_input_ids"], batch["multilingual_attention_mask"]).last_hidden_state[0]
    embeddings = model(**batch).embeddings
    close(embeddings[0, :16], F.normalize(states.mean(0), dim=-1))
    model.save_pretrained(tmp_path / "lira")
    close(LiraForRetrieval.from_pretrained(tmp_path / "lira")(**batch).embeddings, embeddings, 1e-6)


@pytest.mark.parametrize(
    "declared, pooling",
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
    ids=["cls", "last", "mean", "by name"],
)
def test_pooling_follows_the_backbones_sentence_transformers_files(backbones, tmp_path, declared, pooling):
    AutoModel.from_pretrained(backbones["bert"]).save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(declared))
    assert LiraModel.from_backbones(tmp_path, backbones["qwen3"], **SMALL).config.multilingual_pooling == pooling
    assert LiraModel.from_backbones(tmp_path, backbones["bert"], **SMALL, multilingual_pooling="last").config.multilingual_pooling == "last"


def test_building_keeps_the_backbones_weights_and_initialises_all_else(backbones):
    model = built(backbones, cls=LiraModel)
    for part, folder in ((model.multilingual, backbones["xlm-r"]), (model.english, backbones["bert"])):
        for (name, own), (other, weight) in zip(part.state_dict().items(), AutoModel.from_pretrained(folder).state_dict().items(), strict=True):
            assert name == other and torch.equal(own, weight)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert all(tensor.isfinite().all() and tensor.abs().max() < 10 for tensor in (*model.arca.parameters(), *model.lasr.parameters()))
    close(model.arca.adaptor.multilingual_projection.weight @ model.arca.adaptor.multilingual_projection.weight.T, torch.eye(32))
    assert model.lasr.path_weight.tolist() == [1, 1]
    assert not model.lasr.correction[-1].weight.any() and not model.arca.actor.correction[-1].weight.any()
    assert model.lasr.language.weight.std() > 0.01 and model.lasr.encoder.layers[0].self_attn.in_proj_weight.std() > 0.01


def test_building_twice_with_one_seed_gives_the_same_weights(backbones):
    one, other = built(backbones).state_dict(), built(backbones).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("cls", [LiraModel, LiraForRetrieval, LiraForPreTraining])
def test_a_saved_model_is_equal_when_loaded_in_shards_too(backbones, tmp_path, cls):
    model = built(backbones, cls=cls)
    stirred(model) if cls is not LiraModel else None
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    again, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


# ---- configuring -------------------------------------------------------------------------------------------------------------


CHOICES = [
    "multilingual_pooling", "english_pooling", "paths", "selection", "fusion", "policy", "baseline", "queue",
]  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_is_none_is_refused_with_what_may_be_chosen(name):
    allowed = getattr(LiraConfig(), name)
    with pytest.raises(ValueError, match=f"^{name}: 'nonsense' .*{allowed}"):
        LiraConfig(**{name: "nonsense"})


@pytest.mark.parametrize(
    "name, values",
    [
        *((name, [0, -1, 2.5, True, None, "4"]) for name in ("num_bins", "width", "actor_width", "fusion_layers", "fusion_heads")),
        *((name, [0, -1, 2.5, True]) for name in ("ndcg_k", "hinge_negatives", "collapse_patience")),
        ("queue_size", [-1, 1.5, True]),
        *((name, [0, -0.1, float("nan"), "1"]) for name in ("contrast_temperature", "rank_temperature", "gate_temperature")),
        *((name, [-0.1, float("nan"), None]) for name in ("anchor_weight", "contrast_weight", "hinge_margin", "hinge_weight")),
        *((name, [-0.1, float("nan")]) for name in ("mean_variance_weight", "consistency_weight", "false_negative_margin")),
        *((f"reward_{axis}", [-0.1, True]) for axis in ("semantic", "emotional", "pragmatic", "similarity")),
        *((name, [-0.1, 1.1, float("nan"), "0"]) for name in ("dropout", "correction_scale", "ema_decay", "collapse_cosine")),
        ("path_dropout", [-0.1, 0.51, 1.0]),
        ("embedding_dim", [0, -4, 10**6, 12.0]),
        ("languages", [[], "vi", ["vi", "vi"], ["vi", 3], None]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_the_fields_name_and_the_value(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: {re.escape(repr(value))}"):
            LiraConfig(**{name: value})


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="^fusion_heads: 3 does not divide width 256"):
        LiraConfig(fusion_heads=3)


def test_the_edges_of_the_ranges_are_allowed():
    edges = dict(num_bins=1, fusion_layers=1, queue_size=0, contrast_weight=0, path_dropout=0.5, correction_scale=0, dropout=1.0, embedding_dim=1)
    config = LiraConfig(**edges)
    assert {name: getattr(config, name) for name in edges} == edges
    assert LiraConfig(embedding_dim=config.concat_dim).hidden_size == config.concat_dim


def test_a_config_survives_json(backbones, tmp_path):
    config = built(backbones, ("t5", "qwen3"), queue="features", languages=["th", "tlh"], embedding_dim=12).config
    config.save_pretrained(tmp_path)
    again = LiraConfig.from_pretrained(tmp_path)
    assert type(again.multilingual_config) is type(config.multilingual_config) and again.multilingual_config.d_model == 16
    assert (again.queue, again.languages, again.hidden_size, again.concat_dim) == ("features", ["th", "tlh"], 12, 32)
    assert again.auto_map == json.loads((tmp_path / "config.json").read_text())["auto_map"]


def test_two_configs_do_not_share_their_languages():
    one = LiraConfig()
    one.languages.append("tlh")
    assert "tlh" not in LiraConfig().languages
