"""The processor: what it makes of texts, translations, scores and languages, and how it says no."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_backbones import QWEN, SENTENCES, train_tokenizer
from transformers.utils import logging

from lira_hf import LiraProcessor
from lira_hf.modeling.processing_lira import Row

THAI, URDU = SENTENCES[6], SENTENCES[12]


def words(processor, path, ids, mask):
    tokenizer = processor.tokenizer if path == "multilingual" else processor.english_tokenizer
    return tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)


# ---- the batch ---------------------------------------------------------------------------------------------------------


def test_every_key_has_the_shape_and_type_that_the_model_reads(processor):
    batch = processor(SENTENCES[6:9], [["a tv", "tv 55 inch black"], [], ["red dress"]], [[(9, 8, 7), None], None, [(1, 10, 5.5)]], "th")
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    length, english = shapes["multilingual_input_ids"][1], shapes["english_input_ids"][2]
    assert shapes == {
        "multilingual_input_ids": (3, length), "multilingual_attention_mask": (3, length), "english_input_ids": (3, 2, english),
        "english_attention_mask": (3, 2, english), "candidate_mask": (3, 2), "translation_scores": (3, 2, 3), "language_ids": (3,),
    }  # fmt: skip
    assert set(batch) == set(processor.model_input_names)
    assert batch["candidate_mask"].tolist() == [[True, True], [False, False], [True, False]]
    assert batch["english_attention_mask"].any(-1).tolist() == batch["candidate_mask"].tolist()
    scores = batch["translation_scores"]
    assert scores[0, 0].tolist() == [9, 8, 7] and scores[2, 0].tolist() == [1, 10, 5.5]
    assert scores.isnan().all(-1).tolist() == [[False, True], [True, True], [False, True]]
    types = {name: tensor.dtype for name, tensor in batch.items()}
    assert types.pop("candidate_mask") == torch.bool and types.pop("translation_scores") == torch.float32
    assert set(types.values()) == {torch.long}


def test_tokens_are_those_of_each_paths_own_tokenizer(processor):
    batch = processor([THAI, "TV 55"], [["red cotton dress"], ["rice cooker", "blue shoes"]])
    assert words(processor, "multilingual", batch["multilingual_input_ids"][1], batch["multilingual_attention_mask"][1]) == "TV 55"
    english = [words(processor, "english", *pair) for pair in zip(batch["english_input_ids"][1], batch["english_attention_mask"][1], strict=True)]
    assert english == ["rice cooker", "blue shoes"]
    own = processor.tokenizer([THAI])["input_ids"][0]
    assert batch["multilingual_input_ids"][0, : len(own)].tolist() == own


def test_padding_is_on_the_right_whatever_the_tokenizer_prefers(processor):
    left = train_tokenizer(QWEN)
    left.padding_side = "left"
    batch = LiraProcessor(left, processor.english_tokenizer)([THAI, "a"])
    mask = batch["multilingual_attention_mask"]
    assert mask[1].tolist() == sorted(mask[1].tolist(), reverse=True) and mask[1].sum() < mask.shape[1]


def test_one_string_is_a_batch_of_one(processor):
    one, listed = processor(THAI, [["tv"]], language="th"), processor([THAI], [["tv"]], language=["th"])
    assert all(torch.allclose(one[name], listed[name], equal_nan=True) for name in listed)


def test_a_candidate_given_as_a_string_counts_as_one_candidate(processor):
    plain, listed = processor([THAI, URDU], ["a tv", None]), processor([THAI, URDU], [["a tv"], []])
    assert all(torch.allclose(plain[name], listed[name], equal_nan=True) for name in listed)


def test_language_ids_follow_the_list_and_unknown_ones_are_und(processor):
    codes = ["vi", "en", "tlh", "und", None, "TH"]
    batch = processor(["a"] * 6, [["b"]] * 6, language=codes)
    assert batch["language_ids"].tolist() == [1, 8, 0, 0, 0, 0]
    assert processor(["a", "b"])["language_ids"].tolist() == [0, 0]
    own = LiraProcessor(processor.tokenizer, processor.english_tokenizer, languages=["bn", "tlh"])
    assert own("a", language="tlh")["language_ids"].tolist() == [2]


def test_an_english_text_is_its_own_candidate_on_the_english_path(processor):
    batch = processor(["smart television", THAI], language=["en", "th"])
    assert not batch["multilingual_attention_mask"][0].any() and batch["multilingual_attention_mask"][1].any()
    assert batch["candidate_mask"].tolist() == [[True], [False]]
    assert words(processor, "english", batch["english_input_ids"][0, 0], batch["english_attention_mask"][0, 0]) == "smart television"


def test_an_english_text_with_candidates_keeps_both_paths(processor):
    batch = processor(["smart television"], [["smart tv"]], language="en")
    assert batch["multilingual_attention_mask"].any() and batch["candidate_mask"].all()
    assert words(processor, "english", batch["english_input_ids"][0, 0], batch["english_attention_mask"][0, 0]) == "smart tv"


def test_translations_may_stand_alone(processor):
    batch = processor(translations=[["a tv", "the tv"], ["shoes"]], scores=[[(5, 5, 5), None], [None]], language="th")
    assert not batch["multilingual_attention_mask"].any()
    assert batch["candidate_mask"].tolist() == [[True, True], [True, False]]
    assert batch["language_ids"].tolist() == [2, 2]


def test_texts_alone_have_one_empty_place_for_a_candidate(processor):
    batch = processor([THAI, URDU])
    assert batch["candidate_mask"].tolist() == [[False], [False]] and not batch["english_attention_mask"].any()


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_candidates_and_their_scores_stay_in_their_places(processor, counts, seed):
    candidates = [[f"w{i}{k} x{seed}" for k in range(count)] for i, count in enumerate(counts)]
    scores = [[((i + k) % 10 + 1, 1, 10) if (i + k + seed) % 3 else None for k in range(count)] for i, count in enumerate(counts)]
    batch = processor(["t"] * len(counts), candidates, scores)
    assert batch["candidate_mask"].shape[1] == max(1, *counts)
    for i, count in enumerate(counts):
        assert batch["candidate_mask"][i].sum() == count
        for k in range(count):
            assert words(processor, "english", batch["english_input_ids"][i, k], batch["english_attention_mask"][i, k]) == candidates[i][k]
            triple = batch["translation_scores"][i, k]
            assert triple.isnan().all() if scores[i][k] is None else triple.tolist() == list(scores[i][k])


# ---- prompts -------------------------------------------------------------------------------------------------------------


def test_prompts_go_before_text_and_candidates_of_their_path(processor):
    prompts = {"query": {"multilingual": "query: ", "english": "Represent: "}}
    prompted = LiraProcessor(processor.tokenizer, processor.english_tokenizer, prompts=prompts)
    batch = prompted(["TV 55"], [["red dress"]], prompt_name="query")
    assert words(processor, "multilingual", batch["multilingual_input_ids"][0], batch["multilingual_attention_mask"][0]) == "query: TV 55"
    assert words(processor, "english", batch["english_input_ids"][0, 0], batch["english_attention_mask"][0, 0]) == "Represent: red dress"
    plain, document = prompted(["TV 55"]), prompted(["TV 55"], prompt_name="document")  # always known, empty by default
    assert torch.equal(plain["multilingual_input_ids"], document["multilingual_input_ids"])


def test_rows_may_name_their_own_prompts_which_a_call_overrides(processor):
    prompts = {name: {"multilingual": f"{name}: ", "english": f"{name} "} for name in ("query", "document")}
    prompted = LiraProcessor(processor.tokenizer, processor.english_tokenizer, prompts=prompts)
    rows = [Row("TV", ["a tv"], [None], "th", "query"), Row("TV", ["a tv", "b"], [None, None], "th", "document"), Row("TV")]
    read = lambda batch: [words(prompted, "multilingual", *pair) for pair in zip(*list(batch.values())[:2], strict=True)]  # noqa: E731
    batch = prompted.batch(rows)
    assert read(batch) == ["query: TV", "document: TV", "TV"]
    assert words(prompted, "english", batch["english_input_ids"][1, 1], batch["english_attention_mask"][1, 1]) == "document b"
    assert read(prompted.batch(rows, prompt_name="query")) == ["query: TV"] * 3
    with pytest.raises(ValueError, match="^prompt_name: 'qurey'"):
        prompted.batch([Row("TV", prompt="qurey")])


def test_prompts_default_to_the_backbones_own_and_passage_means_document(backbones, tmp_path):
    folder = tmp_path / "e5"
    train_tokenizer(QWEN).save_pretrained(folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query: ", "passage": "passage: "}}))
    made = LiraProcessor.from_backbones(folder, backbones["bert"], prompts={"sts": {"multilingual": "s: ", "english": ""}})
    assert made.prompts == {
        "query": {"multilingual": "query: ", "english": ""},
        "document": {"multilingual": "passage: ", "english": ""},
        "sts": {"multilingual": "s: ", "english": ""},
    }


# ---- length --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def warnings_seen(caplog):
    """Messages of transformers' loggers, which keep to themselves otherwise."""
    type(logging.get_logger("lira")).warning_once.cache_clear()
    logging.enable_propagation()
    yield lambda: [record.getMessage() for record in caplog.records if "truncated" in record.getMessage()]
    logging.disable_propagation()


def test_a_text_of_200_000_characters_is_truncated_and_that_is_said_once(processor, warnings_seen):
    long = "55 inch TV black " * 11_800
    for _ in range(2):
        batch = processor([long, THAI], [[long], ["tv"]])
    assert batch["multilingual_input_ids"].shape == (2, processor.max_length)
    assert batch["english_input_ids"].shape == (2, 1, processor.max_length)
    assert batch["multilingual_input_ids"][0, -1] == processor.tokenizer.sep_token_id  # the end still closes the text
    assert len(warnings_seen()) == 1 and f"{processor.max_length} tokens" in warnings_seen()[0]


def test_a_text_that_fits_is_not_called_truncated(processor, warnings_seen):
    processor([THAI], [["tv"]])
    assert warnings_seen() == []


def test_max_length_is_the_processors_own(processor):
    short = LiraProcessor(processor.tokenizer, processor.english_tokenizer, max_length=5)
    assert short(["rice cooker 1.8 l and more"], [["a"]])["multilingual_input_ids"].shape == (1, 5)


# ---- what is refused -------------------------------------------------------------------------------------------------------


FOUR = [["a", "b", "c", "d"]]
REFUSED = {
    "no texts": (dict(text=[]), "text: []"),
    "nothing at all": (dict(), "text: None"),
    "text None": (dict(text=["a", None]), "text[1]: None"),
    "text a number": (dict(text=["a", 7]), "text[1]: 7"),
    "texts no list": (dict(text=12), "text: 12"),
    "lone surrogate": (dict(text=["ab\ud800"]), "text[0]: a lone surrogate at character 2"),
    "lone surrogate in a candidate": (dict(text=["a"], translations=[["x", "\udfff"]]), "translations[0][1]: a lone surrogate at character 0"),
    "candidate a number": (dict(text=["a"], translations=[["b", 3.5]]), "translations[0][1]: 3.5"),
    "candidate None": (dict(text=["a"], translations=[["b", None]]), "translations[0][1]: None"),
    "candidates no list": (dict(text=["a"], translations=[{"b": 1}]), "translations[0]: {'b': 1}"),
    "translations a string": (dict(text=["a"], translations="abc"), "translations: 'abc'"),
    "no translations": (dict(text=["a"], translations=[]), "translations: []"),
    "score 11": (dict(text=["a"], translations=[["b"]], scores=[[(9, 11, 9)]]), "scores[0][0]: (9, 11, 9)"),
    "score 0": (dict(text=["a"], translations=[["b"]], scores=[[(0, 9, 9)]]), "scores[0][0]: (0, 9, 9)"),
    "score NaN": (dict(text=["a"], translations=[["b"]], scores=[[(9, 9, float("nan"))]]), "scores[0][0]: (9, 9, nan)"),
    "score infinite": (dict(text=["a"], translations=[["b"]], scores=[[(9, 9, float("inf"))]]), "scores[0][0]: (9, 9, inf)"),
    "score bool": (dict(text=["a"], translations=[["b"]], scores=[[(True, 9, 9)]]), "scores[0][0]: (True, 9, 9)"),
    "score a string": (dict(text=["a"], translations=[["b"]], scores=[[("9", 9, 9)]]), "scores[0][0]: ('9', 9, 9)"),
    "two numbers": (dict(text=["a"], translations=[["b"]], scores=[[(9, 9)]]), "scores[0][0]: (9, 9)"),
    "bad triple of the second": (dict(text=["a", "b"], translations=[["b"], FOUR[0]], scores=[None, [None, None, 5, None]]), "scores[1][2]: 5"),
    "three triples for four candidates": (dict(text=["a"], translations=FOUR, scores=[[(9, 9, 9)] * 3]), "scores[0]: 3 scores for 4 candidates"),
    "scores of a row no list": (dict(text=["a"], translations=[["b"]], scores=[9]), "scores[0]: 9 for 1 candidates"),
    "scores without candidates": (dict(text=["a"], scores=[[(9, 9, 9)]]), "scores[0]: 1 scores for 0 candidates"),
    "fewer translations than texts": (dict(text=["a", "b", "c"], translations=[["x"]]), "translations: 1 entries for 3 texts"),
    "more scores than texts": (dict(text=["a"], translations=[["x"]], scores=[[None], [None]]), "scores: 2 entries for 1 texts"),
    "fewer languages than texts": (dict(text=["a", "b"], language=["th"]), "language: ['th']"),
    "language a number": (dict(text=["a", "b"], language=["th", 3]), "language[1]: 3"),
    "language no list": (dict(text=["a"], language={"th"}), "language: {'th'}"),
    "unknown prompt": (dict(text=["a"], prompt_name="qurey"), "prompt_name: 'qurey'"),
    "numpy": (dict(text=["a"], return_tensors="np"), "return_tensors: 'np'"),
    "unknown keyword": (dict(text=["a"], padding=True), "padding: "),
    "a row with neither": (dict(translations=[["x"], []]), "translations[1]: empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_the_arguments_name_and_the_bad_value(processor, case):
    arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        processor(**arguments)


def test_an_unknown_prompt_is_answered_with_the_known_ones(processor):
    with pytest.raises(ValueError, match="document, query"):
        processor(["a"], prompt_name="passage")


@pytest.mark.parametrize("value", [3, 2.5, "128", None])
def test_a_max_length_that_leaves_no_text_is_refused(processor, value):
    with pytest.raises(ValueError, match=re.escape(f"max_length: {value!r}")):
        LiraProcessor(processor.tokenizer, processor.english_tokenizer, max_length=value)


@pytest.mark.parametrize("prefixes", [{"multilingual": "q: "}, "q: ", {"multilingual": "q: ", "english": None}])
def test_a_prompt_needs_a_prefix_for_each_path(processor, prefixes):
    with pytest.raises(ValueError, match=re.escape(f"prompts: 'query' has {prefixes!r}")):
        LiraProcessor(processor.tokenizer, processor.english_tokenizer, prompts={"query": prefixes})


@pytest.mark.parametrize("path", ["multilingual", "english"])
def test_a_folder_without_a_tokenizer_is_named(backbones, tmp_path, path):
    names = {"multilingual": backbones["xlm-r"], "english": backbones["bert"]} | {path: str(tmp_path)}
    with pytest.raises(ValueError, match=re.escape(f"{path}: {str(tmp_path)!r} holds no tokenizer")):
        LiraProcessor.from_backbones(**names)


# ---- saving ----------------------------------------------------------------------------------------------------------------


def test_a_saved_processor_gives_the_same_batches(processor, tmp_path):
    prompts = {"query": {"multilingual": "query: ", "english": "q: "}}
    LiraProcessor(processor.tokenizer, processor.english_tokenizer, languages=["bn", "th"], prompts=prompts, max_length=9).save_pretrained(tmp_path)
    again = LiraProcessor.from_pretrained(tmp_path)
    assert (again.languages, again.prompts["query"], again.max_length) == (["bn", "th"], prompts["query"], 9)
    for tokenizer, own in ((again.tokenizer, processor.tokenizer), (again.english_tokenizer, processor.english_tokenizer)):
        assert tokenizer.get_vocab() == own.get_vocab()
    assert LiraProcessor.from_pretrained(tmp_path, max_length=20).max_length == 20


def test_a_tokenizer_without_a_padding_token_pads_with_its_end(processor):
    bare = train_tokenizer({"eos_token": "<end>", "sep_token": "<end>"})
    assert bare.pad_token is None
    batch = LiraProcessor(bare, processor.english_tokenizer)([THAI, "a"])
    assert batch["multilingual_input_ids"][1, -1] == bare.eos_token_id and batch["multilingual_attention_mask"][1, -1] == 0
