"""Backbones by reference, and what opening a folder refuses: the real client against a Hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from loopback_hub import LoopbackHub
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_backbones import SENTENCES, SMALL, stirred
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModel,
    BartphoTokenizer,
    LukeTokenizer,
    MarianTokenizer,
    MLukeTokenizer,
    MyT5Tokenizer,
    PhobertTokenizer,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    XLMRobertaTokenizer,
)

from lira_hf import LiraConfig, LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor
from lira_hf.modeling.tokenizers_lira import FILES, fingerprint
from lira_hf.training.adapters import adapted, merged

NAMES = {"multilingual": "org/xlm-r", "english": "org/bert", "llm": "org/qwen3-lm"}
ENCODERS = {name: NAMES[name] for name in ("multilingual", "english")}
HEADS = [LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraForCausalLM]
TEXTS, TRANSLATIONS = SENTENCES[6:10], [["tv 55 inch", "black tv"], ["red dress"], [], ["rice cooker", "pot"]]
OFFLINE = "http://127.0.0.1:9"  # nobody is there


def use(patch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """This process's client asks that Hub."""
    for name, value in {
        "ENDPOINT": endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": True,
    }.items():  # fmt: skip
        patch.setattr(constants, name, value)


def upload(hub: LoopbackHub, folder: str | Path, name: str, **options) -> str:
    """The commit of what is in a folder now."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo(name, exist_ok=True)
    return api.upload_folder(repo_id=name, folder_path=folder, **options).oid


@pytest.fixture(scope="module")
def hub(backbones, llms, tmp_path_factory):
    """A Hub with three backbones, asked by this process, whose cache is `hub.cache`."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub, pytest.MonkeyPatch.context() as patch:
        hub.cache = tmp_path_factory.mktemp("cache")
        use(patch, hub.endpoint, hub.cache)
        folders = {"org/xlm-r": backbones["xlm-r"], "org/bert": backbones["bert"], "org/qwen3-lm": llms["qwen3-lm"]}
        hub.commits = {name: upload(hub, folder, name) for name, folder in folders.items()}
        yield hub


@pytest.fixture
def processor(hub) -> LiraProcessor:
    return LiraProcessor.from_backbones(**NAMES)


def made(head: type = LiraForRetrieval, **fields):
    """A head around the Hub's backbones, its own part stirred."""
    torch.manual_seed(0)
    names = NAMES if head is LiraForCausalLM else ENCODERS
    return stirred(head.from_backbones(**names, **SMALL, **fields))


@pytest.fixture
def referred(hub, tmp_path) -> tuple[LiraForRetrieval, Path]:
    """A model, and the folder where it was saved by reference."""
    model = made()
    model.refer_backbones().save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def downloads(hub) -> int:
    return sum(count for request, count in hub.requests.items() if request.startswith("GET") and "/resolve/" in request)


def answer(model, processor, text: int = 4) -> torch.Tensor:
    batch = processor(TEXTS[:text], TRANSLATIONS[:text], language="th", return_tensors="pt")
    with torch.no_grad():
        if isinstance(model, LiraForCausalLM):
            return model.eval()(**batch).logits
        return model.eval().lira(**{name: tensor for name, tensor in batch.items() if name not in ("input_ids", "attention_mask")}).embeddings


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# ---- saved and opened ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_saved_without_its_backbones_and_opened_with_them(head, hub, processor, tmp_path):
    model = made(head)
    model.save_pretrained(tmp_path / "embedded")
    model.refer_backbones().save_pretrained(tmp_path / "reference")
    embedded, own = (load_file(tmp_path / folder / "model.safetensors") for folder in ("embedded", "reference"))
    backbones = {name for name in embedded if name.startswith(("lira.multilingual.", "lira.english.", "llm."))}
    assert backbones and own.keys() == embedded.keys() - backbones
    assert (tmp_path / "reference/model.safetensors").stat().st_size < sum(t.nbytes for t in own.values()) + 20_000
    config = json.loads((tmp_path / "reference/config.json").read_text())
    names = NAMES if head is LiraForCausalLM else ENCODERS
    assert config["backbone_references"] == {path: {"repo_id": name, "revision": hub.commits[name]} for path, name in names.items()}

    again, report = head.from_pretrained(tmp_path / "reference", output_loading_info=True)
    assert not any(report.values())
    assert not any(p.requires_grad for name, p in again.named_parameters() if name in backbones)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(answer(again, processor), answer(model, processor))
    again.embed_backbones().save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors").keys() == embedded.keys()


def test_the_switch_is_an_option_of_opening_too(referred, tmp_path):
    embedded = LiraForRetrieval.from_pretrained(referred[1], backbones="embedded")
    embedded.save_pretrained(tmp_path / "embedded")
    assert (tmp_path / "embedded/model.safetensors").stat().st_size > 2 * (referred[1] / "model.safetensors").stat().st_size
    again = AutoModel.from_pretrained(tmp_path / "embedded", backbones="reference")
    again.save_pretrained(tmp_path / "reference")
    assert (tmp_path / "reference/model.safetensors").read_bytes() == (referred[1] / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="backbones: 'inside' is not allowed"):
        LiraForRetrieval.from_pretrained(referred[1], backbones="inside")


def test_the_pinned_commit_wins_after_main_has_moved(hub, backbones, processor, referred, tmp_path):
    model, folder = referred
    expected = answer(model, processor)
    other = AutoModel.from_pretrained(backbones["bert"])
    torch.nn.init.normal_(other.embeddings.word_embeddings.weight)
    other.save_pretrained(tmp_path / "other")
    moved = upload(hub, tmp_path / "other", "org/bert")
    try:
        torch.testing.assert_close(answer(LiraForRetrieval.from_pretrained(folder, cache_dir=tmp_path / "cache"), processor), expected)
        fresh = made()
        assert fresh.config.backbone_references["english"]["revision"] == moved
        assert (answer(fresh, processor) - expected).abs().max() > 1e-3
    finally:
        upload(hub, backbones["bert"], "org/bert")


def test_a_second_opening_downloads_nothing_and_a_third_asks_nobody(hub, processor, referred, monkeypatch):
    model, folder = referred
    LiraForRetrieval.from_pretrained(folder)
    before = downloads(hub)
    LiraForRetrieval.from_pretrained(folder)
    assert downloads(hub) == before
    use(monkeypatch, OFFLINE, hub.cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(answer(LiraForRetrieval.from_pretrained(folder), processor), answer(model, processor))
    with pytest.raises(OSError, match="org/xlm-r"):
        LiraForRetrieval.from_pretrained(folder, cache_dir=hub.cache / "empty", local_files_only=True)


@pytest.mark.slow
def test_a_clean_process_opens_a_published_model_by_reference(hub, processor, tmp_path):
    model = made(LiraForCausalLM)
    model.refer_backbones().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    commit = upload(hub, tmp_path / "model", "org/lira")
    code = f"""
import sys, torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor
trusted = dict(trust_remote_code=True, revision={commit!r})
processor = AutoProcessor.from_pretrained("org/lira", **trusted)
batch = processor({TEXTS!r}, {TRANSLATIONS!r}, language="th", return_tensors="pt")
with torch.no_grad():
    model = AutoModelForCausalLM.from_pretrained("org/lira", **trusted)
    logits = model(**batch).logits
    half = AutoModelForCausalLM.from_pretrained("org/lira", dtype=torch.bfloat16, **trusted)
    embeddings = AutoModel.from_pretrained("org/lira", **trusted).encode({TEXTS!r}, processor=processor)
answer(dict(logits=logits.tolist(), embeddings=embeddings.tolist(), lira_hf="lira_hf" in sys.modules, name=model.name_or_path,
    types=sorted({{f"{{name.split('.')[0]}} {{p.dtype}}" for name, p in half.named_parameters()}})))
"""
    found = hub.client(code, tmp_path / "home", token=False)
    assert found["lira_hf"] is False and found["name"] == "org/lira"
    torch.testing.assert_close(torch.tensor(found["logits"]), answer(model, processor), atol=1e-5, rtol=0)
    expected = LiraForRetrieval.from_pretrained(tmp_path / "model").encode(TEXTS, processor=processor)
    torch.testing.assert_close(torch.tensor(found["embeddings"]), expected, atol=1e-5, rtol=0)
    assert found["types"] == ["lira torch.bfloat16", "lira torch.float32", "llm torch.bfloat16", "soft_prompt torch.float32"]
    before = downloads(hub)
    again = hub.client(code, tmp_path / "home", token=False, HF_HUB_OFFLINE="1", HF_ENDPOINT=OFFLINE)
    assert again == found and downloads(hub) == before


def test_backbones_in_half_precision_are_the_pinned_ones_rounded(referred, processor, tmp_path):
    half = LiraForRetrieval.from_pretrained(referred[1], dtype=torch.bfloat16)
    for path in ("multilingual", "english"):
        for (name, found), original in zip(getattr(half.lira, path).named_parameters(), getattr(referred[0].lira, path).parameters(), strict=True):
            assert torch.equal(found, original.bfloat16()), name
    assert half.lira.lasr.path_weight.dtype == torch.float32
    half.save_pretrained(tmp_path / "half")
    again = LiraForRetrieval.from_pretrained(tmp_path / "half")
    assert again.lira.english.dtype == torch.bfloat16
    assert torch.equal(answer(again, processor), answer(half, processor))


@pytest.mark.parametrize("head", [LiraForPreTraining, LiraForCausalLM])
def test_the_trainer_saves_resumes_and_takes_back_the_best(head, hub, processor, tmp_path, caplog):
    rows = list(range(4))

    def collate(given):
        answers = {"answer": ["1", "2", "3", "4"]} if head is LiraForCausalLM else {}
        batch = processor(TEXTS, TRANSLATIONS, language="th", **answers)
        return {name: batch[name] for name in batch if head is LiraForCausalLM or name not in ("input_ids", "attention_mask")}

    def trainer(steps: int, **options) -> Trainer:
        model = made(head, dropout=0.0, path_dropout=0.0, backbones="reference")
        args = TrainingArguments(
            str(tmp_path / "run"), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to="none", save_steps=2,
            remove_unused_columns=False, disable_tqdm=True, dataloader_pin_memory=False, lr_scheduler_type="constant", **options,
        )  # fmt: skip
        return Trainer(model, args, collate, train_dataset=rows, eval_dataset=rows)

    caplog.set_level("WARNING")
    whole = trainer(4, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, metric_for_best_model="loss")
    whole.train()
    checkpoint = tmp_path / "run/checkpoint-2"
    assert not any(name.startswith(("lira.multilingual", "llm")) for name in load_file(checkpoint / "model.safetensors"))
    best = head.from_pretrained(whole.state.best_model_checkpoint)
    assert all(torch.equal(tensor, whole.model.state_dict()[name]) for name, tensor in best.state_dict().items())
    resumed = trainer(4)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    last = head.from_pretrained(tmp_path / "run/checkpoint-4")
    assert all(torch.equal(tensor, resumed.model.state_dict()[name]) for name, tensor in last.state_dict().items())
    assert not torch.equal(
        last.lira.arca.adaptor.english_projection.weight, head.from_pretrained(checkpoint).lira.arca.adaptor.english_projection.weight
    )
    assert "missing keys" not in caplog.text


def test_a_language_model_joins_a_stage_1_folder_by_reference(hub, processor, tmp_path):
    made(LiraForPreTraining).refer_backbones().save_pretrained(tmp_path / "stage-1")
    model = LiraForCausalLM.from_anchored(tmp_path / "stage-1", llm=NAMES["llm"])
    model.save_pretrained(tmp_path / "stage-2")
    assert not any(name.startswith(("llm.", "lira.english")) for name in load_file(tmp_path / "stage-2/model.safetensors"))
    assert torch.equal(answer(LiraForCausalLM.from_pretrained(tmp_path / "stage-2"), processor), answer(model, processor))


def test_a_stage_1_folder_by_reference_refuses_a_language_model_that_has_none(hub, llms, tmp_path):
    made(LiraForPreTraining).refer_backbones().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="nothing says where the Hub has the llm backbone"):
        LiraForCausalLM.from_anchored(tmp_path, llm=llms["qwen3-lm"])
    assert LiraForCausalLM.from_anchored(tmp_path, llm=llms["qwen3-lm"], backbones="embedded").config.backbones == "embedded"


# ---- what cannot be referred to ----------------------------------------------------------------------------------------------


def test_a_backbone_from_a_folder_cannot_be_referred_to(hub, backbones, tmp_path):
    model = LiraForRetrieval.from_backbones(NAMES["multilingual"], backbones["bert"], **SMALL)
    with pytest.raises(ValueError, match="nothing says where the Hub has the english backbone.*Hub id"):
        model.refer_backbones()
    assert model.config.backbones == "embedded"
    with pytest.raises(ValueError, match="english backbone"):
        LiraForRetrieval.from_backbones(NAMES["multilingual"], backbones["bert"], backbones="reference", **SMALL)


def test_what_was_trained_cannot_be_referred_to(hub, tmp_path):
    with pytest.raises(ValueError, match=r"backbones: 'reference' is not allowed where trainable_backbones is \['english'\]"):
        made(trainable_backbones=["english"]).refer_backbones()
    model = made().refer_backbones()
    with torch.no_grad():
        model.lira.english.encoder.layer[0].output.dense.weight.data[0, 0] += 1e-6
    with pytest.raises(ValueError, match="english is no longer org/bert at .*encoder.layer.0.output.dense.weight differs, and would be lost"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.embed_backbones().save_pretrained(tmp_path / "model")
    again = LiraForRetrieval.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="english is no longer org/bert"):
        again.refer_backbones()


def test_merged_lora_cannot_be_referred_to_and_a_recipe_embeds_it(referred, processor, tmp_path):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = adapted(LiraForRetrieval.from_pretrained(referred[1]), {"english": {"r": 2}})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    by_hand = merged(model)
    by_hand.save_pretrained(tmp_path)
    torch.testing.assert_close(answer(LiraForRetrieval.from_pretrained(tmp_path), processor), answer(by_hand, processor))
    assert (answer(by_hand, processor) - answer(referred[0], processor)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="english is no longer org/bert"):
        by_hand.refer_backbones()


def test_references_are_checked_like_other_fields():
    good = {"repo_id": "org/name", "revision": "0" * 40}
    configs = {f"{path}_config": {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2} for path in ENCODERS}
    LiraConfig(**configs, backbones="reference", backbone_references=dict.fromkeys(ENCODERS, good))
    for bad in (
        [],
        {"german": good},
        {"english": "org/name"},
        {"english": good | {"revision": "main"}},
        {"english": good | {"repo_id": "../name/x"}},
    ):
        with pytest.raises(ValueError, match="^backbone_references: "):
            LiraConfig(**configs, backbone_references=bad)
    with pytest.raises(ValueError, match="^backbones: 'inside' is not allowed"):
        LiraConfig(**configs, backbones="inside")


# ---- what opening refuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [("model_type", "roberta", "bert"), ("num_hidden_layers", 3, "2"), ("hidden_act", "relu", "gelu"), ("vocab_size", 7, None)],
)
def test_a_backbone_whose_configuration_is_another_is_refused(field, value, found, referred):
    edit(referred[1] / "config.json", lambda config: config["english_config"].update({field: value}))
    with pytest.raises(ValueError, match=f"english_config: {field} is {value!r}, but the backbone, org/bert at .*has '?{found or ''}"):
        LiraForRetrieval.from_pretrained(referred[1])


def test_cosmetic_fields_of_a_backbone_may_differ(referred, processor):
    edit(referred[1] / "config.json", lambda config: config["english_config"].update(id2label={"0": "a"}, hidden_dropout_prob=0.3, use_cache=False))
    torch.testing.assert_close(answer(LiraForRetrieval.from_pretrained(referred[1]), processor), answer(referred[0], processor))


def refer(folder: Path, path: str, name: str, commit: str) -> None:
    edit(folder / "config.json", lambda config: config["backbone_references"].update({path: {"repo_id": name, "revision": commit}}))


def test_a_backbone_whose_weights_do_not_fit_is_refused(hub, backbones, referred, tmp_path):
    copy = Path(shutil.copytree(backbones["bert"], tmp_path / "bert"))
    weights = {name: tensor.clone() for name, tensor in load_file(copy / "model.safetensors").items()}  # the file itself is written anew
    lost = weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refer(referred[1], "english", "org/lost", upload(hub, copy, "org/lost"))
    with pytest.raises(ValueError, match="english: encoder.layer.1.output.dense.weight is missing in org/lost at "):
        LiraForRetrieval.from_pretrained(referred[1])
    save_file(weights | {"encoder.layer.1.output.dense.weight": lost[:, :5].contiguous()}, copy / "model.safetensors", {"format": "pt"})
    refer(referred[1], "english", "org/lost", upload(hub, copy, "org/lost"))
    with pytest.raises(ValueError, match=r"english: encoder.layer.1.output.dense.weight has the shape \[24, 5\] in org/lost at .*\[24, 48\]"):
        LiraForRetrieval.from_pretrained(referred[1])


def test_a_backbone_without_a_pooler_is_opened_because_nobody_reads_it(hub, backbones, processor, tmp_path):
    copy = Path(shutil.copytree(backbones["bert"], tmp_path / "bert"))
    weights = {name: tensor.clone() for name, tensor in load_file(copy / "model.safetensors").items() if not name.startswith("pooler")}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    upload(hub, copy, "org/poolerless")
    model = stirred(LiraForRetrieval.from_backbones(NAMES["multilingual"], "org/poolerless", **SMALL))
    model.refer_backbones().save_pretrained(tmp_path / "model")
    again = LiraForRetrieval.from_pretrained(tmp_path / "model")
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(answer(again, processor), answer(model, processor))


def test_no_pickle_is_read_or_asked_for(hub, backbones, referred, tmp_path):
    copy = Path(shutil.copytree(backbones["bert"], tmp_path / "bert"))
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    refer(referred[1], "english", "org/pickled", upload(hub, copy, "org/pickled"))
    for name in ("org/pickled", copy):
        with pytest.raises(ValueError, match="english: .*model.safetensors: missing.*never from a pickle"):
            LiraForRetrieval.from_backbones(NAMES["multilingual"], name, **SMALL)
    with pytest.raises(OSError, match="model.safetensors: missing.*never from a pickle"):
        LiraForRetrieval.from_pretrained(referred[1])
    torch.save({}, tmp_path / "pytorch_model.bin")
    shutil.copy(referred[1] / "config.json", tmp_path)
    with pytest.raises(OSError, match="never from a pickle"):
        LiraForRetrieval.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="use_safetensors: False is not allowed"):
        LiraForRetrieval.from_pretrained(referred[1], use_safetensors=False)
    assert not any("pytorch_model.bin" in request for request in hub.requests if request.startswith("GET"))


def adapter(model, folder: Path, **config) -> dict[str, torch.Tensor]:
    """A folder with an adapter of a model, whose weights it returns."""
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=r"lira\.multilingual\..*\.(query|value)", init_lora_weights=False))
    peft.save_pretrained(folder)
    edit(folder / "adapter_config.json", lambda saved: saved.update(config))
    return load_file(folder / "adapter_model.safetensors")


def test_an_adapter_is_read_from_safetensors_and_never_from_a_pickle(hub, model, processor, tmp_path):
    before = answer(model, processor)
    model.save_pretrained(tmp_path / "base")
    upload(hub, tmp_path / "base", "org/base")
    weights = adapter(model, tmp_path / "adapter", base_model_name_or_path="org/base")
    expected = answer(model, processor)
    assert (expected - before).abs().max() > 1e-3
    upload(hub, tmp_path / "adapter", "org/adapter")
    shutil.copytree(tmp_path / "base", tmp_path / "both")
    shutil.copytree(tmp_path / "adapter", tmp_path / "both", dirs_exist_ok=True)

    loaded = LiraForRetrieval.from_pretrained(tmp_path / "base")
    loaded.load_adapter(tmp_path / "adapter")
    for each in (loaded, LiraForRetrieval.from_pretrained(tmp_path / "both"), AutoModel.from_pretrained("org/adapter")):
        torch.testing.assert_close(answer(each, processor), expected)

    torch.save(weights, tmp_path / "both/adapter_model.bin")
    (tmp_path / "both/adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="both/adapter_model.safetensors: missing; .*never from a pickle"):
        LiraForRetrieval.from_pretrained(tmp_path / "both")
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("org/pickled-adapter")
    for file, name in (("adapter/adapter_config.json", "adapter_config.json"), ("both/adapter_model.bin", "adapter_model.bin")):
        api.upload_file(path_or_fileobj=tmp_path / file, path_in_repo=name, repo_id="org/pickled-adapter")
    with pytest.raises(OSError, match="adapter_model.safetensors: missing; .*never from a pickle"):
        AutoModel.from_pretrained("org/pickled-adapter")
    assert not any("adapter_model.bin" in request for request in hub.requests if request.startswith("GET"))


def test_an_adapter_of_the_hub_is_compared_with_its_hash(hub, model, processor, tmp_path):
    model.save_pretrained(tmp_path / "base")
    adapter(model, tmp_path / "adapter")
    upload(hub, tmp_path / "adapter", "org/checked-adapter")
    fault = hub.add_fault("corrupt", match="/resolve/.*/adapter_model.safetensors", method="GET")
    loaded = LiraForRetrieval.from_pretrained(tmp_path / "base")
    loaded.load_adapter("org/checked-adapter", adapter_kwargs={"cache_dir": tmp_path / "cache"})
    assert fault.hits == 1 and torch.equal(answer(loaded, processor), answer(model, processor))


def test_what_is_no_lira_model_is_refused_by_name(hub, backbones, tmp_path):
    for name in ("org/bert", backbones["bert"]):
        with pytest.raises(ValueError, match=f"^{name}: no LiRA model; the model_type in its config.json is 'bert', not 'lira'"):
            LiraForRetrieval.from_pretrained(name)
    with pytest.raises(ValueError, match=f"^{tmp_path}: no LiRA model; there is no config.json"):
        LiraForRetrieval.from_pretrained(tmp_path)


def test_a_folder_opens_whatever_became_of_files_that_opening_does_not_read(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    checksums = {path.relative_to(tmp_path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    checksums |= {"results/laz.json": "0" * 64, "onnx/model.onnx": "0" * 64}  # measured again, and removed
    (tmp_path / "results").mkdir()
    (tmp_path / "results/laz.json").write_text("{}")
    (tmp_path / "checksums.json").write_text(json.dumps({"sha256": checksums}))
    assert torch.equal(answer(LiraForRetrieval.from_pretrained(tmp_path), LiraProcessor.from_pretrained(tmp_path)), answer(model, processor))
    (tmp_path / "model.safetensors").unlink()  # as for ONNX
    LiraProcessor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model.safetensors: missing"):
        LiraForRetrieval.from_pretrained(tmp_path)
    edit(tmp_path / "english_tokenizer/tokenizer.json", lambda state: state["model"].update(merges=[]))
    with pytest.raises(ValueError, match="english_tokenizer/tokenizer.json: its sha256 is"):
        LiraProcessor.from_pretrained(tmp_path)


def test_no_configuration_makes_code_of_a_backbone_run(hub, backbones, processor, referred, tmp_path):
    """Neither the backbone's own configuration nor LiRA's copy of it, even where LiRA's own code is trusted."""
    copy, mark = Path(shutil.copytree(backbones["bert"], tmp_path / "bert")), tmp_path / "ran"
    (copy / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    code = {name: "modeling_evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForTextEncoding", "AutoTokenizer")}
    for name in ("config.json", "tokenizer_config.json"):
        edit(copy / name, lambda config: config.update(auto_map=code))
    commit = upload(hub, copy, "org/evil")
    refer(referred[1], "english", "org/evil", commit)
    theirs = {name: f"org/evil--{entry}" for name, entry in code.items()}
    edit(referred[1] / "config.json", lambda config: config["english_config"].update(auto_map=theirs))
    model = AutoModel.from_pretrained(referred[1], trust_remote_code=True)
    torch.testing.assert_close(answer(model, processor), answer(referred[0], processor))
    LiraForRetrieval.from_backbones(NAMES["multilingual"], "org/evil", **SMALL)
    LiraProcessor.from_backbones(NAMES["multilingual"], "org/evil").save_pretrained(tmp_path / "processor")
    edit(
        tmp_path / "processor/english_tokenizer/tokenizer_config.json",
        lambda config: config.update(auto_map={"AutoTokenizer": [None, "org/evil--modeling_evil.Evil"]}),
    )
    LiraProcessor.from_pretrained(tmp_path / "processor", trust_remote_code=True)
    edit(copy / "config.json", lambda config: config.update(model_type="evil"))
    upload(hub, copy, "org/evil")
    with pytest.raises(ValueError, match="english: 'org/evil' is neither"):
        LiraForRetrieval.from_backbones(NAMES["multilingual"], "org/evil", **SMALL)
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 5, 600, -1])
def test_a_file_that_was_cut_short_is_named(keep, model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    with open(shard, "rb+") as stream:
        stream.truncate(keep % shard.stat().st_size)
    with pytest.raises(OSError, match=f"{shard.name}: not whole"):
        LiraForRetrieval.from_pretrained(tmp_path)


def test_a_missing_shard_and_a_damaged_header_are_named(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    first, second, *_ = sorted(tmp_path.glob("model-*.safetensors"))
    with open(first, "rb+") as stream:
        stream.seek(9)
        stream.write(b"\x00\xff")
    with pytest.raises(OSError, match=f"{first.name}: no safetensors file"):
        LiraForRetrieval.from_pretrained(tmp_path)
    second.replace(first)
    with pytest.raises(OSError, match="is missing in it|missing, though model.safetensors.index.json names it"):
        LiraForRetrieval.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(OSError, match="index.json: not whole"):
        LiraForRetrieval.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("head", "lost"),
    [
        (LiraForRetrieval, "lira.lasr.path_weight"), (LiraForPreTraining, "lira.arca.adaptor.english_projection.weight"),
        (LiraForCausalLM, "lira.english.embeddings.word_embeddings.weight"), (LiraForCausalLM, "llm.model.norm.weight"),
        (LiraForCausalLM, "soft_prompt.boundary"), (LiraForSequenceClassification, "comparison.correction.0.weight"),
    ],
)  # fmt: skip
def test_a_missing_tensor_is_an_error_but_for_a_head_that_does_not_have_it(head, lost, hub, tmp_path):
    made(head, num_labels=1, problem_type="regression").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    other = LiraForPreTraining if head is LiraForRetrieval else LiraForRetrieval
    for each in (head, other) if lost.startswith("lira.") else (head,):
        with pytest.raises(ValueError, match=f"{tmp_path}: {lost.removeprefix('lira.')} is missing in its weights"):
            each.from_pretrained(tmp_path)
    if not lost.startswith("lira."):
        other.from_pretrained(tmp_path)


def test_a_pinned_backbone_is_never_a_folder_that_has_its_name(referred, processor, tmp_path, monkeypatch):
    (tmp_path / "org/bert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(answer(LiraForRetrieval.from_pretrained(referred[1]), processor), answer(referred[0], processor))


def test_a_part_that_only_the_new_choices_have_starts_anew(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert LiraForRetrieval.from_pretrained(tmp_path, embedding_dim=16).lira.lasr.projection.weight.shape == (16, 56)


# ---- tokenizers -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(processor, tmp_path) -> Path:
    processor.save_pretrained(tmp_path / "processor")
    return tmp_path / "processor"


def test_a_saved_processor_holds_fingerprints_and_opens(processor, saved):
    found = json.loads((saved / "processor_config.json").read_text())["fingerprints"]
    assert found.keys() == {"multilingual", "english", "llm"} and len(set(found.values())) == 3
    again = LiraProcessor.from_pretrained(saved)
    assert {name: fingerprint(tokenizer) for name, tokenizer in again.tokenizers.items()} == found
    again(TEXTS)  # a tokenizer that was used has kept options, which are not its identity
    assert fingerprint(again.tokenizer) == found["multilingual"]


def test_a_fingerprint_is_that_of_the_vocabulary_and_of_the_tokens():
    """By hand: ids and tokens in order, then the ids of each probe, joined by NUL. It must stay so, or saved processors open no more."""
    vocabulary = {"[UNK]": 0, "TV": 1, "damit": 2}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words(vocabulary), unk_token="[UNK]", pad_token="[UNK]")
    read = [[1, 0, 0, 0], [0] * 7, [0] * 4, [0] * 3, [0] * 4, [0] * 4, [0, 2]]
    expected = hashlib.sha256("\0".join(["0 [UNK]", "1 TV", "2 damit", *map(str, read)]).encode()).hexdigest()
    assert fingerprint(tokenizer) == expected
    tokenizer(["TV", "a b c d"], padding=True, truncation=True, max_length=2)  # options of its use are not its identity
    assert fingerprint(tokenizer) == expected


def words(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize("name", ["english", "llm"])
def test_a_missing_tokenizer_is_refused(name, saved):
    shutil.rmtree(saved / f"{name}_tokenizer")
    with pytest.raises(ValueError, match=f"{name} tokenizer: missing; .*{name}_tokenizer"):
        LiraProcessor.from_pretrained(saved)


def test_tokenizers_that_have_changed_places_are_refused(saved):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        root, sub, spare = saved / file, saved / "english_tokenizer" / file, saved / "spare"
        os.replace(root, spare)
        os.replace(sub, root)
        os.replace(spare, sub)
    with pytest.raises(ValueError, match="multilingual tokenizer: the one in .* is not the one that was saved .*it is the english one"):
        LiraProcessor.from_pretrained(saved)


def test_a_tokenizer_that_was_cut_short_is_named(saved):
    file = saved / "english_tokenizer/tokenizer.json"
    os.truncate(file, 500)
    with pytest.raises(ValueError, match=f"{file}: not whole"):
        LiraProcessor.from_pretrained(saved)


def test_files_of_tokenizers_that_have_other_names_are_fetched():
    for kind in (BartphoTokenizer, MarianTokenizer, LukeTokenizer, MLukeTokenizer, MyT5Tokenizer, PhobertTokenizer, XLMRobertaTokenizer):
        assert set(kind.vocab_files_names.values()) <= set(FILES), kind


def test_another_tokenizer_is_refused_even_with_the_same_vocabulary(saved):
    """The last merge gone: the same tokens with the same ids, but texts are cut otherwise."""
    edit(saved / "english_tokenizer/tokenizer.json", lambda state: state["model"].update(merges=state["model"]["merges"][:-60]))
    with pytest.raises(ValueError, match="english tokenizer: the one in .*english_tokenizer is not the one that was saved"):
        LiraProcessor.from_pretrained(saved)


def test_a_tokenizer_with_more_tokens_than_the_backbone_beside_it_is_refused(saved, model):
    model.save_pretrained(saved)
    LiraProcessor.from_pretrained(saved)
    edit(saved / "config.json", lambda config: config["english_config"].update(vocab_size=300))
    with pytest.raises(ValueError, match=r"english tokenizer: \d+ tokens in .*, but the backbone beside it has 300"):
        LiraProcessor.from_pretrained(saved)


# ---- the Hub's other options ---------------------------------------------------------------------------------------------------------


def test_revision_subfolder_cache_and_force_reach_the_hub(hub, processor, referred, tmp_path):
    model, folder = referred
    processor.save_pretrained(folder)
    first = upload(hub, folder, "org/nested", path_in_repo="inner")
    with torch.no_grad():
        model.lira.lasr.path_weight.add_(1)
    model.save_pretrained(folder)
    upload(hub, folder, "org/nested", path_in_repo="inner")
    where = {"subfolder": "inner", "cache_dir": tmp_path / "cache", "token": False}
    now, then = LiraForRetrieval.from_pretrained("org/nested", **where), LiraForRetrieval.from_pretrained("org/nested", revision=first, **where)
    assert torch.equal(now.lira.lasr.path_weight, then.lira.lasr.path_weight + 1)
    assert {path.name for path in (tmp_path / "cache").glob("models--*")} == {f"models--org--{name}" for name in ("nested", "xlm-r", "bert")}
    opened = LiraProcessor.from_pretrained("org/nested", revision=first, **where)
    assert torch.equal(answer(now, opened), answer(model, processor))
    before = downloads(hub)
    LiraForRetrieval.from_pretrained("org/nested", **where)
    assert downloads(hub) == before
    LiraForRetrieval.from_pretrained("org/nested", force_download=True, **where)
    assert downloads(hub) > before
    offline = LiraForRetrieval.from_pretrained("org/nested", local_files_only=True, **where)
    assert torch.equal(answer(offline, opened), answer(model, processor))
