"""Training data read from a stream: the same items, the same weights after a resume, no repetition between processes or workers."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import IterableDatasetShard
from datasets import Dataset, load_dataset
from loopback_hub import LoopbackHub
from processes import together
from safetensors.torch import load_file
from small_data import small_data
from torch.utils.data import DataLoader

import lira_hf
from lira_hf.collation import RetrievalCollator, Stream, every_row, read, stream
from lira_hf.collation.mixture import shares
from lira_hf.collation.streaming import Streamed
from lira_hf.training import check_recipe, run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return small_data(tmp_path_factory.mktemp("laz"), ["id", "fil"])


@pytest.fixture
def recipe(data, backbones, tmp_path) -> dict:
    common = {"learning_rate": 1e-3, "disable_tqdm": True, "logging_steps": 1, "save_steps": 2, "per_device_train_batch_size": 4, "max_steps": 4}
    return {
        "data": data,
        "languages": ["id", "fil"],
        "streaming": True,
        "cache_features": False,
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(tmp_path / "out"),
        "max_length": 32,
        "products_per_query": 2,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "queue": "embeddings", "queue_size": 16},
        "anchoring": {**common, "gradient_accumulation_steps": 2},
        "retrieval": {**common, "gradient_accumulation_steps": 2},
    }


# ---- what is read ----------------------------------------------------------------------------------------------------------


def test_a_stream_holds_what_reading_whole_gives(data):
    streamed, whole = stream(data, "id", "train"), read(data, "id", "train")
    assert list(streamed.queries) == whole.queries == list(streamed.queries) and len(streamed.queries) == len(whole.queries) == 40
    assert dict(streamed.products) == whole.products and len(streamed.products) == len(whole.products)
    for references in (False, True):
        key = lambda row: (row.text, row.translations, row.prompt)  # noqa: E731
        assert sorted(every_row([streamed], references), key=key) == sorted(every_row([whole], references), key=key)
    rows = [row for part in streamed.row_streams() for row in part]
    assert len(rows) == sum(map(len, streamed.row_streams())) and rows == whole.rows()


def test_a_product_that_is_not_there_is_not_found(data):
    products = stream(data, "id", "train").products
    assert "nothing" not in products and products.get("nothing") is None
    with pytest.raises(KeyError):
        products["nothing"]


def test_a_batch_of_streamed_products_is_that_of_products_in_memory(data, processor):
    streamed, whole = stream(data, "id", "train"), read(data, "id", "train")
    batches = [RetrievalCollator(processor, part.products, 3)(list(part.queries)[:6]) for part in (streamed, whole)]
    for one, two in zip(flat(batches[0]), flat(batches[1]), strict=True):
        assert torch.equal(one.nan_to_num(-1), two.nan_to_num(-1))


def flat(batch):
    return [tensor for value in batch.values() for tensor in (flat(value) if isinstance(value, dict) else [value])]


# ---- the order ----------------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    name: str
    draw: int = 0


def items(name: str, count: int, shards: int = 1) -> Streamed:
    rows = Dataset.from_dict({"name": [f"{name}{i}" for i in range(count)]}).to_iterable_dataset(num_shards=shards)
    return Streamed(rows, count, make_item)


def make_item(row: dict) -> Item:
    return Item(row["name"])


def first(stream: Stream, count: int) -> list[str]:
    return [item.name for item in itertools.islice(stream, count)]


def test_a_pass_holds_every_item_once_in_an_order_of_its_own_and_numbers_it():
    passes = [list(itertools.islice(items("a", 50, 3).passes(seed, bool), 150)) for seed in (0, 0, 1)]
    assert passes[0] == passes[1] != passes[2]
    rounds = [passes[0][start : start + 50] for start in (0, 50, 100)]
    for number, each in enumerate(rounds):
        assert {item.draw for item in each} == {number} and len({item.name for item in each}) == 50
    orders = [[item.name for item in each] for each in rounds]
    assert orders[0] != orders[1] != orders[2] and orders[0] != [f"a{i}" for i in range(50)]


def test_languages_come_in_the_shares_of_the_temperature_and_streams_of_one_by_their_rows():
    parts = [[items("th-query", 600), items("th-product", 300)], [items("fil-query", 100)]]
    for temperature in (1.0, 2.0):
        found = Counter(name.rstrip("0123456789") for name in first(Stream(parts, temperature, 0), 8000))
        thai, filipino = shares([900, 100], temperature)
        expected = {"th-query": thai * 2 / 3, "th-product": thai / 3, "fil-query": filipino}
        for name, share in expected.items():
            assert found[name] / 8000 == pytest.approx(share / 1000, abs=4 * (share / 1000 / 8000) ** 0.5), (temperature, name)


def test_what_a_resumed_run_had_is_not_read_again():
    stream = Stream([[items("a", 30)], [items("b", 9)]], 2.0, seed=4)
    whole = first(stream, 120)
    stream.divide(batch=8, begin=56)
    again = list(itertools.islice(stream, 120))
    assert again[:56] == [None] * 56 and [item.name for item in again[56:]] == whole[56:]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_and_workers_share_a_stream_without_repeating_or_losing(workers, processes):
    stream = Stream([[items("a", 40, 3)], [items("b", 9)]], seed=2)
    whole = first(stream, 48)
    batch = 4 * processes
    stream.divide(batch, begin=0)
    found = []
    for index in range(processes):
        # This is what accelerate makes of an iterable data set with dispatch_batches=False.
        own = IterableDatasetShard(stream, batch_size=4, num_processes=processes, process_index=index) if processes > 1 else stream
        loader = DataLoader(own, batch_size=4, num_workers=workers, collate_fn=list)
        found.append([[item.name for item in rows] for rows in itertools.islice(loader, 48 // batch)])
    together = [name for batches in zip(*found, strict=True) for rows in batches for name in rows]
    assert together == whole


def test_only_what_is_to_be_kept_comes_and_nothing_to_keep_is_an_error():
    stream = Stream([[items("a", 9), items("b", 9)]], keep=is_a)
    assert {name[0] for name in first(stream, 40)} == {"a"}
    with pytest.raises(ValueError, match="^data: no row is of use to this stage"):
        next(iter(Stream([[items("b", 9)]], keep=is_a)))
    with pytest.raises(ValueError, match="^data: no rows"):
        Stream([[]])


def is_a(item: Item) -> bool:
    return item.name.startswith("a")


# ---- training ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [pytest.param(False, id="text"), pytest.param(True, id="cached features", marks=pytest.mark.slow)])
def test_both_stages_train_on_a_stream_and_a_resumed_run_ends_with_the_same_weights(recipe, tmp_path, cached):
    import shutil

    recipe["cache_features"] = cached
    whole = run(check_recipe(recipe))
    log = json.loads((whole / "training_log.json").read_text())
    assert max(entry["step"] for entry in log) == 4 and all(entry["loss"] > 0 for entry in log if "loss" in entry)
    again = {**recipe, "output": str(tmp_path / "again")}
    shutil.copytree(recipe["output"], again["output"])
    for name in ("model", "anchoring/model", "anchoring/checkpoint-4", "retrieval"):
        shutil.rmtree(tmp_path / "again" / name)
    resumed = run(check_recipe(again), resume=True)
    shutil.rmtree(resumed)
    shutil.rmtree(tmp_path / "again" / "retrieval" / "checkpoint-4")
    resumed = run(check_recipe(again), resume=True)
    for folder in ("anchoring/model", "model"):
        one, two = (load_file(Path(each["output"]) / folder / "model.safetensors") for each in (recipe, again))
        assert all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()


@pytest.mark.slow
def test_two_processes_train_on_a_stream_as_one_does_with_the_batch_of_both(recipe, tmp_path):
    still = {"dropout": 0.0, "path_dropout": 0.0, "queue": "none", "consistency_weight": 0.0}
    recipe |= {"stage": "retrieval", "model": {**recipe["model"], **still}}
    folders = {}
    for count in (1, 2):
        stage = {**recipe["retrieval"], "per_device_train_batch_size": 8 // count}
        whole = check_recipe({**recipe, "output": str(tmp_path / str(count)), "retrieval": stage})
        folders[count] = together(2, run, whole)[0] if count == 2 else run(whole)
    one, two = (load_file(folders[count] / "model.safetensors") for count in (1, 2))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    logs = [json.loads((folders[count] / "training_log.json").read_text()) for count in (1, 2)]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and len(losses[0]) == 4


def test_a_stream_needs_max_steps_for_each_stage_that_runs(recipe):
    del recipe["anchoring"]["max_steps"]
    with pytest.raises(ValueError, match="anchoring.max_steps: missing; a stream has no end"):
        check_recipe(recipe)
    assert check_recipe({**recipe, "stage": "retrieval"})


def test_data_that_is_not_parquet_is_refused_by_name(tmp_path):
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: id\n  data_files:\n  - split: train\n    path: id.jsonl\n---\n")
    (tmp_path / "id.jsonl").write_text('{"query": "a", "product_ids": ["p"]}\n')
    with pytest.raises(ValueError, match="^streaming: .*id.jsonl is no Parquet file.*set streaming: false"):
        stream(tmp_path, "id", "train")
    (tmp_path / "id.jsonl").write_text('{"query": "a"}\n')
    with pytest.raises(ValueError, match="^streaming: .* has no column product_ids"):
        stream(tmp_path, "id", "train")
    with pytest.raises(ValueError, match="^data: .* has no configuration 'vi'"):
        stream(tmp_path, "vi", "train")


# ---- from the Hub ----------------------------------------------------------------------------------------------------------------

FROM_HUB = """
from lira_hf.collation import stream
part = stream({0!r}, "id", "train")
product = next(iter(part.products))
answer([len(part.queries), [query.id for query in part.queries], part.products[product].title, len(part.products)])
"""


def test_a_hub_repository_is_streamed_like_a_folder(data, tmp_path):
    here = stream(data, "id", "train")
    with LoopbackHub(tmp_path / "hub") as hub:
        upload(hub, data, "org/laz-cut")
        found = hub.client(FROM_HUB.format("org/laz-cut"), tmp_path / "reader", PYTHONPATH=str(Path(lira_hf.__file__).parents[1]))
    assert found == [40, [query.id for query in here.queries], next(iter(here.products.values())).title, len(here.products)]


UPLOAD = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo({1!r}, repo_type="dataset")
answer(api.upload_folder(folder_path={0!r}, repo_id={1!r}, repo_type="dataset").oid)
"""


def upload(hub: LoopbackHub, folder: str, repo_id: str) -> None:
    hub.client(UPLOAD.format(folder, repo_id), hub.store.root / "publisher", token=True)


# ---- memory ----------------------------------------------------------------------------------------------------------------------

MEMORY = """
import itertools, json, sys
from lira_hf.collation import Stream, read, stream
how, folder, languages = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
held = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) / 1024
stream(folder, languages[0], "validation"), read(folder, languages[0], "validation")  # what is imported on first use
before = held()
parts = [(stream if how == "stream" else read)(folder, code, "train") for code in languages]
if how == "stream":
    for query in itertools.islice(Stream([[part.queries] for part in parts]), 6000):
        [parts[0].products.get(product) for product in query.judged]
print(json.dumps(held() - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    from lira_hf.catalogue import build

    small = build(tmp_path / "small", "small", ["id"], 0, progress=False)
    standard = build(tmp_path / "standard", "standard", ["id"], 0, progress=False)
    held = {}
    for how, folder in itertools.product(("stream", "read"), (small, standard)):
        done = subprocess.run([sys.executable, "-c", MEMORY, how, str(folder), "id"], check=True, capture_output=True, text=True)
        held[how, folder.name] = json.loads(done.stdout)
    assert len(load_dataset(str(standard), "id", split="train")) > 5 * len(load_dataset(str(small), "id", split="train"))
    grown = {how: held[how, "standard"] - held[how, "small"] for how in ("stream", "read")}
    assert grown["stream"] < 15 and grown["stream"] < grown["read"] / 2, held  # MB; what stays beside the buffers is 16 bytes a product
