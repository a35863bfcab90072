"""Backbones that learn: whole, or by LoRA through peft, with the plain Trainer, with resume, merged and from the adapter's folder."""

import json
import shutil
import sys

import pytest
import torch
from loopback_hub import LoopbackHub
from peft import LoraConfig, PeftModel, get_peft_model
from processes import together
from safetensors.torch import load_file
from small_backbones import SENTENCES, SMALL
from small_data import small_data
from transformers import AutoModel, Trainer, TrainingArguments

from lira_hf.catalogue.problems.builder import build_problems
from lira_hf.collation import Problem, ProblemData, ReasoningCollator
from lira_hf.evaluation.reasoning import responses
from lira_hf.modeling import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor
from lira_hf.modeling.processing_lira import Row
from lira_hf.training import check_recipe, lora_config, merged, run

CANDIDATES = [["tv 55 inch black", "black tv"], ["red cotton dress", "dress"], ["black t-shirt", "shirt"], ["rice cooker 1.8 l", "pot"]]
SCORES = [[(9, 9, 9), (6, 5, 6)]] * 4
TEXTS, LANGUAGES = SENTENCES[6:10], ["th", "th", "vi", "vi"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return small_data(tmp_path_factory.mktemp("laz"), ["id"])


@pytest.fixture
def recipe(data, backbones, tmp_path) -> dict:
    common = {"learning_rate": 1e-3, "disable_tqdm": True, "logging_steps": 1, "save_steps": 2, "per_device_train_batch_size": 4, "max_steps": 4}
    return {
        "data": data,
        "languages": ["id"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(tmp_path / "out"),
        "max_length": 32,
        "products_per_query": 2,
        "cache_features": False,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "queue": "ema", "queue_size": 32, "consistency_weight": 0.1},
        "anchoring": common,
        "retrieval": {**common, "eval_strategy": "steps", "eval_steps": 2},
    }  # fmt: skip


def built(folders, cls=LiraForRetrieval, **fields):
    torch.manual_seed(0)
    return cls.from_backbones(folders["xlm-r"], folders["bert"], **{**SMALL, **fields})


def retrieval_batch(processor) -> dict:
    references = dict(processor([c[0] for c in CANDIDATES], [[c[0]] for c in CANDIDATES]))
    return {
        **processor(TEXTS, CANDIDATES, SCORES, LANGUAGES),
        "products": dict(processor(SENTENCES[:4], language="en")),
        "relevances": torch.tensor([[3, 0, -1, -1], [-1, 2, 0, -1], [-1, -1, 1, 0], [-1, 3, -1, 0]]),
        "references": references,
        "product_references": references,
    }


def with_gradient(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model.safetensors")


def furthest(one: dict, two: dict) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


# ---- unfrozen -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [["multilingual"], ["english"], ["multilingual", "english"]], ids=str)
@pytest.mark.parametrize("later", [False, True], ids=["from the start", "later"])
def test_gradients_reach_the_named_backbones_only(backbones, processor, named, later):
    model = built(backbones, trainable_backbones=[] if later else named)
    model.config.trainable_backbones = named
    model.train()
    model(**retrieval_batch(processor)).loss.backward()
    for name in ("multilingual", "english"):
        backbone = getattr(model.lira, name)
        assert all(module.training == (name in named) for module in backbone.modules())
        reached = [parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in backbone.parameters()]
        assert sum(reached) > 0.8 * len(reached) if name in named else not any(reached)  # a pooler is read by nobody
    model.eval()
    assert not any(module.training for module in model.modules())


def test_what_was_frozen_by_hand_in_a_trainable_backbone_stays_so(backbones):
    model = built(backbones, trainable_backbones=["english"])
    model.lira.english.embeddings.requires_grad_(False)
    model.train()
    assert not any(p.requires_grad for p in model.lira.english.embeddings.parameters())
    assert all(p.requires_grad for p in model.lira.english.encoder.parameters())


def test_a_trained_backbone_refuses_cached_features_and_a_frozen_one_takes_them(backbones, processor):
    batch = dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    model = built(backbones, LiraForPreTraining, trainable_backbones=["english"])
    features = model.lira.encode_features(batch)
    model.train()
    with pytest.raises(ValueError, match="^english_features: a backbone that is trained reads ids"):
        model(**{name: tensor.detach() for name, tensor in features.items()})
    frozen = {name: tensor for name, tensor in features.items() if name.startswith(("multilingual_", "text_"))}
    english = {name: tensor for name, tensor in batch.items() if not name.startswith("multilingual_")}
    model(**frozen, **english).loss.backward()
    assert any(name.startswith("lira.english.encoder") for name in with_gradient(model))


def test_the_consistency_target_has_no_dropout_of_a_trained_backbone(backbones, processor):
    model = built(backbones, trainable_backbones=["multilingual", "english"], dropout=0.0, path_dropout=0.0).train()
    seen = []
    model.lira.english.embeddings.dropout.register_forward_hook(lambda module, args, output: seen.append(module.training))
    model(**retrieval_batch(processor))
    assert seen == [True, True, False, False]  # queries and products, then the references of both
    assert model.training and model.lira.english.training


def test_trained_backbones_change_in_both_stages_are_saved_whole_and_open_equal(recipe, processor):
    recipe["model"]["trainable_backbones"] = ["multilingual"]
    folder = run(check_recipe(recipe))
    start = built({"xlm-r": recipe["backbones"]["multilingual"], "bert": recipe["backbones"]["english"]}).lira
    stages = [weights(folder.parent / "anchoring" / "model"), weights(folder)]
    before = {f"lira.multilingual.{name}": tensor for name, tensor in start.multilingual.state_dict().items()}
    layer = "lira.multilingual.encoder.layer.0.output.dense.weight"
    assert not torch.equal(stages[0][layer], before[layer]) and not torch.equal(stages[1][layer], stages[0][layer])
    english = {f"lira.english.{name}": tensor for name, tensor in start.english.state_dict().items()}
    assert all(torch.equal(stage[name], tensor) for stage in stages for name, tensor in english.items())
    assert before.keys() <= stages[1].keys()
    model = LiraForRetrieval.from_pretrained(folder)
    assert model.config.trainable_backbones == ["multilingual"]
    assert furthest(dict(model.state_dict()), stages[1]) == 0
    assert json.loads((folder / "config.json").read_text())["trainable_backbones"] == ["multilingual"]


@pytest.mark.parametrize(
    "change", [{"model": {"trainable_backbones": ["english"]}}, {"lora": {"english": {"r": 2}}}], ids=["trainable_backbones", "lora"]
)
def test_cached_features_of_a_backbone_that_learns_are_refused_in_a_recipe(recipe, change):
    with pytest.raises(ValueError, match="cache_features: true does not go with a english backbone .*set cache_features: false"):
        check_recipe({**recipe, **change, "cache_features": True})
    assert check_recipe({**recipe, **change}).cache_features is False


def test_the_backbones_have_a_learning_rate_of_their_own(recipe):
    recipe["model"]["trainable_backbones"] = ["english"]
    recipe |= {"stage": "retrieval"}
    recipe["retrieval"] |= {"backbone_learning_rate": 1e-12, "learning_rate": 1e-2, "weight_decay": 0.01}
    folder = run(check_recipe(recipe))
    start = built({"xlm-r": recipe["backbones"]["multilingual"], "bert": recipe["backbones"]["english"]}).lira
    after = weights(folder)
    moved = max(float((after[f"lira.english.{name}"] - tensor).abs().max()) for name, tensor in start.english.state_dict().items())
    assert moved < 1e-9
    state = torch.load(folder.parent / "retrieval" / "checkpoint-4" / "optimizer.pt", weights_only=True)
    groups = [(group["initial_lr"], group["weight_decay"]) for group in state["param_groups"]]
    assert groups == [(1e-2, 0.01), (1e-2, 0.0), (1e-12, 0.01), (1e-12, 0.0)]
    own = sum(p.numel() > 0 for part in (start.arca, start.lasr) for p in part.parameters())
    sizes = [len(group["params"]) for group in state["param_groups"]]
    assert sizes[2] + sizes[3] == sum(1 for _ in start.english.parameters()) and sizes[0] + sizes[1] == own


def test_a_learning_rate_for_backbones_that_are_frozen_is_refused(recipe):
    recipe |= {"stage": "retrieval"}
    recipe["retrieval"]["backbone_learning_rate"] = 1e-5
    with pytest.raises(ValueError, match="backbone_learning_rate: 1e-05, but no backbone is trained"):
        run(check_recipe(recipe))


# ---- LoRA by peft alone ----------------------------------------------------------------------------------------------------


def stir(model) -> None:
    """Adapters start as no change at all; this makes them one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("cls", [LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification])
def test_plain_peft_trains_saves_loads_and_merges(backbones, processor, tmp_path, cls):
    ranks = cls is LiraForSequenceClassification
    built(backbones, cls, **({"num_labels": 1} if ranks else {})).save_pretrained(tmp_path / "base")
    own = ["arca", "lasr", *(["comparison"] if ranks else [])]
    config = LoraConfig(target_modules=r"lira\.multilingual\..*\.(query|value)", modules_to_save=own)
    model = get_peft_model(cls.from_pretrained(tmp_path / "base"), config)
    rows = [{"row": i} for i in range(8)]
    batch = retrieval_batch(processor) if cls is LiraForRetrieval else dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    if ranks:
        batch |= {**{f"pair_{name}": tensor.flip(0) for name, tensor in batch.items()}, "labels": torch.tensor([0.1, 0.9, 0.4, 0.6])}
    args = TrainingArguments(
        str(tmp_path / "trained"), use_cpu=True, max_steps=3, learning_rate=1e-2, remove_unused_columns=False, disable_tqdm=True, save_strategy="no"
    )
    Trainer(model, args, train_dataset=rows, data_collator=lambda rows: batch).train()
    assert model.pop_measured() and isinstance(model.queue_state(), dict)  # what our callbacks ask for
    model.save_pretrained(tmp_path / "adapter")
    model.eval()
    inputs = dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    expected = model.lira(**inputs).embeddings.detach()
    if ranks:
        logits = model(**batch).logits.detach()
    base = cls.from_pretrained(tmp_path / "base")
    assert float((base.lira(**inputs).embeddings - expected).detach().abs().max()) > 1e-3
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(loaded.lira(**inputs).embeddings.detach(), expected, atol=1e-6, rtol=0)
    if ranks:
        torch.testing.assert_close(loaded(**batch).logits.detach(), logits, atol=1e-5, rtol=0)
    plain = loaded.merge_and_unload()
    torch.testing.assert_close(plain.lira(**inputs).embeddings.detach(), expected, atol=1e-5, rtol=0)
    assert type(plain) is cls and plain.state_dict().keys() == base.state_dict().keys()
    plain.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(cls.from_pretrained(tmp_path / "merged").lira(**inputs).embeddings.detach(), expected, atol=1e-5, rtol=0)


ADAPTER = """
from huggingface_hub import HfApi
from peft import PeftModel
from transformers import AutoModel, AutoProcessor
base, adapter, texts = {0!r}, {1!r}, {2!r}
HfApi().create_repo("org/base")
HfApi().upload_folder(repo_id="org/base", folder_path=base)
processor = AutoProcessor.from_pretrained("org/base", trust_remote_code=True)
def fresh(): return AutoModel.from_pretrained("org/base", trust_remote_code=True)
def vectors(model): return model.encode(texts, processor=processor).tolist()
model = PeftModel.from_pretrained(fresh(), adapter)
found = dict(folder=vectors(model))
model.peft_config["default"].base_model_name_or_path = "org/base"
model.push_to_hub("org/adapter")
found["adapter from the hub"] = vectors(PeftModel.from_pretrained(fresh(), "org/adapter"))
found["adapter by AutoModel, which finds the base"] = vectors(AutoModel.from_pretrained("org/adapter", trust_remote_code=True))
model.merge_and_unload().push_to_hub("org/merged")
found["merged"] = vectors(AutoModel.from_pretrained("org/merged", trust_remote_code=True))
answer(dict(found=found, files=HfApi().list_repo_files("org/adapter"), plain=vectors(fresh()), lira_hf="lira_hf" in sys.modules))
"""


@pytest.mark.slow
def test_an_adapter_is_published_and_opens_on_its_published_base_where_this_package_is_not(backbones, processor, tmp_path):
    built(backbones).save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    model = LiraForRetrieval.from_pretrained(tmp_path / "base")
    model = get_peft_model(model, lora_config(model, {"multilingual": {"r": 4}}))
    stir(model)
    model.save_pretrained(tmp_path / "adapter")
    expected = model.encode(TEXTS, processor=processor)
    with LoopbackHub(tmp_path / "hub") as hub:
        answer = hub.client(ADAPTER.format(str(tmp_path / "base"), str(tmp_path / "adapter"), TEXTS), tmp_path / "home")
    assert answer["lira_hf"] is False and len(answer["found"]) == 4
    assert float((torch.tensor(answer["plain"]) - expected).abs().max()) > 1e-3
    for found in answer["found"].values():
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)
    assert set(answer["files"]) - {".gitattributes"} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}  # no pickle


def test_gradients_reach_lora_and_our_own_parts_only(backbones, processor):
    model = built(backbones)
    model = get_peft_model(model, lora_config(model, {"english": {"r": 4}}))
    stir(model)  # at first the gradient of half of LoRA's matrices is zero
    model.train()
    model(**retrieval_batch(processor)).loss.backward()
    reached = with_gradient(model)
    assert all("lira.english" in name for name in reached if "lora_" in name)
    assert len([name for name in reached if "lora_" in name]) == 2 * 2 * 2  # layers, query and value, A and B
    assert all("lora_" in name or ".lira.arca.modules_to_save." in name or ".lira.lasr.modules_to_save." in name for name in reached)
    assert any(".lira.arca." in name for name in reached) and any(".lira.lasr." in name for name in reached)
    assert model.lira.english.training and not model.lira.multilingual.training


def test_each_backbone_has_a_rank_and_layers_of_its_own(backbones):
    model = built(backbones)
    groups = {"multilingual": {"r": 4, "lora_alpha": 4}, "english": {"r": 2, "target_modules": ["key", "dense"]}}
    adapted = get_peft_model(model, lora_config(model, groups))
    layers = {name.removeprefix("base_model.model."): layer for name, layer in adapted.named_modules() if hasattr(layer, "lora_A")}
    ranks = {(name.split(".")[1], name.split(".")[-1]): (layer.r["default"], layer.scaling["default"]) for name, layer in layers.items()}
    one, two = (4, 1.0), (2, 2.0)
    assert ranks == {("multilingual", "query"): one, ("multilingual", "value"): one, ("english", "key"): two, ("english", "dense"): two}


def test_a_backbone_may_be_trained_whole_beside_lora_in_the_other(backbones, processor, tmp_path):
    model = built(backbones, trainable_backbones=["english"])
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, lora_config(model, {"multilingual": {"r": 2}})).train()
    adapted(**retrieval_batch(processor)).loss.backward()
    reached = with_gradient(adapted)
    assert any("english.modules_to_save" in name for name in reached) and any("lora_B" in name for name in reached)
    stir(adapted)
    adapted.eval().save_pretrained(tmp_path / "adapter")
    inputs = dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    loaded = PeftModel.from_pretrained(LiraForRetrieval.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(loaded(**inputs).embeddings, adapted(**inputs).embeddings, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"llm": {}}, "lora.llm: this model has no such backbone; it has multilingual, english"),
        ({"english": {"target_modules": ["q_proj"]}}, r"lora.english.target_modules: \['q_proj'\] are no layers of this backbone"),
        ({"english": {"lora_dropout": 0.1}, "multilingual": {}}, "lora: lora_dropout is 0.0 and 0.1; it must be the same"),
        ({"multilingual": {}}, "lora.multilingual: trainable_backbones names it too"),
    ],
)
def test_what_lora_cannot_do_is_said(backbones, groups, message):
    model = built(backbones, trainable_backbones=["multilingual"] if "names it too" in message else [])
    with pytest.raises(ValueError, match=f"^{message}"):
        lora_config(model, groups)


def test_a_backbone_that_peft_does_not_know_is_asked_for_its_layers(backbones, monkeypatch):
    model = built(backbones)
    model.lira.english.config.model_type = "unheard-of"
    with pytest.raises(ValueError, match="lora.english.target_modules: missing; name some of this backbone's layers: dense, key, query, value"):
        lora_config(model, {"english": {}})


def test_a_missing_peft_is_named_with_the_line_that_installs_it(backbones, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"lora: peft is missing; install it with pip install 'lira-hf\[peft\]'"):
        lora_config(built(backbones), {"english": {}})


# ---- LoRA in a recipe --------------------------------------------------------------------------------------------------------


def test_a_recipe_with_lora_leaves_an_adapter_and_a_merged_model_and_resumes_to_the_same(recipe, tmp_path):
    recipe["lora"] = {"multilingual": {"r": 4, "lora_dropout": 0.1}, "english": {"r": 2, "lora_dropout": 0.1}}
    recipe["retrieval"] |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_ndcg@10"}
    folder = run(check_recipe(recipe))
    model, processor = LiraForRetrieval.from_pretrained(folder), LiraProcessor.from_pretrained(folder)
    inputs = dict(processor(TEXTS, CANDIDATES, SCORES, LANGUAGES))
    base = LiraForRetrieval.from_pretrained(folder.parent / "base")
    layer = "lira.multilingual.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(base.state_dict()[layer], model.state_dict()[layer])
    peft = PeftModel.from_pretrained(base, folder.parent / "adapter")
    torch.testing.assert_close(peft(**inputs).embeddings.detach(), model(**inputs).embeddings.detach(), atol=1e-5, rtol=0)
    adapter = load_file(folder.parent / "adapter" / "adapter_model.safetensors")
    assert any("lasr.correction" in name for name in adapter) and not any("base_layer" in name for name in adapter)
    assert json.loads((folder.parent / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder.parent / "base")
    log = json.loads((folder / "training_log.json").read_text())
    assert "loss_ndcg" in log[0] and any("eval_ndcg@10" in entry and "eval_loss" in entry for entry in log)

    again = {**recipe, "output": str(tmp_path / "again")}
    shutil.copytree(recipe["output"], again["output"])
    for name in ("model", "adapter", "retrieval/checkpoint-4"):
        shutil.rmtree(tmp_path / "again" / name)
    assert furthest(weights(run(check_recipe(again), resume=True)), weights(folder)) == 0


@pytest.mark.slow
def test_two_processes_train_an_adapter_as_one_does_with_the_batch_of_both(recipe, tmp_path):
    still = {"dropout": 0.0, "path_dropout": 0.0, "queue": "none", "consistency_weight": 0.0}
    recipe |= {"stage": "anchoring", "model": {**recipe["model"], **still}, "lora": {"english": {"r": 2}}}
    folders = {}
    for role, place in (
        ("multilingual", "xlm-r"),
        ("english", "bert"),
    ):  # a backbone that is trained has dropout; here it would differ between processes
        quiet = AutoModel.from_pretrained(recipe["backbones"][role], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        shutil.copytree(recipe["backbones"][role], tmp_path / place)
        quiet.save_pretrained(tmp_path / place)
    recipe["backbones"] = {"multilingual": str(tmp_path / "xlm-r"), "english": str(tmp_path / "bert")}
    for count in (1, 2):
        # Adam would make a whole step of the rounding error of a gradient that is zero.
        stage = {**recipe["anchoring"], "optim": "sgd", "learning_rate": 0.1, "per_device_train_batch_size": 8 // count}
        whole = check_recipe({**recipe, "output": str(tmp_path / str(count)), "anchoring": stage})
        folders[count] = together(2, run, whole)[0] if count == 2 else run(whole)
    one, two = (weights(folders[count]) for count in (1, 2))
    assert furthest(one, two) < 1e-5
    query = "lira.english.encoder.layer.1.attention.self.query.weight"
    assert float((one[query] - AutoModel.from_pretrained(tmp_path / "bert").state_dict()[query.removeprefix("lira.english.")]).abs().max()) > 1e-7


def test_adapters_are_refused_under_fsdp(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="^lora: adapters are not trained under FSDP"):
        run(check_recipe({**recipe, "lora": {"english": {}}}))


def test_merging_a_model_without_adapters_gives_it_back(model):
    assert merged(model) is model


# ---- the other heads ---------------------------------------------------------------------------------------------------------


def test_lora_in_the_language_model_keeps_the_soft_prompt_and_what_is_written(backbones, llms, tmp_path):
    paths = backbones["xlm-r"], backbones["bert"]
    reader = LiraProcessor.from_backbones(*paths, llm=llms["qwen3-lm"], llm_prompt="Q: {question} A:")
    torch.manual_seed(0)
    LiraForCausalLM.from_backbones(*paths, llm=llms["qwen3-lm"], **SMALL).save_pretrained(tmp_path / "base")
    model = LiraForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(model, lora_config(model, {"llm": {"r": 4}}))
    assert set(model.peft_config["default"].modules_to_save) == {"lira.arca", "lira.lasr", "soft_prompt"}
    part = ProblemData("th", [Problem("a", Row(TEXTS[0], ["tv 55"], [None], "th", None), "tv 55", "12", "12", "sum", "one", ["12", "9"], 0)])
    batch = ReasoningCollator(reader)(part.problems)
    stir(model)
    model.train()
    model(**batch).loss.backward()
    reached = with_gradient(model)
    assert any("llm." in name and "lora_A" in name for name in reached) and any("soft_prompt.modules_to_save" in name for name in reached)
    assert not any("llm." in name and "lora_" not in name for name in reached)
    model.eval().save_pretrained(tmp_path / "adapter")
    expected, written = model(**batch).logits.detach(), responses(model, reader, part.problems)
    loaded = PeftModel.from_pretrained(LiraForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(loaded(**batch).logits.detach(), expected, atol=1e-5, rtol=0)
    plain = loaded.merge_and_unload()
    torch.testing.assert_close(plain(**batch).logits.detach(), expected, atol=1e-4, rtol=0)
    assert responses(plain, reader, part.problems) == written


@pytest.mark.slow
def test_a_recipe_puts_lora_into_the_language_model_and_may_cache_features(recipe, llms, tmp_path):
    data = build_problems(tmp_path / "problems", rows=30, languages=["id"])
    stage = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "disable_tqdm": True, "logging_steps": 1}
    recipe |= {"data": str(data), "lora": {"llm": {"r": 2}}, "cache_features": True, "llm_prompt": "Q: {question} A:", "evaluation_rows": 1}
    recipe["backbones"] = {**recipe["backbones"], "llm": llms["qwen3-lm"]}
    recipe |= {"anchoring": stage, "reasoning": {**stage, "eval_strategy": "steps", "eval_steps": 2}}
    del recipe["retrieval"], recipe["products_per_query"]
    folder = run(check_recipe(recipe))
    model, before = LiraForCausalLM.from_pretrained(folder), load_file(f"{llms['qwen3-lm']}/model.safetensors")
    changed = {name.split(".")[-2] for name, tensor in before.items() if not torch.equal(tensor, model.llm.state_dict()[name])}
    assert changed == {"q_proj", "v_proj"}
    peft = PeftModel.from_pretrained(LiraForCausalLM.from_pretrained(folder.parent / "base"), folder.parent / "adapter")
    reader = LiraProcessor.from_pretrained(folder)
    batch = ReasoningCollator(reader)([Problem("a", Row(TEXTS[0], ["tv 55"], [None], "th", None), "tv 55", "12", "12", "sum", "one", ["12", "9"], 0)])
    torch.testing.assert_close(peft(**batch).logits.detach(), model(**batch).logits.detach(), atol=1e-4, rtol=0)
    log = json.loads((folder / "training_log.json").read_text())
    assert [entry["eval_accuracy"] for entry in log if "eval_loss" in entry]
