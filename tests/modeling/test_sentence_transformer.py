"""SentenceTransformer on LiRA's folders: every kind of item, prompts, training, saving, the Hub; always the vectors of LiraForRetrieval.encode."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from loopback_hub import LoopbackHub
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from small_backbones import SENTENCES, SMALL, stirred
from transformers import AutoModel, AutoProcessor

from lira_hf import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor

PROMPTS = {  # the multilingual prefixes of query and plain are equal, and those of document and sts: only the names tell them apart
    "query": {"multilingual": "", "english": "find: "},
    "document": {"multilingual": "passage: ", "english": ""},
    "sts": {"multilingual": "passage: ", "english": "alike: "},
}
# Items, and what encode is given for the same: text, translations, scores, language.
ITEMS = [
    ("ทีวี 55 นิ้ว สีดำ", ("ทีวี 55 นิ้ว สีดำ", None, None, None)),
    (("áo thun nam màu đen", "black t-shirt for men"), ("áo thun nam màu đen", ["black t-shirt for men"], None, None)),
    (["kasut biru saiz 42", "blue shoes"], ("kasut biru saiz 42", ["blue shoes"], None, None)),
    (("sepatu", None), ("sepatu", None, None, None)),
    (("nồi cơm", ["rice cooker", "pot"]), ("nồi cơm", ["rice cooker", "pot"], None, None)),
    ({"text": "https://shop.th/tv.png", "language": "th"}, ("https://shop.th/tv.png", None, None, "th")),
    ({"text": "नीला", "translation": "blue", "translations": None, "scores": None, "language": None}, ("नीला", ["blue"], None, None)),
    (
        {"text": "ชุดเดรสผ้าฝ้ายสีแดง", "translations": ["dress", "red cotton dress"], "scores": [[3, 3, 3], [9, 8, 9]], "language": "th"},
        ("ชุดเดรสผ้าฝ้ายสีแดง", ["dress", "red cotton dress"], [[3, 3, 3], [9, 8, 9]], "th"),
    ),
    (
        {"text": "ชุดเดรสผ้าฝ้ายสีแดง", "translations": ["dress", "red cotton dress"], "scores": [[9, 8, 9], None], "language": "th"},
        ("ชุดเดรสผ้าฝ้ายสีแดง", ["dress", "red cotton dress"], [[9, 8, 9], None], "th"),
    ),
    ({"text": "rice cooker 1.8 l", "language": "en"}, ("rice cooker 1.8 l", None, None, "en")),
]


def expected_of(model, processor, items=ITEMS, default=None, **options) -> np.ndarray:
    texts, translations, scores, languages = zip(*(given for _, given in items), strict=True)
    languages = [language or default for language in languages]
    return model.encode(list(texts), processor=processor, translations=list(translations), scores=list(scores), language=languages, **options).numpy()


def same(found, expected, atol=1e-6) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=atol, rtol=0)


@pytest.fixture(scope="module")
def lira(backbones):
    torch.manual_seed(0)
    return stirred(LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL))


@pytest.fixture(scope="module")
def prompted(backbones):
    return LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], prompts=PROMPTS)


@pytest.fixture(scope="module")
def folder(lira, prompted, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("lira")
    lira.save_pretrained(folder)
    prompted.save_pretrained(folder)
    return str(folder)


def opened(folder, **options) -> SentenceTransformer:
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", **options)


@pytest.fixture(scope="module")
def loaded(folder):
    return opened(folder)


# ---- items, languages, prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_items_of_every_kind_mixed_in_one_list_give_the_vectors_of_encode_in_their_order(loaded, lira, prompted, batch_size):
    items = [item for item, _ in ITEMS]
    same(loaded.encode(items, batch_size=batch_size), expected_of(lira, prompted))
    same(loaded.encode(items[::-1], batch_size=batch_size), expected_of(lira, prompted)[::-1])
    found = expected_of(lira, prompted)
    assert np.abs(found[7] - found[8]).max() > 1e-3  # other scores, another candidate: they do arrive


def test_single_items_and_translations_alone(loaded, lira, prompted):
    same(loaded.encode(ITEMS[0][0]), expected_of(lira, prompted)[0])
    same(loaded.encode(ITEMS[7][0]), expected_of(lira, prompted)[7])
    alone = lira.encode(None, processor=prompted, translations=[["red dress", "dress"]])[0]
    same(loaded.encode({"translations": ["red dress", "dress"]}), alone)
    same(loaded.encode([(None, ["red dress", "dress"]), "x"])[0], alone)
    assert len(loaded.encode([])) == 0


def test_an_items_own_language_goes_before_that_of_the_call_and_that_before_the_default(folder, lira, prompted):
    items, loaded = [item for item, _ in ITEMS], opened(folder)
    same(loaded.encode(items, language="vi"), expected_of(lira, prompted, default="vi"))
    loaded[0].language = "id"
    same(loaded.encode(items), expected_of(lira, prompted, default="id"))
    same(loaded.encode_query(items, language="vi"), expected_of(lira, prompted, default="vi", prompt_name="query"))
    assert np.abs(expected_of(lira, prompted, default="vi") - expected_of(lira, prompted)).max() > 1e-3
    with pytest.raises(ValueError, match=r"language: \['th', 'vi'\] is not allowed; one code for all items"):
        loaded.encode(["a", "b"], language=["th", "vi"])


def test_prompts_are_the_processors_with_both_prefixes_though_the_strings_of_one_path_are_equal(loaded, lira, prompted):
    items = [item for item, _ in ITEMS]
    found = {name: expected_of(lira, prompted, prompt_name=name) for name in PROMPTS}
    assert all(np.abs(found[one] - found[two]).max() > 1e-3 for one, two in (("query", "document"), ("document", "sts"), ("query", "sts")))
    same(loaded.encode_query(items), found["query"])
    same(loaded.encode_document(items), found["document"])
    for name in PROMPTS:
        same(loaded.encode(items, prompt_name=name), found[name])
        same(loaded.encode(items, prompt=loaded.prompts[name]), found[name])
    same(loaded.encode(items), expected_of(lira, prompted))


def test_any_other_prompt_goes_before_text_and_translations(folder, loaded, lira, prompted):
    expected = lira.encode(["find: ชุด", "find: ทีวี"], processor=prompted, translations=[["find: dress", "find: red"], None], language=["th", None])
    items = [{"text": "ชุด", "translations": ["dress", "red"], "language": "th"}, "ทีวี"]
    same(loaded.encode(items, prompt="find: "), expected)
    same(opened(folder, prompts={"query": "find: "}).encode_query(items), expected)
    same(opened(folder, prompts={"query": ""}).encode_query(items), loaded.encode(items))  # how sentence-transformers turns one off
    with pytest.raises(ValueError, match=r"prompt: '\{qeury\}' is not known; allowed: \{document\}, \{query\}, \{sts\}"):
        loaded.encode(items, prompt="{qeury}")


@pytest.mark.parametrize(
    "item, said",
    [
        (5, "5 is not allowed; a string"),
        (("a", "b", "c"), "('a', 'b', 'c') is not allowed"),
        (("a", 5), "translations[0]: 5 is not allowed; a list of strings is"),
        ({"txt": "a"}, "with keys of text, translation, translations, scores, language"),
        ({"text": "a", 1: 2}, "with keys of text"),
        ({"text": 5}, "text[0]: 5 is not a string"),
        ({}, "give at least one of them"),
        ({"text": "a", "translation": "b", "translations": ["c"]}, "both translation and translations"),
        ({"text": "a", "translation": "b", "scores": [[11, 1, 1]]}, "three numbers from 1 to 10"),
        ({"text": "a", "scores": [[9, 9, 9]]}, "1 scores for 0 candidates"),
        ({"text": "a", "language": 5}, "language: 5 is not allowed"),
    ],
    ids=str,
)
def test_a_wrong_item_is_named_with_its_place_and_what_is_allowed(loaded, item, said):
    with pytest.raises(ValueError) as error:
        loaded.preprocess(["first", item, "last"], prompt="{query}")
    assert f"inputs[1] of the batch: {item!r}" in str(error.value) and said in str(error.value)
    with pytest.raises(ValueError):
        loaded.encode(["first", item], prompt_name="query")


def test_what_sentence_transformers_asks_a_model_for(folder, loaded, lira, prompted, processor):
    assert loaded.get_embedding_dimension() == lira.config.hidden_size == loaded.encode("x").shape[-1]
    assert loaded.max_seq_length == prompted.max_length and loaded.tokenizer.get_vocab() == prompted.tokenizer.get_vocab()
    vectors = loaded.encode(SENTENCES[:4])
    torch.testing.assert_close(loaded.similarity(vectors, vectors), torch.from_numpy(vectors @ vectors.T), atol=1e-6, rtol=0)
    short = opened(folder, truncate_dim=5)
    same(short.encode(SENTENCES[:2]), vectors[:2, :5])
    short.max_seq_length = 6
    same(short.encode(SENTENCES[:1], truncate_dim=100), lira.encode(SENTENCES[:1], processor=short.processor))
    assert short.processor.max_length == 6 and np.abs(short.encode(SENTENCES[:1]) - vectors[:1, :5]).max() > 1e-3
    half = opened(folder, model_kwargs={"dtype": torch.bfloat16}, config_kwargs={"correction_scale": 0.0})
    assert half[0].model.lira.english.dtype == torch.bfloat16 and half[0].model.lira.lasr.path_weight.dtype == torch.float32
    assert half.encode(SENTENCES[:2]).dtype == np.float32
    frozen = AutoModel.from_pretrained(folder, correction_scale=0.0)
    same(half.encode(SENTENCES[:4]), frozen.encode(SENTENCES[:4], processor=prompted), atol=0.02)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(folder)
    with pytest.raises(ValueError, match="backend: 'onnx' is not supported"):
        opened(folder, backend="onnx")


# ---- saving ------------------------------------------------------------------------------------------------------------------


def test_a_saved_copy_has_every_file_and_setting_and_opens_both_ways(folder, lira, prompted, tmp_path):
    first = opened(folder, prompts={"document": "doc: "})
    first[0].language, first.truncate_dim = "th", 9
    first.save_pretrained(str(tmp_path / "again"))
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {path.name for path in Path(folder).iterdir()} | {"README.md", "sentence_transformer_lira.json"}
    assert (tmp_path / "again" / "modules.json").read_text().split() == (Path(folder) / "modules.json").read_text().split()
    again = opened(tmp_path / "again")
    items = [item for item, _ in ITEMS]
    same(again.encode_query(items), expected_of(lira, prompted, default="th", prompt_name="query")[:, :9])
    same(again.encode_document(items), first.encode_document(items))
    assert again.prompts == {"query": "{query}", "document": "doc: ", "sts": "{sts}"} and again[0].language == "th"
    model, processor = AutoModel.from_pretrained(tmp_path / "again"), AutoProcessor.from_pretrained(tmp_path / "again")
    same(expected_of(model, processor), expected_of(lira, prompted))
    model.save_pretrained(tmp_path / "again")  # into the same folder: what SentenceTransformer has written there stays
    assert opened(tmp_path / "again").prompts["document"] == "doc: "


@pytest.mark.parametrize("head", [LiraForPreTraining, LiraForSequenceClassification, LiraForCausalLM])
def test_the_folder_of_any_head_opens_as_auto_model_opens_it(backbones, llms, tmp_path, head):
    torch.manual_seed(0)
    llm = {"llm": llms["gpt2"]} if head is LiraForCausalLM else {}
    model = stirred(head.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL, **llm))
    processor = LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], **llm)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    same(opened(tmp_path).encode([item for item, _ in ITEMS]), expected_of(AutoModel.from_pretrained(tmp_path), processor))


# ---- training ----------------------------------------------------------------------------------------------------------------


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model.safetensors")


@pytest.mark.parametrize("columns", ["texts", "dicts"])
def test_training_moves_our_part_alone_and_what_is_saved_opens_both_ways_with_the_same_vectors(folder, tmp_path, columns):
    anchors, positives = SENTENCES[6:12], SENTENCES[:6]
    if columns == "dicts":
        anchors = [
            {"text": text, "translations": [other, "tv"], "scores": [[9, 9, 9], None], "language": "th"}
            for text, other in zip(anchors, positives, strict=True)
        ]
        positives = [{"text": text, "language": "en"} for text in positives]
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})
    model = opened(folder)
    before = model.encode_query(SENTENCES[6:10])
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), use_cpu=True, max_steps=4, per_device_train_batch_size=3, learning_rate=1e-2, save_steps=4, disable_tqdm=True,
        prompts={"anchor": model.prompts["query"], "positive": model.prompts["document"]}, report_to="none",
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model))
    batch = trainer.data_collator([data[0], data[1]])
    features, _ = trainer.collect_features(batch)
    assert len(features) == 2 and all(set(each) >= {"input_ids", "english_ids", "language_ids"} for each in features)
    if columns == "dicts":  # of the query's prefixes only the English one is not empty
        first = features[0]["english_ids"][0, 0][features[0]["english_mask"][0, 0].bool()]
        assert model.processor.english_tokenizer.decode(first, skip_special_tokens=True) == PROMPTS["query"]["english"] + SENTENCES[0]
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
    after = model.encode_query(SENTENCES[6:10])
    assert np.abs(after - before).max() > 1e-3
    old, new = weights(folder), weights(tmp_path / "run" / "checkpoint-4")
    moved = {".".join(name.split(".")[:2]) for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"lira.arca", "lira.lasr"}
    model.save_pretrained(str(tmp_path / "trained"))
    for each in ("trained", "run/checkpoint-4"):
        same(opened(tmp_path / each).encode_query(SENTENCES[6:10]), after)
        plain, processor = AutoModel.from_pretrained(tmp_path / each), AutoProcessor.from_pretrained(tmp_path / each)
        same(plain.encode(SENTENCES[6:10], processor=processor, prompt_name="query"), after)


# ---- where this package is not ---------------------------------------------------------------------------------------------

ELSEWHERE = """
import numpy as np
from pathlib import Path
from huggingface_hub import HfApi
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

folder, items, texts = {0!r}, {1!r}, {2!r}
trusted = dict(trust_remote_code=True, device="cpu")
def vectors(model): return [model.encode_query(items).tolist(), model.encode_document(items).tolist(), model.encode(items, language="th").tolist()]
found = dict()
local = SentenceTransformer(folder, **trusted)
found["folder"] = vectors(local)
local.save_pretrained("again")
found["saved again"] = vectors(SentenceTransformer("again", **trusted))
local.push_to_hub("org/st", private=True)
first = HfApi().model_info("org/st").sha
found["pushed"] = vectors(SentenceTransformer("org/st", **trusted))
for parameter in local[0].model.lira.lasr.parameters(): parameter.data.mul_(1.5)
local.push_to_hub("org/st", exist_ok=True, private=True)
found["pinned"] = vectors(SentenceTransformer("org/st", revision=first, **trusted))
newer = vectors(SentenceTransformer("org/st", **trusted))
assert max(abs(a - b) for one, two in zip(newer[0], found["pinned"][0]) for a, b in zip(one, two)) > 1e-3

model = AutoModel.from_pretrained("org/st", revision=first, trust_remote_code=True)  # of a copy of the code that SentenceTransformer did not ask for
processor = AutoProcessor.from_pretrained("org/st", revision=first, trust_remote_code=True)
model.push_to_hub("org/auto"); processor.push_to_hub("org/auto")
found["auto model pushed"] = vectors(SentenceTransformer("org/auto", **trusted))
model.save_pretrained("sent"); processor.save_pretrained("sent")
model.save_pretrained("sent", push_to_hub=True, repo_id="org/sent")
answer(dict(
    found=found, lira_hf="lira_hf" in sys.modules,
    files=dict(again=sorted(path.name for path in Path("again").iterdir()), auto=HfApi().list_repo_files("org/auto"), sent=HfApi().list_repo_files("org/sent")),
))
"""


def test_a_process_without_this_package_opens_saves_pushes_and_pins_with_the_same_vectors(folder, lira, prompted, tmp_path):
    items = [item for item, _ in ITEMS]
    with LoopbackHub(tmp_path / "hub") as hub:
        answer = hub.client(ELSEWHERE.format(folder, items, SENTENCES[6:10]), tmp_path / "home")
    assert answer["lira_hf"] is False
    expected = [expected_of(lira, prompted, prompt_name=name) for name in ("query", "document")] + [expected_of(lira, prompted, default="th")]
    assert set(answer["found"]) == {"folder", "saved again", "pushed", "pinned", "auto model pushed"}
    for found in answer["found"].values():
        for one, two in zip(found, expected, strict=True):
            same(one, two)
    whole = {path.name for path in Path(folder).iterdir() if path.is_file()}
    assert set(answer["files"]["again"]) - whole == {"README.md", "sentence_transformer_lira.json", "english_tokenizer"}
    assert whole <= set(answer["files"]["auto"]) and whole <= set(answer["files"]["again"])
    assert {"modules.json", "config_sentence_transformers.json", "sentence_transformer_lira.py"} <= set(answer["files"]["sent"])


def test_importing_this_package_does_not_import_sentence_transformers():
    code = "import json, sys, lira_hf.modeling, lira_hf.cli; print(json.dumps([name for name in sys.modules if name.startswith('sentence_transformers')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
