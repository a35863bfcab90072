"""The data set on the Hub and back: published, loaded and streamed by the real clients, each in a process of its own."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from loopback_hub import LoopbackHub

from lira_hf.catalogue import build
from lira_hf.catalogue.imports import import_shop
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.hub import publish_dataset
from lira_hf.languages import LANGUAGES as LANGUAGES_OF_THE_PROJECT

REPO = "org/laz-retrieval"
SCRIPT = Path(__file__).parents[2] / "dataset_cards" / "laz-retrieval" / "laz_retrieval.py"
SPLITS = ("train", "validation", "test")
LANGUAGES = ("th", "fil")
CONFIGS = [f"{language}{suffix}" for language in LANGUAGES for suffix in COLUMNS]

# Code for client processes. `digest` is the same here and there: rows in, their number and hash out.
DIGEST = """
import hashlib
def digest(rows): return [len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()]
"""
PUBLISH = """
from lira_hf.hub import publish_dataset
try: answer(publish_dataset(*{0!r}, progress=False, **{1!r}))
except ValueError as error: answer({{"error": str(error)}})
"""
LOAD = """
from datasets import load_dataset
answer({{config: {{split: digest(rows.to_list()) for split, rows in load_dataset({0!r}, config, **{2!r}).items()}} for config in {1!r}}})
"""


def publish(hub: LoopbackHub, folder: Path, repo_id: str = REPO, *, with_token: bool = True, **options):
    return hub.client(PUBLISH.format((str(folder), repo_id), options), hub.store.root / "publisher", token=with_token)


def load(hub: LoopbackHub, home: Path, repo_id: str = REPO, configs=CONFIGS, *, variables=None, **options):
    """The digests of every split, by config, as `datasets` loads them."""
    return hub.client(DIGEST + LOAD.format(repo_id, list(configs), options), home, **(variables or {}))


def listing(hub: LoopbackHub, repo_id: str = REPO) -> dict[str, dict]:
    """The files of the newest commit."""
    return hub.store.manifest("datasets", repo_id, head(hub, repo_id))["files"]


def head(hub: LoopbackHub, repo_id: str = REPO) -> str:
    return hub.store.resolve("datasets", repo_id, "main")


def hashes(folder: Path) -> dict[str, str]:
    return json.loads((folder / "build.json").read_text())["sha256"]


def tables(folder: Path, config: str) -> dict[str, list[dict]]:
    """The rows of a config, by split, as the Parquet files hold them."""
    shards = {split: sorted((folder / config).glob(f"{split}-*.parquet")) for split in SPLITS}
    return {split: [row for path in paths for row in pq.read_table(path).to_pylist()] for split, paths in shards.items()}


def digests(folder: Path, configs=CONFIGS) -> dict[str, dict[str, list]]:
    names = {"json": json}
    exec(DIGEST, names)
    return {config: {split: names["digest"](rows) for split, rows in tables(folder, config).items()} for config in configs}


def resharded(folder: Path, target: Path, count: int) -> Path:
    """A copy of a data set whose train tables have `count` shards."""
    shutil.copytree(folder, target)
    record = json.loads((target / "build.json").read_text())
    for path in sorted(target.glob("*/train-*.parquet")):
        table = pq.read_table(path)
        path.unlink()
        del record["sha256"][path.relative_to(target).as_posix()]
        step = -(-table.num_rows // count)
        for index in range(count):
            shard = path.with_name(f"train-{index:05d}-of-{count:05d}.parquet")
            pq.write_table(table.slice(index * step, step), shard)
            record["sha256"][shard.relative_to(target).as_posix()] = hashlib.sha256(shard.read_bytes()).hexdigest()
    (target / "build.json").write_text(json.dumps(record))
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("built") / "data", languages=LANGUAGES, progress=False)


@pytest.fixture(scope="module")
def sharded(folder, tmp_path_factory) -> Path:
    return resharded(folder, tmp_path_factory.mktemp("sharded") / "data", 3)


@pytest.fixture(scope="module")
def published(sharded, tmp_path_factory) -> LoopbackHub:
    """A Hub that holds the data set, three shards to a train table. Tests that change it publish elsewhere."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        assert publish(hub, sharded) == f"{hub.endpoint}/datasets/{REPO}/commit/{head(hub)}"
        yield hub


@pytest.fixture
def hub(tmp_path) -> LoopbackHub:
    with LoopbackHub(tmp_path / "hub") as hub:
        yield hub


def test_every_config_loads_and_then_loads_again_without_a_network(published, sharded, tmp_path):
    assert load(published, tmp_path) == digests(sharded)
    before = sum(published.requests.values())
    assert load(published, tmp_path, variables={"HF_HUB_OFFLINE": "1"}) == digests(sharded)
    assert sum(published.requests.values()) == before


def test_streaming_gives_the_first_row_at_once(published, sharded, tmp_path):
    code = f"""
import time, datasets, torch  # datasets imports torch, where it is installed, with its first stream
start = time.perf_counter()
row = next(iter(datasets.load_dataset({REPO!r}, "th", split="train", streaming=True)))
answer([row, time.perf_counter() - start])
"""
    row, seconds = published.client(code, tmp_path)
    print(f"first row after {seconds:.2f} s")  # noqa: T201
    assert row == tables(sharded, "th")["train"][0]
    assert seconds < 10  # a bound for a busy machine; a free one takes a third of a second


def test_what_is_downloaded_has_the_checksums_of_the_build(published, sharded, tmp_path):
    code = f"import huggingface_hub as h; answer(h.snapshot_download({REPO!r}, repo_type='dataset'))"
    snapshot = Path(published.client(code, tmp_path))
    found = {path.relative_to(snapshot).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in snapshot.rglob("*") if path.is_file()}
    script = found.pop("scripts/laz_retrieval.py")
    assert script == hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert json.loads((snapshot / "build.json").read_text()) == json.loads((sharded / "build.json").read_text())
    found.pop("build.json")
    assert found == hashes(snapshot) == hashes(sharded)


def test_a_private_repository_opens_with_the_token_only(hub, folder, tmp_path):
    publish(hub, folder, private=True)
    code = """
from datasets import load_dataset
try: answer(len(load_dataset({0!r}, "th", split="test")))
except Exception as error: answer(type(error).__name__)
"""
    assert hub.client(code.format(REPO), tmp_path / "stranger", token=False) == "DatasetNotFoundError"
    assert hub.client(code.format(REPO), tmp_path / "owner") == len(tables(folder, "th")["test"])


def test_private_never_means_a_repository_that_everyone_reads(hub, folder):
    hub.store.create("datasets", REPO, private=False)
    assert "everyone can read it" in publish(hub, folder, private=True)["error"]
    assert listing(hub) == {} and not [request for request in hub.requests if request.startswith("PUT")]


def test_publishing_again_removes_stale_shards_in_the_same_commit(hub, folder, sharded, tmp_path):
    other = build(tmp_path / "other", languages=["th"], seed=1, progress=False)
    first = publish(hub, sharded).rsplit("/", 1)[-1]
    second = publish(hub, other).rsplit("/", 1)[-1]
    assert hub.store.manifest("datasets", REPO, second)["parent"] == first
    assert set(listing(hub)) == {*hashes(other), "build.json", "scripts/laz_retrieval.py"}
    assert load(hub, tmp_path / "home", configs=["th"]) == digests(other, ["th"]) != digests(folder, ["th"])
    assert load(hub, tmp_path / "home", configs=["th", "fil"], revision=first) == digests(sharded, ["th", "fil"])
    assert publish(hub, other).rsplit("/", 1)[-1] == second  # nothing new, no commit


def test_the_scripts_own_name_is_a_name_that_loads(hub, folder, tmp_path):
    publish(hub, folder, "org/laz_retrieval")
    assert load(hub, tmp_path, "org/laz_retrieval", ["th", "th-qrels"]) == digests(folder, ["th", "th-qrels"])


def test_a_failed_publication_leaves_the_old_one_and_can_be_repeated(hub, folder, sharded):
    old = publish(hub, sharded).rsplit("/", 1)[-1]
    hub.add_fault("status", match="/commit/", method="POST", status=503)
    error = publish(hub, folder)["error"]
    assert "can be tried again" in error and "\n" not in error
    assert head(hub) == old
    sent = sum(count for request, count in hub.requests.items() if request.startswith("PUT"))
    assert publish(hub, folder).rsplit("/", 1)[-1] == head(hub) != old
    assert sum(count for request, count in hub.requests.items() if request.startswith("PUT")) == sent


@pytest.mark.parametrize(
    "options, fault, said",
    [
        ({"with_token": False}, None, "token: none was given or found"),
        ({"token": "hf_wrong"}, None, "token: the Hub does not know it"),
        ({"repo_id": "elsewhere/laz-retrieval"}, None, "repo_id: the token may not write to 'elsewhere/laz-retrieval'"),
        ({}, {"kind": "status", "match": "/commit/", "status": 412}, "repo_id: somebody pushed to 'org/laz-retrieval' at the same time"),
        ({}, {"kind": "drop", "match": "/commit/"}, "repo_id: publishing to 'org/laz-retrieval' failed, and can be tried again"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, folder, options, fault, said):
    if fault:
        hub.add_fault(**fault)
    error = publish(hub, folder, **options)["error"]
    assert error.startswith(said) and "\n" not in error


@pytest.mark.parametrize("repo_id", ["laz-retrieval", "org/a/b", "org/-laz", "org/laz--x", "org/laz retrieval", ""])
def test_a_repo_id_that_the_hub_would_refuse_is_named(folder, repo_id):
    with pytest.raises(ValueError, match=re.escape(f"repo_id: {repo_id!r} is not allowed")):
        publish_dataset(folder, repo_id)


def missing(folder):
    shutil.rmtree(folder)


def no_record(folder):
    (folder / "build.json").unlink()


def lost_shard(folder):
    (folder / "th" / "test-00000-of-00001.parquet").unlink()


def changed_card(folder):
    (folder / "README.md").write_text((folder / "README.md").read_text() + "more\n")


def card_without_a_config(folder):
    card = folder / "README.md"
    card.write_text(re.sub(r"- config_name: fil-qrels\n(  .*\n)+", "", card.read_text()))
    record = json.loads((folder / "build.json").read_text())
    record["sha256"]["README.md"] = hashlib.sha256(card.read_bytes()).hexdigest()
    (folder / "build.json").write_text(json.dumps(record))


def record_without_a_split(folder):
    record = json.loads((folder / "build.json").read_text())
    del record["sha256"]["fil/validation-00000-of-00001.parquet"]
    (folder / "build.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (missing, "is no folder"),
        (no_record, "holds no data set"),
        (lost_shard, "lacks th/test-00000-of-00001.parquet"),
        (changed_card, "README.md in .* has changed"),
        (card_without_a_config, "differ at fil-qrels/"),
        (record_without_a_split, "differ at fil/validation-"),
    ],
)
def test_only_a_whole_data_set_is_published(folder, tmp_path, spoil, said):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(ValueError, match=f"^folder: .*{said}"):
        publish_dataset(copy, REPO, progress=False)


SCRIPT_ALONE = """
import os, sys
import datasets
sys.path.insert(0, os.path.dirname({0!r}))
from laz_retrieval import LazRetrieval
"""


def test_the_script_knows_every_config_and_gives_the_rows_of_the_shards(published, sharded, tmp_path):
    code = """
def whole(config):
    builder = LazRetrieval(config_name=config, data_dir={0!r})
    builder.download_and_prepare()
    rows, plain = builder.as_dataset(), datasets.load_dataset({0!r}, config)
    assert {{split: rows[split].features for split in rows}} == {{split: plain[split].features for split in plain}}
    assert next(iter(builder.as_streaming_dataset("test"))) == rows["test"][0]
    return {{split: digest(rows[split].to_list()) for split in rows}}
answer([list(LazRetrieval.builder_configs), {{config: whole(config) for config in {1!r}}}])
"""
    known, found = published.client(DIGEST + SCRIPT_ALONE.format(str(SCRIPT)) + code.format(str(sharded), CONFIGS), tmp_path)
    assert known == [f"{language}{suffix}" for language in LANGUAGES_OF_THE_PROJECT for suffix in COLUMNS]
    assert found == digests(sharded)


def test_the_script_builds_parquet_in_parallel_and_its_rows_can_be_pushed(published, sharded, tmp_path):
    code = """
builder = LazRetrieval(config_name="th", data_dir={0!r})
builder.download_and_prepare({1!r}, file_format="parquet", num_proc=2)
builder = LazRetrieval(config_name="th", data_dir={0!r})
builder.download_and_prepare(num_proc=2)
builder.as_dataset().push_to_hub("org/copy", "th")
answer({{split: digest(rows.to_list()) for split, rows in datasets.load_dataset("org/copy", "th").items()}})
"""
    code = DIGEST + SCRIPT_ALONE.format(str(SCRIPT)) + code.format(str(sharded), str(tmp_path / "parquet"))
    assert published.client(code, tmp_path) == digests(sharded, ["th"])["th"]
    shards = sorted((tmp_path / "parquet").glob("*-train-*.parquet"))
    assert len(shards) == 2
    assert [row for shard in shards for row in pq.read_table(shard).to_pylist()] == tables(sharded, "th")["train"]


def test_the_script_finds_the_data_beside_it_and_on_the_hub_and_says_when_it_does_not(published, sharded, folder, tmp_path):
    snapshot = f"""
import huggingface_hub as h
snapshot = h.snapshot_download({REPO!r}, repo_type="dataset")
"""
    code = """
def count(**options):
    try:
        builder = LazRetrieval(**{{"config_name": "th"}} | options)
        builder.download_and_prepare()
        return [digest(builder.as_dataset()["train"].to_list()), next(iter(builder.as_streaming_dataset("train")))]
    except ValueError as error:
        return str(error)
"""
    code = snapshot + DIGEST + SCRIPT_ALONE.replace("{0!r}", "snapshot + '/scripts/laz_retrieval.py'") + code.format()
    other = build(tmp_path / "data", languages=["th"], seed=1, progress=False)
    there = f"count(data_dir={str(other)!r})"
    asked = f"answer([count(), count(data_dir='hf://datasets/{REPO}'), {there}, count(config_name='vi'), count(data_dir='/nowhere')])"
    *places, no_config, no_data = published.client(code + asked, tmp_path / "home")
    for place, expected in zip(places, (sharded, sharded, other), strict=True):
        assert place == [digests(expected, ["th"])["th"]["train"], tables(expected, "th")["train"][0]]
    assert no_config.startswith("config: 'vi' is not in ") and no_config.endswith("it holds " + ", ".join(sorted(CONFIGS)))
    assert no_data == "data_dir: no build.json in /nowhere; give the folder of a data set, or hf://datasets/ORG/NAME"
    shutil.rmtree(other)  # another build at the same place is not mistaken for the one in the cache
    shutil.copytree(folder, other)
    assert published.client(code + f"answer({there})", tmp_path / "home")[0] == digests(folder, ["th"])["th"]["train"]


@pytest.mark.slow
def test_datasets_3_runs_the_script_and_gives_the_same_rows(published, sharded, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    # The tested versions of what datasets 3 leaves open; for the rest it has bounds of its own.
    constraints = (SCRIPT.parents[2] / "constraints.txt").read_text().splitlines()
    pins = [line for line in constraints if line.startswith(("huggingface_hub==", "numpy==", "pandas==", "pyarrow=="))]
    for command in ([sys.executable, "-m", "venv", tmp_path / "venv"], [python, "-m", "pip", "install", "--quiet", "datasets==3.6.0", *pins]):
        subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    code = f"""
import datasets, huggingface_hub as h
assert datasets.__version__ == "3.6.0"
script = h.hf_hub_download({REPO!r}, "scripts/laz_retrieval.py", repo_type="dataset")
address = {{"data_dir": "hf://datasets/{REPO}"}}
whole = h.snapshot_download({REPO!r}, repo_type="dataset") + "/scripts/laz_retrieval.py"
def rows(path, **options):
    found = {{}}
    for config in {CONFIGS[:4]!r}:
        splits = datasets.load_dataset(path, config, trust_remote_code=True, **options)
        streamed = datasets.load_dataset(path, config, trust_remote_code=True, streaming=True, **options)
        found[config] = {{split: digest(splits[split].to_list()) for split in splits}}
        assert found[config] == {{split: digest(list(streamed[split])) for split in streamed}}
    return found
answer([rows(script, **address), rows(whole), rows({str(SCRIPT)!r}, data_dir={str(sharded)!r})])
"""
    expected = load(published, tmp_path / "5", configs=CONFIGS[:4])
    assert published.client(DIGEST + code, tmp_path / "3", python=python) == [expected] * 3


def test_an_imported_shop_is_published_without_what_was_refused(tmp_path):
    (tmp_path / "products.csv").write_text("id,title\n" + "".join(f"p{n},เสื้อยืด {n}\n" for n in range(40)) + "p41,\n")
    (tmp_path / "judged.csv").write_text("query,product_id,grade\n" + "".join(f"เสื้อ {n},p{n},3\n" for n in range(30)))
    report = import_shop(tmp_path / "products.csv", None, tmp_path / "judged.csv", "th", tmp_path / "shop", progress=False)
    card = report.output / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: mit"))  # as the card asks
    with LoopbackHub(tmp_path / "hub") as hub:
        publish(hub, report.output, "org/my-shop")
        files = set(listing(hub, "org/my-shop"))
    assert {"README.md", "build.json"} < files and not files & {"import.json", "refused.jsonl", "scripts/laz_retrieval.py"}
