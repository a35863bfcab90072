"""The command line as a user meets it: what is there, and how mistakes end."""

import json
import os
import subprocess
import sys

import pytest

from lira_hf.cli import main
from lira_hf.reporting import weights_of


def lira(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lira_hf", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv=['lira-hf','--help']\nfrom lira_hf.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    done = subprocess.run([sys.executable, "-c", code + "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]" and "quickstart" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "build", "--output", "x", "--size", "huge"], "'huge'"),
        (["data", "build", "--output", "x", "--languages", "th,xx"], "'xx' is not known"),
        (["data", "build"], "--output"),
        (["data", "similarity", "--output", "x", "--rows", "5"], "--rows"),
        (["data", "similarity", "--output", "x", "--languages", "th,xx"], "'xx' is not known"),
        (["data", "similarity", "--output", ".."], "'..' exists"),
        (["data", "problems", "--output", "x", "--languages", "th,xx"], "'xx' is not known"),
        (["data", "problems", "--output", "x", "--rows", "900000"], "rows: 900000 is not allowed"),
        (["train", "no-such.yaml"], "no-such.yaml: cannot be read"),
        (["evaluate", "no-model", "--data", "no-data"], "model: 'no-model' is neither a model folder nor a Hub id"),
        (["evaluate", "no-model"], "data: missing"),
        (["evaluate", "no-model", "--benchmark", "belebele", "--data", "no-data"], "data: 'no-data' is no folder"),
        (["evaluate", "no-model", "--data", "no-data", "--benchmark", "mteb"], "benchmark: 'mteb'"),
        (["certify", "no-model", "--data", "no-data", "--output", "x"], "'no-model' is no LiRA model"),
        (["certify", "no-model", "--data", "no-data", "--output", "x", "--anchors", "1"], "--anchors"),
        (["report", "no-results"], "'no-results' is no folder"),
        (["export", "no-model"], "'no-model' is no LiRA model"),
        (["quickstart", "--seeds", "0"], "--seeds"),
        (["quickstart", "--english", "somewhere"], "multilingual: missing"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(arguments, message, tmp_path):
    done = lira(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_is_one_line_and_a_fault_of_ours_a_traceback(model, processor, tmp_path, monkeypatch, capsys):
    model.save_pretrained(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 5000)
    monkeypatch.setattr(sys, "argv", ["lira-hf", "export", str(tmp_path)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "model.safetensors: not whole" in said and len(said.splitlines()) == 1
    monkeypatch.setattr("lira_hf.export.export", lambda *_, **__: open(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        main()


@pytest.mark.slow
def test_quickstart_from_nothing(tmp_path):
    done = lira("quickstart", "--languages", "th,fil", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found["systems"]) == {"multilingual_only", "english_only", "english_best", "concat", "multilingual_trained", "english_trained",
                                     "pooled_head", "lira"}  # fmt: skip
    for system in found["systems"].values():
        assert set(system["languages"]) == {"th", "fil"} and {"clean", "typo", "romanised", "unseen"} <= set(system["language_slices"]["th"])
        assert 0 < system["average"] < 95
    assert found["systems"]["lira"]["average"] > found["systems"]["concat"]["average"]
    kept = json.loads((tmp_path / "out" / "model" / "results" / "laz.json").read_text())
    assert kept == found | {"weights": weights_of(tmp_path / "out" / "model")} and (tmp_path / "out" / "model" / "recipe.yaml").exists()
    assert "largest difference" in done.stdout and (tmp_path / "out" / "results.png").stat().st_size > 10_000
    again = lira("evaluate", tmp_path / "out" / "model", "--data", tmp_path / "out" / "data", "--languages", "th", "--output", tmp_path / "eval")
    assert again.returncode == 0, again.stderr[-2000:]
    evaluated = json.loads((tmp_path / "eval" / "results.json").read_text())["systems"]["lira"]["languages"]["th"]
    assert evaluated == pytest.approx(found["systems"]["lira"]["languages"]["th"], abs=0.3)  # text anew: near ties may turn
