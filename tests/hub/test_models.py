"""Models on the Hub and back: one commit or none, whole or refused, and the vectors that were published."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from client_of_hub import client_of
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from small_backbones import SMALL, stirred

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.evaluation.systems import open_lira
from lira_hf.hub import publish_model, verify
from lira_hf.hub.models import stage
from lira_hf.hub.verification import environment_of_two
from lira_hf.modeling import AUTO_MAP
from lira_hf.modeling.hub_lira import fetch
from lira_hf.reporting import keep, weights_of, write_json

REPO = "org/lira"
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def saved(backbones, tmp_path_factory) -> Path:
    """The folder of a model and its processor."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    torch.manual_seed(0)
    stirred(LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL)).save_pretrained(folder)
    LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"]).save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(re.sub('(?<="_name_or_path": ").*/', "", config.read_text()))  # published as it is, then
    return folder


@pytest.fixture
def hub(tmp_path):
    with LoopbackHub(tmp_path / "hub") as hub, client_of(hub, tmp_path / "home"):
        yield hub


def push(folder, repo_id=REPO, **options):
    return publish_model(folder, repo_id, progress=False, **options)


def listing(hub, commit: str, repo_id=REPO) -> dict[str, str]:
    return {path: file["sha256"] for path, file in hub.store.manifest("models", repo_id, commit)["files"].items()}


def head(hub, repo_id=REPO) -> str:
    return hub.store.resolve("models", repo_id, "main")


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def api(hub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def test_one_commit_holds_the_folder_its_card_checksums_and_vectors_and_a_second_push_nothing(hub, saved):
    before = hashes(saved)
    first = push(saved)
    found, parent = listing(hub, first.commit), hub.store.manifest("models", REPO, first.commit)["parent"]
    assert first.changed and first.commit == head(hub) and listing(hub, parent) == {}
    assert set(found) == {*before, "README.md", "checksums.json", "vectors.json"} and found.items() >= before.items()
    snapshot = fetch(REPO)
    checksums = json.loads((snapshot / "checksums.json").read_text())["sha256"]
    assert checksums == {path: found[path] for path in found if path not in ("README.md", "checksums.json")}
    assert hashes(saved) == before and json.loads((snapshot / "config.json").read_text())["auto_map"] == AUTO_MAP
    model, processor = LiraForRetrieval.from_pretrained(snapshot), LiraProcessor.from_pretrained(snapshot)
    vectors = json.loads((snapshot / "vectors.json").read_text())
    assert {row["language"] for row in vectors["rows"]} == {"vi", "th", "id", "ms", "ur", "bn", "fil", "en"}
    for prompt in ("query", "document"):  # all in one batch here, one by one there
        chosen = [i for i, row in enumerate(vectors["rows"]) if row["prompt_name"] == prompt]
        lists = {name: [vectors["rows"][i][name] for i in chosen] for name in ("translations", "scores", "language")}
        again = model.encode([vectors["rows"][i]["text"] for i in chosen], processor=processor, prompt_name=prompt, **lists)
        torch.testing.assert_close(again, torch.tensor(vectors["embeddings"])[chosen], atol=1e-5, rtol=0)
    second = push(saved)
    assert not second.changed and second.commit == first.commit == head(hub)


def test_a_later_push_removes_what_an_earlier_one_left_and_nothing_of_others(hub, saved, tmp_path):
    sharded = Path(shutil.copytree(saved, tmp_path / "sharded"))
    (sharded / "model.safetensors").unlink()
    LiraForRetrieval.from_pretrained(saved).save_pretrained(sharded, max_shard_size="200KB")
    (sharded / "training_log.json").write_text("[]")
    push(sharded)
    for path in ("LICENSE", "pytorch_model.bin"):
        api(hub).upload_file(path_or_fileobj=b"by hand", path_in_repo=path, repo_id=REPO)
    assert {"model.safetensors.index.json", "training_log.json"} < set(listing(hub, head(hub)))
    found = listing(hub, push(saved).commit)
    assert set(found) == {*hashes(saved), "README.md", "checksums.json", "vectors.json", "LICENSE"}
    assert [path for path in found if path.endswith("safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("fault", [{"kind": "status", "method": "POST"}, {"kind": "reset", "method": "POST"}, {"kind": "status", "status": 403}])
def test_a_failed_push_is_one_line_and_leaves_the_repository_as_it_was(hub, saved, tmp_path, fault):
    old = push(saved).commit
    other = Path(shutil.copytree(saved, tmp_path / "other"))
    (other / "training_log.json").write_text("[]")
    hub.add_fault(match="/commit/", times=-1, **fault)
    with pytest.raises(ValueError, match=f"^repo_id: .*{REPO}") as caught:
        push(other)
    assert "\n" not in str(caught.value) and head(hub) == old
    hub.reset()
    assert push(other).changed and not any(request.startswith("PUT") for request in hub.requests)


def test_an_answer_that_is_lost_makes_no_second_commit(hub, saved):
    hub.add_fault("mute", match="/commit/")
    assert push(saved).commit == head(hub)
    assert listing(hub, hub.store.manifest("models", REPO, head(hub))["parent"]) == {}


@pytest.mark.parametrize("method, match", [("POST", "/commit/"), ("PUT", "/_lfs/")])
def test_what_was_damaged_on_its_way_up_is_sent_again_or_named(hub, saved, method, match):
    met = hub.add_fault("corrupt", match=match, method=method)
    found = listing(hub, push(saved).commit)
    assert met.hits == 1 and found.items() >= hashes(saved).items()
    api(hub).delete_repo(REPO)
    shutil.rmtree(hub.store.root / "objects"), (hub.store.root / "objects").mkdir()
    hub.add_fault("corrupt", match=match, method=method, times=-1)
    with pytest.raises(ValueError, match="publishing to 'org/lira' failed, .*(model.safetensors|README.md)"):
        push(saved)


def test_somebody_elses_push_in_between_is_not_overwritten(hub, saved):
    push(saved)
    hub.add_fault("status", match="/commit/", status=412)
    (saved / "training_log.json").write_text("[]")
    try:
        with pytest.raises(ValueError, match="somebody pushed"):
            push(saved)
    finally:
        (saved / "training_log.json").unlink()


def edited(path: str, change):
    def edit(folder):
        content = json.loads((folder / path).read_text())
        change(content)
        (folder / path).write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80"), "pytorch_model.bin in .* may run code"),
        (lambda folder: shutil.rmtree(folder / "english_tokenizer"), "lacks english_tokenizer/tokenizer_config.json"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "model.safetensors in .* is no whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "lasr_lira.py").unlink(), "lacks lasr_lira.py"),
        (lambda folder: (folder / "lasr_lira.py").write_text("# other"), "lasr_lira.py in .* is not that of this version"),
        (lambda folder: (folder / "modules.json").unlink(), "lacks modules.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json in .* cannot be read"),
        (edited("config.json", lambda config: config.update(model_type="bert")), "is of no LiRA model .model_type 'bert'"),
        (edited("config.json", lambda config: config["auto_map"].pop("AutoModel")), "the auto_map in .* names None for AutoModel"),
        (shutil.rmtree, "lacks config.json"),
    ],
)
def test_only_a_whole_model_without_pickles_is_published(hub, saved, tmp_path, spoil, said):
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(ValueError, match=f"^folder: .*{said}"):
        push(copy)
    assert not hub.requests


def test_a_backbone_that_is_gone_is_named_and_so_is_a_hub_that_does_not_answer(hub, backbones, tmp_path):
    for kind in ("xlm-r", "bert"):
        api(hub).create_repo(f"org/{kind}")
        api(hub).upload_folder(repo_id=f"org/{kind}", folder_path=backbones[kind])
    folder = tmp_path / "small"
    LiraForRetrieval.from_backbones("org/xlm-r", "org/bert", **SMALL).refer_backbones().save_pretrained(folder)
    LiraProcessor.from_backbones("org/xlm-r", "org/bert").save_pretrained(folder)
    api(hub).delete_repo("org/bert")
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(ValueError, match="^folder: .*small' cannot be made ready to publish .org/bert: 40[14] ") as caught:
        push(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="^org/bert: 40") as caught:  # one line of the command line: see test_cli
        open_lira(folder)
    assert caught.value.errno is None
    with pytest.raises(ValueError, match="^model: 'org/none' is no LiRA model that can be opened .org/none: 40[14] .*HF_TOKEN"):
        open_lira("org/none")
    hub.add_fault("reset", match="", times=-1)
    with pytest.raises(ValueError, match="^model: 'org/none' is no LiRA model that can be opened .org/none: .*the last of 6 attempts"):
        open_lira("org/none")


def test_checksums_spoilt_by_hand_do_not_stop_a_push(hub, saved):
    right = push(saved).commit
    for spoilt in (b"{", b"[1]", b'{"sha256": 3}'):
        api(hub).upload_file(path_or_fileobj=spoilt, path_in_repo="checksums.json", repo_id=REPO)
        assert listing(hub, push(saved).commit) == listing(hub, right)


def test_nothing_published_says_where_on_a_disk_folders_lay(hub, saved, tmp_path):
    copy, home = Path(shutil.copytree(saved, tmp_path / "copy")), "/home/alice/secret"
    config = json.loads((copy / "config.json").read_text())
    config["multilingual_config"]["_name_or_path"] = f"{home}/xlm-r"
    config["english_config"]["_name_or_path"] = "org/bert"
    (copy / "config.json").write_text(json.dumps(config))
    recipe = {
        "data": f"{home}/laz", "output": "../secret/out", "features": "~/secret/features", "backbones": {"multilingual": f"{home}/xlm-r", "english": "org/bert"},
        "prompts": {"query": {"multilingual": "/q", "english": ""}}, "retrieval": {"resume_from_checkpoint": f"{home}/checkpoint-3"},
    }  # fmt: skip
    (copy / "recipe.yaml").write_text("# lira-hf 0.1\n" + yaml.safe_dump(recipe))
    keep(SCORES | {"model": f"{home}/model", "data": {"path": f"{home}/laz", "revision": None}}, copy, "laz")
    before = hashes(copy)
    push(copy)
    snapshot = fetch(REPO)
    for path in snapshot.rglob("*"):
        assert path.suffix == ".safetensors" or not path.is_file() or b"secret" not in path.read_bytes(), path
    assert hashes(copy) == before
    text = (snapshot / "recipe.yaml").read_text()
    assert text.startswith("# lira-hf 0.1\n") and yaml.safe_load(text) == recipe | {
        "data": "laz", "output": "out", "features": "features", "backbones": {"multilingual": "xlm-r", "english": "org/bert"},
        "retrieval": {"resume_from_checkpoint": "checkpoint-3"},
    }  # fmt: skip
    published = json.loads((snapshot / "config.json").read_text())
    config["multilingual_config"]["_name_or_path"] = "xlm-r"
    assert published == config
    assert (
        json.loads((snapshot / "results" / "laz.json").read_text()).items() >= {"model": "model", "data": {"path": "laz", "revision": None}}.items()
    )


def test_a_new_environment_asks_for_versions_that_the_index_has(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("importlib.metadata.version", {"torch": "2.13.0+cpu", "transformers": "5.23.0"}.get)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command) or subprocess.CompletedProcess(command, 0, "", ""))
    environment_of_two(tmp_path)
    assert asked[-1][-2:] == ["torch==2.13.0", "transformers==5.23.0"]


def trained_on(folder: Path) -> None:
    """Other weights in the same folder."""
    model = LiraForRetrieval.from_pretrained(folder)
    with torch.no_grad():
        model.lira.lasr.path_weight.mul_(1.5)
    model.save_pretrained(folder)


SCORES = {"benchmark": "Laz", "metric": "ndcg@10", "seeds": [], "systems": {"lira": {"languages": {"th": 81.0}, "average": 81.0}}}


def test_scores_and_graphs_of_other_weights_are_not_published(hub, saved, tmp_path):
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    (copy / "onnx").mkdir()
    (copy / "onnx" / "model.onnx").write_bytes(b"graph")
    (copy / "onnx" / "export.json").write_text(json.dumps({"weights": weights_of(copy)}))
    keep(SCORES, copy, "laz")
    assert "results/laz.json" in listing(hub, push(copy).commit)
    trained_on(copy)
    with pytest.raises(ValueError, match="^folder: onnx/model.onnx in .* is of other weights; `lira-hf export` again, or remove"):
        push(copy)
    shutil.rmtree(copy / "onnx")
    with pytest.raises(ValueError, match="^folder: results/laz.json in .* was measured with other weights; measure again, or remove it"):
        push(copy)
    write_json(copy / "results" / "laz.json", SCORES)  # of an older version: it does not say
    assert push(copy).changed
    keep(SCORES, copy, "laz")
    assert push(copy).changed


def test_a_result_that_is_kept_in_a_downloaded_folder_leaves_it_open(hub, saved, tmp_path):
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    keep(SCORES, copy, "laz")
    push(copy)
    local = Path(shutil.copytree(fetch(REPO), tmp_path / "local"))
    keep(SCORES | {"seeds": [1]}, local, "laz")
    LiraForRetrieval.from_pretrained(local)
    with open(local / "config.json", "a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="config.json: its sha256 is"):
        LiraForRetrieval.from_pretrained(local)


def test_what_a_trainer_leaves_for_itself_stays_at_home(hub, saved, tmp_path):
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    left = ("training_args.bin", "optimizer.pt", "rng_state_1.pth", "checkpoint-100/model.safetensors", "checkpoint-100/scheduler.pt")
    for path in left:
        (copy / path).parent.mkdir(exist_ok=True)
        (copy / path).write_bytes(b"\x80")
    assert not set(left) & set(listing(hub, push(copy).commit)) and all((copy / path).is_file() for path in left)


# ---- slow -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_verified_model_is_right_by_every_auto_class(hub, saved):
    first = push(saved).commit
    found = verify(REPO)
    assert found.right and found.commit == first, str(found)
    assert [row.what for row in found.rows if row.difference is not None] == [
        "AutoModel",
        "AutoModelForPreTraining",
        "AutoModelForSequenceClassification",
    ]


@pytest.mark.slow
def test_verify_names_what_differs_and_tells_it_from_a_mistake(hub, saved, tmp_path):
    push(saved)
    snapshot = fetch(REPO)
    vectors = json.loads((snapshot / "vectors.json").read_text())
    vectors["embeddings"][3][0] += 1e-4
    api(hub).upload_file(path_or_fileobj=json.dumps(vectors).encode(), path_in_repo="vectors.json", repo_id=REPO)
    done = subprocess.run([sys.executable, "-m", "lira_hf", "verify", REPO], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "0"})
    assert done.returncode == 1, done.stderr
    assert "vectors.json: its sha256 is" in done.stdout and "differs by more than 1e-05" in done.stdout
    done = subprocess.run([sys.executable, "-m", "lira_hf", "verify", "org/none"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "org/none" in done.stderr


@pytest.mark.slow
def test_backbones_by_reference_are_published_small_and_verified(hub, backbones, tmp_path):
    for kind in ("xlm-r", "bert"):
        api(hub).create_repo(f"org/{kind}")
        api(hub).upload_folder(repo_id=f"org/{kind}", folder_path=backbones[kind])
    torch.manual_seed(0)
    stirred(LiraForRetrieval.from_backbones("org/xlm-r", "org/bert", **SMALL)).save_pretrained(tmp_path / "model")
    LiraProcessor.from_backbones("org/xlm-r", "org/bert").save_pretrained(tmp_path / "model")
    keep(SCORES, tmp_path / "model", "laz")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"similarity_fn_name": "dot"}))
    before = hashes(tmp_path / "model")
    push(tmp_path / "model", backbones="embedded")
    referring = push(tmp_path / "model", "org/small", backbones="reference")
    assert hashes(tmp_path / "model") == before
    sizes = [hub.store.manifest("models", repo_id, head(hub, repo_id))["files"]["model.safetensors"]["size"] for repo_id in (REPO, "org/small")]
    assert sizes[1] < sizes[0] - sum((Path(backbones[kind]) / "model.safetensors").stat().st_size for kind in ("xlm-r", "bert")) * 0.8
    found = verify("org/small", referring.commit)
    assert found.right, str(found)
    assert json.loads((fetch("org/small") / "config_sentence_transformers.json").read_text())["similarity_fn_name"] == "dot"
    assert not push(fetch("org/small"), "org/small").changed  # its scores are those of its own weights
    vectors = [json.loads((fetch(repo_id) / "vectors.json").read_text())["embeddings"] for repo_id in (REPO, "org/small")]
    torch.testing.assert_close(*map(torch.tensor, vectors), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_transformers_own_push_to_hub_leaves_a_repository_that_every_auto_class_opens(hub, saved, tmp_path):
    code = f"""
from lira_hf import LiraForPreTraining, LiraProcessor
answer([part.from_pretrained({str(saved)!r}).push_to_hub({REPO!r}).oid for part in (LiraForPreTraining, LiraProcessor)])
"""
    assert hub.client(code, tmp_path / "publisher", PYTHONPATH=os.pathsep.join(sys.path))[-1] == head(hub)
    assert set(listing(hub, head(hub))) - {"README.md", ".gitattributes"} == set(hashes(saved))
    found = {row.what: row for row in verify(REPO).rows}
    assert "missing" in found.pop("vectors.json").failure and "missing" in found.pop("checksums.json").failure
    assert len(found) == 5 and all(row.right for row in found.values()), found


@pytest.mark.slow
def test_transformers_own_push_takes_away_what_is_no_longer_true_and_sends_all_that_was_saved(hub, saved, backbones, llms, tmp_path):
    old = push(saved).commit
    code = f"""
import torch
from pathlib import Path
from lira_hf import LiraForRetrieval, LiraProcessor
model = LiraForRetrieval.from_pretrained({str(saved)!r})
with torch.no_grad():
    model.lira.lasr.path_weight.mul_(1.5)
commits = [model.push_to_hub({REPO!r}, revision="trial").oid, model.push_to_hub({REPO!r}).oid]
for english in {[backbones["bert"], backbones["t5"]]!r}:  # the second time over the first
    processor = LiraProcessor.from_backbones({backbones["xlm-r"]!r}, english, llm={llms["qwen3-lm"]!r})
    processor.save_pretrained(Path({str(tmp_path / "lira")!r}), push_to_hub=True, repo_id="org/processor")
answer([*commits, model.lira.lasr.path_weight.flatten().tolist()])
"""
    trial, new, weight = hub.client(code, tmp_path / "publisher", PYTHONPATH=os.pathsep.join(sys.path))
    before = listing(hub, old)
    for commit in (trial, new):  # one commit each, of a branch and of main
        found = listing(hub, commit)
        assert hub.store.manifest("models", REPO, commit)["parent"] == old
        assert set(before) - set(found) == {"checksums.json", "vectors.json"} and found["model.safetensors"] != before["model.safetensors"]
    local = LiraForRetrieval.from_pretrained(shutil.copytree(fetch(REPO), tmp_path / "local"))
    assert local.lira.lasr.path_weight.flatten().tolist() == weight
    published = listing(hub, head(hub, "org/processor"), "org/processor")
    assert published.items() >= hashes(tmp_path / "lira").items()
    assert {"llm_tokenizer/tokenizer.json", "english_tokenizer/tokenizer.json"} < set(published)


@pytest.mark.slow
def test_200_publishes_and_downloads_under_random_faults_end_whole_or_with_one_error(saved, tmp_path):
    staged = stage(saved, tmp_path / "staged", REPO)
    command = [sys.executable, TESTS / "faulty_rounds.py", staged, tmp_path / "rounds", "200"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.split("ANSWER")[-1])
    print(found)  # noqa: T201
    outcomes = found["outcomes"]
    for what in ("publish", "download"):  # most end whole, and some of the faults never stop
        assert outcomes[f"{what}: whole"] + outcomes[f"{what}: error"] == 200
        assert outcomes[f"{what}: whole"] > 100 and outcomes[f"{what}: error"] > 0
    kinds = {kind.split()[0] for kind in found["hit"]}
    assert kinds == {"status", "drop", "reset", "truncate", "corrupt", "delay", "mute"}
