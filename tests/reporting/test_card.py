"""The card of a model: valid for the Hub, right about what is there, silent about what is not."""

import json
import re

import pytest
import torch
from huggingface_hub import ModelCard
from small_backbones import SMALL

from lira_hf import LiraForCausalLM, LiraForPreTraining, LiraForRetrieval, LiraForSequenceClassification, LiraProcessor
from lira_hf.reporting import keep, markdown, model_card, results
from lira_hf.training import check_recipe, load_recipe
from lira_hf.training.running import save

HEADS = [LiraForRetrieval, LiraForSequenceClassification, LiraForPreTraining, LiraForCausalLM]


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def found(seeds=(0, 1, 2), **more):
    """A results.json of two systems, three languages and a slice."""
    systems = {}
    for place, name in enumerate(("concat", "lira")):
        scores = {"languages": {"th": 70.25 + place, "vi": 60.5 + place, "fil": 80.0}, "average": 70.4 + place, "slices": {"typo": 55.5}}
        if len(seeds) > 1:
            spread = {"languages": {"th": 0.5, "vi": 0.0, "fil": 1.25}, "average": 0.3, "slices": {"typo": 2.0}}
            scores |= {"spread": spread, "seeds": [70.1 + place, 70.4 + place, 70.7 + place]}
        systems[name] = scores
    return results(systems, benchmark="LazRetrieval small (synthetic), tiny backbones", model="lira", seeds=list(seeds), split="test", **more)


def with_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        if name.endswith("_config"):
            config[name] |= value
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("head", HEADS)
def test_the_card_of_a_folder_without_results_is_valid_and_its_code_runs(head, backbones, llms, tmp_path):
    paths = backbones["t5" if head is LiraForPreTraining else "xlm-r"], backbones["bert"]
    llm = {"llm": llms["gpt2"]} if head is LiraForCausalLM else {}
    more = {"num_labels": 1, "problem_type": "regression"} if head is LiraForSequenceClassification else {}
    head.from_backbones(*paths, **SMALL, **llm, **more).save_pretrained(tmp_path)
    LiraProcessor.from_backbones(*paths, **llm).save_pretrained(tmp_path)
    text = model_card(tmp_path, "org/lira-small")
    data = ModelCard(text).data
    assert (data.library_name, data.license, data.eval_results) == ("transformers", "apache-2.0", None)
    assert data.language == ["vi", "th", "id", "ms", "ur", "bn", "fil", "en"]
    assert "base_model" not in data.to_dict()  # these backbones are folders
    assert "None were recorded" in text and "None was made" in text and "No recipe" in text and "synthetic" not in text
    assert "$" not in text and str(tmp_path.parent) not in text
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1 + (head is LiraForRetrieval)  # the second is of sentence-transformers
    for code in blocks:
        exec(code.replace('"org/lira-small"', repr(str(tmp_path))), {})


def test_the_model_index_holds_the_scores_of_the_files_and_so_do_the_tables(folder):
    measured = found()
    keep(measured, folder, "laz")
    keep(
        {**found(seeds=()), "metric": "pearson", "benchmark": "STS22.v2", "systems": {"lira": {"languages": {"de": 51.5}, "average": 51.5}}},
        folder,
        "sts22",
    )
    text = model_card(folder, "org/lira-small")
    read = ModelCard(text).data.eval_results
    laz = {result.dataset_config: result.metric_value for result in read if result.dataset_type == "laz"}
    assert laz == measured["systems"]["lira"]["languages"] and {r.metric_type for r in read} == {"ndcg_at_10", "pearson_cosine"}
    assert all("mean of 3 seeds" in r.metric_name for r in read if r.dataset_type == "laz")
    assert markdown(measured) in text and markdown(measured, slices=True) in text and "| pearson | average | de |" in text
    assert "synthetic data" in text and "backbones are tiny" in text
    assert "Not measured: belebele, mlqa (" in text and "Not measured on STS22.v2: Vietnamese (vi), Thai (th)" in text
    again = ModelCard(text).data  # what was read is written alike
    assert ModelCard(f"---\n{again.to_yaml()}\n---\n").data.to_dict() == again.to_dict()


def test_the_recipe_is_shown_without_the_disk_it_lay_on_and_names_the_seed(model, processor, backbones, tmp_path):
    torch.manual_seed(0)
    recipe = check_recipe(
        {"data": str(tmp_path / "shop"), "output": str(tmp_path / "out"), "seed": 2, "languages": ["th"],
         "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]}, "retrieval": {"max_steps": 7}}
    )  # fmt: skip
    folder = tmp_path / "model"
    save(model, processor, folder, [{"step": 7, "eval_loss": 0.5, "eval_ndcg@10": 81.25}], recipe)
    assert load_recipe(folder / "recipe.yaml") == recipe
    keep(found(), folder, "laz")
    text = model_card(folder, "org/lira-small")
    assert str(tmp_path) not in text and "data: shop\n" in text and "max_steps: 7" in text and "torch 2." in text
    assert "those of seed 2, whose own average is 71.7." in text
    assert "took 7 steps; its last validation: loss 0.5, ndcg@10 81.2." in text
    assert ModelCard(text).data.language == ["th", "en"]


REFERENCES = {
    path: {"repo_id": repo_id, "revision": "0123456789abcdef" * 2 + "01234567"}
    for path, repo_id in (("multilingual", "intfloat/multilingual-e5-small"), ("english", "BAAI/bge-small-en-v1.5"))
}


@pytest.mark.parametrize(
    ("fields", "relation"),
    [({}, "merge"), ({"backbones": "reference", "backbone_references": REFERENCES}, "adapter"), ({"trainable_backbones": ["english"]}, "finetune")],
)
def test_backbones_and_data_of_the_hub_are_linked(folder, fields, relation):
    with_config(
        folder,
        multilingual_config={"_name_or_path": "intfloat/multilingual-e5-small"},
        english_config={"_name_or_path": "BAAI/bge-small-en-v1.5"},
        **fields,
    )
    (folder / "recipe.yaml").write_text(
        "data: org/laz-retrieval\nbackbones: {multilingual: intfloat/multilingual-e5-small, english: BAAI/bge-small-en-v1.5}\n"
    )
    text = model_card(folder, "org/lira-small", license="mit")
    data = ModelCard(text).data.to_dict()
    assert data["base_model"] == ["intfloat/multilingual-e5-small", "BAAI/bge-small-en-v1.5"] and data["base_model_relation"] == relation
    assert data["datasets"] == ["org/laz-retrieval"] and data["license"] == "mit"
    assert "(https://huggingface.co/datasets/org/laz-retrieval)" in text
    assert ("loaded from its own repository" in text) == (relation == "adapter")


def test_a_backbone_by_reference_is_named_by_its_commit(folder):
    with_config(folder, backbones="reference", backbone_references=REFERENCES)
    text = model_card(folder, "org/lira-small")
    assert ModelCard(text).data.base_model == [reference["repo_id"] for reference in REFERENCES.values()] and "at `0123456789ab` | bert |" in text


def test_what_the_graphs_of_an_export_measured_stands_beside_the_benchmarks_and_not_in_the_index(folder):
    graphs = {"lira": "concat", "onnx": "lira", "onnx_int8": "lira"}
    one = found(seeds=(), speed={"ratio": {"onnx_int8": {"median": 2.5, "lowest": 2.0, "highest": 3.0}}})
    one["systems"] = {name: one["systems"][same] for name, same in graphs.items()}
    keep(one, folder, "onnx")
    text = model_card(folder, "org/lira-small")
    assert "### ONNX graphs" in text and "| LiRA, ONNX, 8 bits | 71.4 |" in text and "LiRA, ONNX, 8 bits: 2.50 (2.00 to 3.00)" in text
    assert ModelCard(text).data.eval_results is None


def test_a_certificate_is_shown_as_it_was_written(folder):
    card = {"title": "Certificate (empirical)", "header": ["", "|z - z*| p95"], "rows": [["all", "1.32"]], "notes": ["violated: |h(y) - h(y*)| <= c"]}
    keep({"card": card}, folder, "certificate")
    text = model_card(folder, "org/lira-small")
    assert "| all | 1.32 |" in text and r"\|z - z\*\| p95 |" in text and "None was made" not in text and "not certified" not in text


def test_ways_to_load_are_shown_where_their_files_are(folder):
    (folder / "modules.json").unlink(missing_ok=True)
    text = model_card(folder, "org/lira-small")
    assert "onnxruntime" not in text and "SentenceTransformer" not in text
    (folder / "onnx").mkdir()
    for name in ("modules.json", "onnx/model.onnx"):
        (folder / name).write_text("[]")
    text = model_card(folder, "org/lira-small")
    assert "onnxruntime" in text and "SentenceTransformer(" in text and {"onnx", "sentence-transformers"} <= set(ModelCard(text).data.tags)


def test_the_parameters_of_each_part_are_counted_in_the_weights(folder, model):
    text = model_card(folder, "org/lira-small")
    for part in (model.lira.multilingual, model.lira.english):
        assert f"| {sum(p.numel() for p in part.parameters()):,} | frozen |" in text
    own = sum(p.numel() for p in (*model.lira.arca.parameters(), *model.lira.lasr.parameters()))
    assert f"| {own:,} | trained |" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results/laz.json", '{"benchmark": ', "results/laz.json .* cannot be read"),
        ("results/laz.json", '{"benchmark": "x"}', "results/laz.json .* lacks benchmark, metric or systems"),
        ("recipe.yaml", "a: [", "recipe.yaml .* cannot be read"),
        ("config.json", "{}", "is no LiRA model"),
        ("config.json", '{"model_type": "lira", "architectures": ["LiraModel"]}', "LiraModel.*, not one of LiraForRetrieval"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, message):
    (folder / "results").mkdir()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"folder: .*{message}"):
        model_card(folder, "org/lira-small")
