"""Recipes beyond one machine: shares add up to what one process does, what is finished is skipped, and mistakes are named before a start."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from loopback_llm import completion, data_of, serving
from small_translators import PAIRS, nllb
from steady_translator import number

from lira_hf.catalogue import build
from lira_hf.cluster import executors, launch, load_recipe
from lira_hf.collation import every_row
from lira_hf.features import FeatureStore, fill
from lira_hf.features.filling import plan
from lira_hf.features.keys import PATHS, cache_key
from lira_hf.features.store import shard_keys
from lira_hf.training import check_recipe, load_parts
from lira_hf.translation.critic import PromptedCritic
from lira_hf.translation.endpoint import Endpoint
from lira_hf.translation.running import judge, translate
from lira_hf.translation.store import Store
from lira_hf.translation.translators import LocalTranslator, PromptedTranslator

TEXTS, CANDIDATES, TASKS, IN_FLIGHT = 40, 2, 4, 2
SECRET = "sk-of-the-test-alone"
SLURM = {"kind": "slurm", "partition": "night", "time": "1-12:00:00", "workers": 2, "gpus_per_task": 1, "sbatch_args": {"account": "lab"}}


def speak(body, attempt):
    """A translator and a critic whose answers follow from the question."""
    data = data_of(body)
    if "candidates" not in data:
        return completion(f"{data['text']} as {number(body['messages'])}")
    marks = [
        {"candidate": c, **{axis: 1 + number(axis, text) % 10 for axis in ("semantic", "emotional", "pragmatic")}}
        for c, text in data["candidates"].items()
    ]
    return completion(json.dumps({"scores": marks}))


def slowly(body, attempt):
    time.sleep(0.1)
    return speak(body, attempt)


@pytest.fixture(autouse=True)
def for_processes(monkeypatch):
    """What the processes of tasks find in their environment."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def texts(tmp_path):
    """Texts with two translations each, as a table."""
    rows = [{"text": f"สินค้า {i}", "language": ("th", "bn")[i % 2], "translations": [f"goods {i}", f"ware {i}"]} for i in range(TEXTS)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write(folder, **fields):
    """A recipe file; fields that are None are left out."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))
    return path


def asking(folder, run, url, texts, /, **fields):
    own = {"candidates": CANDIDATES} if run == "translate" else {}
    place = {"kind": "local", "workers": 2}
    common = {"run": run, "input": str(texts), "output": str(folder / "out"), "model": "m", "endpoint": url, "concurrency": IN_FLIGHT, "tasks": TASKS}
    return load_recipe(write(folder, **{**common, **own, "executor": place, **fields}))


def alone(folder, run, url, texts):
    """The same in one process, without datatrove."""
    if run == "translate":
        translate(texts, folder / "alone", PromptedTranslator(Endpoint(url, "m")), CANDIDATES, progress=False)
    else:
        judge(texts, folder / "alone", PromptedCritic(Endpoint(url, "m")), progress=False)


def assert_same(folder, run):
    assert Store(folder / "out" / "store").digest() == Store(folder / "alone" / "store").digest()
    assert pq.read_table(folder / "out" / "translations.parquet").equals(pq.read_table(folder / "alone" / "translations.parquet"))
    said = [json.loads((folder / name / f"{run}.json").read_text()) for name in ("out", "alone")]
    assert said[0] | {"stored": 0, "asked": 0} == said[1] | {"stored": 0, "asked": 0}


def completed(folder):
    return sorted(path.name for path in folder.glob("out/logs/*/tasks/completions/*"))


@pytest.mark.parametrize("run", ["translate", "judge"])
def test_tasks_on_this_machine_make_what_one_process_makes_and_are_not_repeated(tmp_path, texts, run):
    with serving(speak) as (url, loopback):
        recipe = asking(tmp_path, run, url, texts)
        said = launch(recipe)
        asked = len(loopback.bodies)
        assert asked == TEXTS * (CANDIDATES if run == "translate" else 1)
        assert f"{TEXTS} rows" in said
        (stats,) = tmp_path.glob("out/logs/*/tasks/stats.json")
        counted = json.loads(stats.read_text())[0]["stats"]["asked"]
        assert (counted["total"], counted["n"]) == (TEXTS * (CANDIDATES if run == "judge" else 1), TASKS)  # and each task had its share
        assert counted["min"] > 0
        assert completed(tmp_path) == [f"{rank:05d}" for rank in range(TASKS)]
        assert not list(tmp_path.glob("out/tasks"))
        ends = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/logs/*/tasks/stats/*")}
        assert launch(recipe).splitlines()[1:] == said.splitlines()[1:]
        assert {path: path.stat().st_mtime_ns for path in ends} == ends  # no task ran
        assert len(loopback.bodies) == asked
        alone(tmp_path, run, url, texts)
    assert_same(tmp_path, run)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_model_in_the_tasks_own_process(tmp_path, tasks):
    model, source = tmp_path / "nllb", tmp_path / "texts.jsonl"
    nllb(model)
    source.write_text("".join(json.dumps({"text": text, "language": language}) + "\n" for language, text in PAIRS))
    launch(asking(tmp_path, "translate", None, source, model=str(model), tasks=tasks, executor={"kind": "local"}))
    translate(source, tmp_path / "alone", LocalTranslator.from_pretrained(str(model)), CANDIDATES, progress=False)
    assert_same(tmp_path, "translate")
    first = [row["translations"][0]["text"] for row in pq.read_table(tmp_path / "out" / "translations.parquet").to_pylist()]
    assert first == list(PAIRS.values())


def test_a_start_that_was_killed_goes_on_and_repeats_only_what_was_in_flight(tmp_path, texts):
    with serving(slowly) as (url, loopback):
        recipe = asking(tmp_path, "translate", url, texts)
        code = "import sys; from lira_hf.cluster import launch, load_recipe; launch(load_recipe(sys.argv[1]))"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "recipe.yaml")], start_new_session=True)
        while not completed(tmp_path) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -9
        finished = completed(tmp_path)
        assert 0 < len(finished) < TASKS
        ends = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/logs/*/tasks/completions/*")}
        with pytest.raises(ValueError, match=f"tasks: 3 is not allowed, .* give {TASKS}"):
            launch(asking(tmp_path, "translate", url, texts, tasks=3))
        launch(recipe)
        assert {path: path.stat().st_mtime_ns for path in ends} == ends
        repeated = sum(loopback.seen.values()) - len(loopback.seen)
        assert repeated <= 2 * IN_FLIGHT * CANDIDATES  # of two tasks at once
        alone(tmp_path, "translate", url, texts)
    assert_same(tmp_path, "translate")


def test_a_changed_recipe_or_input_is_new_work_but_asks_only_for_what_is_new(tmp_path, texts):
    with serving(speak) as (url, loopback):
        here = {"executor": {"kind": "local"}}
        launch(asking(tmp_path, "translate", url, texts, **here))
        before = len(loopback.bodies)
        with texts.open("a") as file:
            file.write(json.dumps({"text": "ใหม่", "language": "th"}) + "\n")
        launch(asking(tmp_path, "translate", url, texts, tasks=2, **here))
        assert len(loopback.bodies) == before + CANDIDATES
        launch(asking(tmp_path, "translate", url, texts, retry_failed=True, tasks=2, **here))
        assert len(loopback.bodies) == before + CANDIDATES
        alone(tmp_path, "translate", url, texts)
    assert_same(tmp_path, "translate")


def test_failed_requests_are_asked_again_when_that_is_wanted(tmp_path, texts):
    ill = lambda body, attempt: completion(None, "content_filter") if "สินค้า 7" in str(data_of(body)) else speak(body, attempt)  # noqa: E731
    here = {"executor": {"kind": "local"}, "tasks": 2}
    with serving(ill) as (url, loopback):
        assert "failed: 1" in launch(asking(tmp_path, "translate", url, texts, **here))
        loopback.answer = speak
        assert "failed: 1" in launch(asking(tmp_path, "translate", url, texts, **here))
        assert "failed" not in launch(asking(tmp_path, "translate", url, texts, retry_failed=True, **here))
        alone(tmp_path, "translate", url, texts)
    assert_same(tmp_path, "translate")


def test_tasks_fill_the_cache_that_training_reads(tmp_path, backbones):
    data = build(tmp_path / "data", "small", ["id"], 0, progress=False)
    pair = {"multilingual": backbones["xlm-r"], "english": backbones["bert"]}
    training = {"data": str(data), "languages": ["id"], "backbones": pair, "max_length": 32, "model": {"width": 16, "num_bins": 2, "fusion_heads": 2}}
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump({**training, "output": str(tmp_path / "out"), "features": str(tmp_path / "cache"), "features_dtype": "float16"}))
    recipe = load_recipe(write(tmp_path, run="features", recipe=str(path), tasks=3, executor={"kind": "local"}))
    said = launch(recipe)
    assert str(tmp_path / "cache") in said
    (stats,) = tmp_path.glob("cache/logs/*/tasks/stats.json")
    shares = json.loads(stats.read_text())[0]["stats"]["rows"]
    assert shares["n"] == 3 and shares["min"] > 0
    assert not list(tmp_path.glob("cache/tasks"))
    filled = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cache/*/shards/*")}
    assert len(filled) >= 2 * 3  # of both paths: nothing was left to the last step
    model, processor, train, validation = load_parts(check_recipe(yaml.safe_load(path.read_text())))
    rows = every_row([*train, *validation], references=True)
    alone = fill(tmp_path / "alone", model.lira, processor, rows, "float16", show_progress_bar=False)
    store = FeatureStore.open(tmp_path / "cache", model.lira, processor, "float16")
    for name in ("multilingual", "english"):
        assert (store.shards[name].keys == alone.shards[name].keys).all()
        assert sum(len(shard_keys(file)) for file in store.shards[name].files) == len(store.shards[name])  # no text was encoded twice
    for name, tensor in alone.batch(rows[:300]).items():
        torch.testing.assert_close(store.batch(rows[:300])[name], tensor, atol=2e-3, rtol=2e-3, equal_nan=True)  # nan: not scored
    launch(recipe)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("cache/*/shards/*")} == filled


def test_a_cache_that_would_not_fit_is_refused_by_every_task(tmp_path, backbones, monkeypatch):
    data = build(tmp_path / "data", "small", ["id"], 0, progress=False)
    pair = {"multilingual": backbones["xlm-r"], "english": backbones["bert"]}
    path = tmp_path / "training.yaml"
    path.write_text(
        yaml.safe_dump({"data": str(data), "languages": ["id"], "backbones": pair, "output": str(tmp_path / "out"), "model": {"fusion_heads": 2}})
    )
    recipe = load_recipe(write(tmp_path, run="features", recipe=str(path), tasks=3, executor={"kind": "local"}))
    model, processor, train, validation = load_parts(check_recipe(yaml.safe_load(path.read_text())))
    need = sum(
        plan(tmp_path, cache_key(model.lira, processor, name, "float32"), processor, every_row([*train, *validation], references=True)).bytes
        for name in PATHS
    )
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=int(0.6 * need)))  # room for any one task, not for all of them
    with pytest.raises(ValueError, match="features: .* would grow by .* MB is the limit"):
        launch(recipe)
    assert not list(tmp_path.glob("out/features/**/shards/*"))


# ---- Slurm and Ray -----------------------------------------------------------------------------------------------------------


def test_slurm_scripts_say_what_the_recipe_says(tmp_path, texts):
    recipe = asking(tmp_path, "translate", "http://node:8000/v1", texts, executor=SLURM)
    tasks, result = executors(recipe)
    script = tasks.get_launch_file_contents(tasks.get_sbatch_args(TASKS), "srun launch_pickled_pipeline executor.pik")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.MULTILINE))
    wanted = {"partition": "night", "time": "1-12:00:00", "array": f"0-{TASKS - 1}%2", "cpus-per-task": "1", "mem-per-cpu": "4G", "gpus": "1"}
    assert {name: options[name] for name in wanted} == wanted
    assert (options["account"], options["nodes"], options["requeue"]) == ("lab", "1", "")
    assert "qos" not in options
    assert options["job-name"].startswith("translate-")
    assert options["output"].startswith(f"{tmp_path}/out/logs/translate-")
    assert f"source {sys.prefix}/bin/activate" in script or not Path(sys.prefix, "bin", "activate").exists()
    assert "--array=0-0%" in result.get_launch_file_contents(result.get_sbatch_args(), "")
    (own, _) = executors(asking(tmp_path, "translate", "http://node:8000/v1", texts, executor={**SLURM, "env_command": "module load lab"}))
    assert "module load lab" in own.get_launch_file_contents({}, "") and "activate" not in own.get_launch_file_contents({}, "")


# What sbatch and srun do with a script, without a queue: each task of the array in its turn. Slurm itself is not needed for it.
SBATCH = """#!/bin/bash
echo "$@" >> {folder}/submitted
script="${{@: -1}}"
export RUN_OFFSET=0 SLURM_NODELIST=localhost
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
job=$(( $(wc -l < {folder}/submitted) + 4710 ))
for i in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$i bash "$script" >> {folder}/jobs 2>&1 || exit 1; done
echo "Submitted batch job $job"
"""
SRUN = '#!/bin/bash\nwhile [[ "$1" == -* || "$1" =~ ^[0-9]+$ ]]; do shift; done\nexec "$@"\n'


def test_what_slurm_is_given_runs_and_the_result_waits_for_the_tasks(tmp_path, texts, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, content in {"sbatch": SBATCH.format(folder=folder), "srun": SRUN, "scontrol": "#!/bin/bash\necho localhost\n"}.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with serving(speak) as (url, _):
        said = launch(asking(tmp_path, "translate", url, texts, tasks=2, executor=SLURM))
        alone(tmp_path, "translate", url, texts)
    submitted = (folder / "submitted").read_text().splitlines()  # the tasks, their statistics, the result, its statistics
    assert len(submitted) == 4
    assert "--dependency=afterok:4711" in submitted[2] and "submitted as job 4713" in said
    assert completed(tmp_path) == ["00000", "00001"]
    assert_same(tmp_path, "translate")


def test_slurm_is_asked_for_where_it_is(tmp_path, texts, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="executor: there is no sbatch here"):
        launch(asking(tmp_path, "translate", "http://node/v1", texts, executor=SLURM))


def test_ray_makes_the_same_or_is_asked_for(tmp_path, texts):
    if not importlib.util.find_spec("ray"):
        with pytest.raises(ValueError, match="executor: the ray package is missing; pip install ray"):
            launch(asking(tmp_path, "translate", "http://node/v1", texts, executor={"kind": "ray"}))
        return
    with serving(speak) as (url, _):
        launch(asking(tmp_path, "translate", url, texts, executor={"kind": "ray", "address": None, "workers": 2, "mem_per_cpu_gb": 0.2}))
        alone(tmp_path, "translate", url, texts)
    importlib.import_module("ray").shutdown()
    assert_same(tmp_path, "translate")


# ---- mistakes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": "dream"}, "'dream'.*'translate', 'judge', 'features'"),
        ({"run": None}, "'run'"),
        ({"candidate": 3}, "candidate: Extra inputs are not permitted, not 3"),
        ({"rounds": 3}, "rounds: Extra inputs"),
        ({"model": None}, "model: Field required"),
        ({"tasks": 0}, "tasks: .* not 0"),
        ({"candidates": 65}, "candidates: .* not 65"),
        ({"executor": {"kind": "cloud"}}, "executor: .*'local', 'slurm', 'ray'"),
        ({"executor": {"kind": "local", "partition": "gpu"}}, "executor.partition: Extra inputs"),
        ({"executor": {"kind": "slurm", "partition": "gpu"}}, "executor.time: Field required"),
        ({"executor": {"kind": "slurm", "partition": "gpu", "time": 43200}}, "executor.time: put it in quotes"),
        ({"executor": {"kind": "slurm", "partition": "gpu", "time": "soon"}}, "executor.time: .* not 'soon'"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_file_and_field(tmp_path, texts, change, message):
    with pytest.raises(ValueError, match=f"recipe.yaml: .*{message}") as error:
        asking(tmp_path, "translate", None, texts, **change)
    assert "\n" not in str(error.value)


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    for path, content in ((tmp_path / "missing.yaml", None), (tmp_path / "broken.yaml", "run: [")):
        if content:
            path.write_text(content)
        with pytest.raises(ValueError, match=f"{path}: cannot be read as YAML") as error:
            load_recipe(path)
        assert "\n" not in str(error.value)


def test_mistakes_are_found_before_anything_is_started(tmp_path, texts):
    for change, message in (
        ({"input": str(tmp_path / "nowhere")}, "input: "),
        ({"languages": ["th", "xx"]}, "languages: 'xx'"),
        ({"endpoint": "node:8000"}, "endpoint: 'node:8000' is no address"),
    ):
        with pytest.raises(ValueError, match=message):
            launch(asking(tmp_path, "translate", None, texts, **change))
    assert not (tmp_path / "out" / "logs").exists()


def test_the_recipe_that_is_shipped_is_one(tmp_path):
    shipped = Path(__file__).parents[1] / "configs" / "cluster.yaml"
    recipe = load_recipe(shipped)
    assert (recipe.run, recipe.executor.kind) == ("translate", "local")
    head, *places = re.split(r"^(?=# executor:)|^(?=# The feature)", shipped.read_text(), flags=re.MULTILINE)
    for place, kind in zip(places, ("slurm", "ray"), strict=False):
        whole = head[: head.index("executor:\n")] + re.sub(r"^# ?", "", place, flags=re.MULTILINE)
        (tmp_path / "other.yaml").write_text(whole)
        assert load_recipe(tmp_path / "other.yaml").executor.kind == kind
