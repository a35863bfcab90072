"""`lira-hf evaluate --benchmark laz`: the scores of the training's own validation, by system, kept and found again."""

import pytest
import torch
from small_backbones import SMALL, stirred
from small_data import small_data

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.collation import read
from lira_hf.evaluation.benchmarks import evaluate
from lira_hf.evaluation.retrieval import build_frozen, score, summary


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return small_data(tmp_path_factory.mktemp("laz"), ["id"])


@pytest.fixture(scope="module")
def folder(backbones, tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("model") / "small")
    stirred(LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL)).save_pretrained(path)
    LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"]).save_pretrained(path)
    return path


def test_systems_of_a_model_and_of_a_plain_encoder(folder, backbones, data, tmp_path, capsys):
    given = {"data": data, "languages": ["id"]}
    found = evaluate(folder, output=tmp_path / "a", **given)
    assert list(found["systems"]) == ["multilingual_only", "english_only", "english_best", "concat", "lira"]
    assert (tmp_path / "a" / "features").is_dir() and "results are from" not in capsys.readouterr().out
    model, processor = LiraForRetrieval.from_pretrained(folder), LiraProcessor.from_pretrained(folder)
    parts = [read(data, "id", "test")]
    for name in ("concat", "lira"):
        each = model if name == "lira" else build_frozen(model, name)
        wanted = summary(score(each, processor, parts), parts)
        assert found["systems"][name]["languages"] == pytest.approx(wanted["languages"], abs=1e-3), name
    assert evaluate(folder, output=tmp_path / "a", **given)["systems"] == found["systems"]
    assert "5 of 5 results are from" in capsys.readouterr().out
    fresh = evaluate(folder, output=tmp_path / "b", features=False, systems=["lira"], **given)
    assert fresh["systems"]["lira"]["languages"] == pytest.approx(found["systems"]["lira"]["languages"], abs=1e-3)
    assert not (tmp_path / "b" / "features").exists()
    alone = evaluate(backbones["xlm-r"], output=tmp_path / "c", systems=["multilingual_only"], **given)["systems"]
    assert alone["multilingual_only"]["languages"] == pytest.approx(found["systems"]["multilingual_only"]["languages"], abs=1e-3)


def test_wrong_arguments_are_refused_by_name(folder, data, tmp_path):
    for options, message in (
        ({"split": "all"}, "split: 'all'"),
        ({"systems": ["best"]}, "systems: 'best' is not known here"),
        ({"languages": ["xx"]}, "languages: 'xx'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(folder, **{"data": data, "output": tmp_path / "out", "languages": ["id"], **options})
    assert not (tmp_path / "out").exists()
