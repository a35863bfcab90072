"""The ONNX graph gives the model's vectors for every kind of backbone and every shape of a batch, and a wrong one is never left behind."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import torch
from small_backbones import SENTENCES, SMALL, stirred
from small_data import small_data

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf import export as exporting
from lira_hf.export import FILES, INPUTS, OnnxRetriever, export, quantise, sample_rows
from lira_hf.reporting import weights_of

SCORES = (9.0, 8.0, 7.0), None, (2.0, 3.0, 10.0), (5.0, 5.0, 5.0)
BATCHES = {
    "one, K=1": dict(text=["TV 55"], translations=[["55 inch TV"]], scores=[[SCORES[0]]], language="th"),
    "one, K=4": dict(text=["TV 55"], translations=[SENTENCES[:4]], scores=[list(SCORES)], language="vi"),
    "no candidate": dict(text=SENTENCES[6:9], language="th"),
    "no text": dict(translations=[[SENTENCES[0], "TV"], [SENTENCES[1]]]),
    "English alone": dict(text=SENTENCES[:3], language="en"),
    "padded candidates": dict(text=SENTENCES[:3], translations=[[], ["TV"], SENTENCES[:4]], scores=[None, [None], list(SCORES)], language=["id", "ms", "xx"]),
    "empty strings": dict(text=["", "TV", ""], translations=[["", "TV"], [""], []], language="ur"),
    "64 rows": dict(text=(SENTENCES * 4)[:64], translations=[SENTENCES[i % 9 : i % 9 + i % 5] for i in range(64)], language="bn"),
    "long": dict(text=[" ".join(SENTENCES[:9]), "TV"], translations=[[" ".join(SENTENCES)], []], language="fil", prompt_name="query"),
}  # fmt: skip


def make(folder: Path, multilingual: str, english: str, dtype: torch.dtype = torch.float32, **fields) -> Path:
    """A folder of a stirred model, and of its processor."""
    torch.manual_seed(0)
    stirred(LiraForRetrieval.from_backbones(multilingual, english, dtype=dtype, **SMALL, **fields)).save_pretrained(folder)
    LiraProcessor.from_backbones(multilingual, english).save_pretrained(folder)
    return folder


def assert_same(folder: Path) -> None:
    model, processor = LiraForRetrieval.from_pretrained(folder, dtype=torch.float32), LiraProcessor.from_pretrained(folder)
    graph = OnnxRetriever(folder / "onnx" / "model.onnx")
    assert {value.name for value in graph.session.get_inputs()} == set(INPUTS)
    for name, arguments in BATCHES.items():
        batch = processor(**arguments)
        with torch.no_grad():
            torch.testing.assert_close(graph(**batch).embeddings, model(**batch).embeddings, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def made(backbones, tmp_path_factory) -> Path:
    """A model with its export; never written to."""
    folder = make(tmp_path_factory.mktemp("exported") / "model", backbones["xlm-r"], backbones["bert"])
    report = export(folder)
    assert report["difference"] < 1e-5 and report["files"] == {"model.onnx": (folder / "onnx" / "model.onnx").stat().st_size}
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of the model and its export."""
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture
def at_once(made, monkeypatch):
    """Tracing takes its time: the graph is the one that `made` has."""
    monkeypatch.setattr(exporting, "write_graph", lambda model, path: shutil.copy(made / "onnx" / "model.onnx", path))


def test_same_vectors_for_every_shape(made):
    assert_same(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("multilingual", "english", "dtype"),
    [("bert", "xlm-r", torch.float32), ("t5", "qwen3", torch.bfloat16), ("qwen3", "t5", torch.float16)],
)
def test_same_vectors_for_every_kind_whatever_it_is_saved_in(multilingual, english, dtype, backbones, tmp_path):
    export(make(tmp_path, backbones[multilingual], backbones[english], dtype))
    assert_same(tmp_path)


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(backbones, tmp_path, monkeypatch):
    """Also: a head that does not read every input still takes it."""
    monkeypatch.setattr(exporting, "INLINE", 0)
    fields = {"fusion": "pooled", "selection": "first", "paths": "english", "embedding_dim": 8}
    report = export(make(tmp_path, backbones["bert"], backbones["bert"], **fields), int8=True)
    assert set(report["files"]) == FILES and report["files"]["model.onnx.data"] > 1.5 * report["files"]["model_int8.onnx.data"]
    assert_same(tmp_path)
    cache = tmp_path / "snapshot"  # as in the cache of the Hub client
    cache.mkdir()
    for index, name in enumerate(report["files"]):
        (tmp_path / f"blob{index}").write_bytes((tmp_path / "onnx" / name).read_bytes())
        (cache / name).symlink_to(f"../blob{index}")
    for name in ("model.onnx", "model_int8.onnx"):
        OnnxRetriever(cache / name)


def test_sizes_are_free_and_named(made):
    graph = onnx.load(made / "onnx" / "model.onnx").graph
    for value in graph.input:
        sizes = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        assert sizes == INPUTS[value.name]
    assert [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch", 56]


def test_a_tokenizer_that_adds_nothing(made, processor, backbones, tmp_path):
    """A batch of empty texts alone has a column all the same, and integer ids."""
    shutil.copytree(made, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    config = tmp_path / "model" / "processor_config.json"
    config.write_text(json.dumps({key: value for key, value in json.loads(config.read_text()).items() if key != "fingerprints"}))
    model, processor = LiraForRetrieval.from_pretrained(tmp_path / "model"), LiraProcessor.from_pretrained(tmp_path / "model")
    batch = processor(text=SENTENCES[:2], language="en")
    assert batch["multilingual_input_ids"].tolist() == [[0], [0]] and batch["multilingual_attention_mask"].tolist() == [[0], [0]]
    with torch.no_grad():
        torch.testing.assert_close(OnnxRetriever(made / "onnx" / "model.onnx")(**batch).embeddings, model(**batch).embeddings, atol=1e-5, rtol=0)


def test_a_graph_that_differs_is_not_kept(folder, at_once):
    before = (folder / "onnx" / "model.onnx").read_bytes()
    model = LiraForRetrieval.from_pretrained(folder)
    with torch.no_grad():
        model.lira.lasr.correction[-1].bias[0] += 1e-3  # the last of the weights, by little
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"model: the graph of .* differs from it by \d\.\de-04, over 0.0001; nothing is kept"):
        export(folder)
    assert [path.name for path in folder.glob("onnx*")] == ["onnx"] and (folder / "onnx" / "model.onnx").read_bytes() == before


def test_an_export_says_of_which_weights_it_is_and_a_folder_with_checksums_still_opens(folder, at_once):
    weights = json.loads((folder / "onnx" / "export.json").read_text())["weights"]
    assert weights == weights_of(folder)
    model = LiraForRetrieval.from_pretrained(folder)
    with torch.no_grad():
        model.lira.lasr.correction[-1].bias[0] += 1e-6
    model.save_pretrained(folder)
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    sums = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in files}
    (folder / "checksums.json").write_text(json.dumps({"sha256": sums}))
    export(folder)
    assert json.loads((folder / "onnx" / "export.json").read_text())["weights"] == weights_of(folder) != weights
    LiraForRetrieval.from_pretrained(folder)
    left = {path for path in sums if not path.startswith("onnx/")}
    assert set(json.loads((folder / "checksums.json").read_text())["sha256"]) == left


def test_a_backbone_that_cannot_be_exported_is_named(folder, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"model: around xlm-roberta and bert it cannot be exported \(NotImplementedError: no such operator\)"):
        export(folder, folder / "new")
    assert not list(folder.glob("new*"))


def test_an_output_of_something_else_is_left_alone(folder):
    with pytest.raises(ValueError, match="output: .* holds something else than an export"):
        export(folder, folder)
    (folder / "onnx" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="output: .* holds something else than an export"):
        export(folder)
    assert (folder / "onnx" / "notes.txt").exists() and (folder / "onnx" / "model.onnx").exists()
    with pytest.raises(ValueError, match="is no LiRA model"):
        export(folder / "onnx", folder / "new")
    assert not (folder / "new").exists()


def test_backbones_in_8_bits_and_the_head_in_float32(folder):
    graph, small = folder / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx"
    quantise(graph, small)
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert kinds.count("MatMulInteger") == 2 * 2 * 6  # query, key, value, output and two of the feed-forward part, in two layers of two backbones
    weights = {weight.name: weight.data_type for weight in onnx.load(small).graph.initializer}
    assert weights["lira.multilingual.embeddings.word_embeddings.weight_quantized"] in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    assert not any("quantized" in name and ("arca" in name or "lasr" in name) for name in weights)
    assert small.stat().st_size < graph.stat().st_size
    batch = LiraProcessor.from_pretrained(folder).batch(sample_rows())
    cosines = (OnnxRetriever(graph)(**batch).embeddings * OnnxRetriever(small)(**batch).embeddings).sum(-1)
    assert cosines.median() > 0.98 and cosines.min() < 1 - 1e-6


def test_what_8_bits_cost_is_measured(folder, at_once, tmp_path, capsys):
    data = small_data(tmp_path, ["th"])
    report = export(folder, int8=True, data_folder=data, split="validation", languages=["th"], show_progress_bar=False)
    found = json.loads((folder / "results" / "onnx.json").read_text())
    systems = found["systems"]
    assert list(systems) == ["lira", "onnx", "onnx_int8"] and "onnx_int8" in capsys.readouterr().out
    assert systems["onnx"]["languages"] == systems["lira"]["languages"] and 0 < systems["onnx_int8"]["average"] <= 100
    assert found["metric"] == "ndcg@10" and found["files"] == report["files"] and set(report["files"]) == {"model.onnx", "model_int8.onnx"}
    for ratio in found["speed"]["ratio"].values():
        assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    spec = importlib.util.spec_from_file_location("exporting_without_onnxruntime", exporting.__file__)
    with pytest.raises(ValueError, match=r"export: onnx, onnxruntime or onnxscript is missing; pip install 'lira-hf\[onnx\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
