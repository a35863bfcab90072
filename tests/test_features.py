"""The feature cache: what it gives, what makes it start anew, and what a kill, a second process or a full disk does to it."""

import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_backbones import KINDS, QWEN, SENTENCES, SMALL, stirred, train_tokenizer
from tokenizers.normalizers import Lowercase
from transformers import ByT5Tokenizer

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.catalogue import build
from lira_hf.evaluation.retrieval import embed
from lira_hf.features import FeatureStore, fill
from lira_hf.features.filling import token_batches
from lira_hf.features.keys import cache_key, tokenizer_digest
from lira_hf.features.store import Shards, write_shard
from lira_hf.modeling.processing_lira import Row
from lira_hf.training import check_recipe, run

ROWS = [Row(text, [f"{text} english", f"a {text}"], [(5.0, 5.0, 5.0), None], "th", "query") for text in SENTENCES]
ODD_ROWS = [Row(None, ["only english"], [None], "en"), Row("no candidate", [], [], "id"), Row("ab " * 200, ["cd " * 200], [None], "vi", "document")]
TEXTS = {"multilingual": len(ROWS) + 2, "english": 2 * len(ROWS) + 2}


@pytest.fixture(autouse=True)
def encoded(monkeypatch) -> list[str]:
    """The path of every text that a backbone really encoded."""
    from lira_hf.modeling import LiraModel

    paths, encode_path = [], LiraModel.encode_path

    def counted(self, path, ids, mask):
        paths.extend([path] * len(ids))
        return encode_path(self, path, ids, mask)

    monkeypatch.setattr(LiraModel, "encode_path", counted)
    return paths


def filled(folder, model, processor, rows=ROWS, **options) -> FeatureStore:
    return fill(folder, model.lira, processor, rows, **{"shard_rows": 8, "show_progress_bar": False, **options})


def shards(folder: Path) -> dict[str, bytes]:
    return {f"{file.parents[1].name}/{file.name}": file.read_bytes() for file in sorted(folder.glob("*/shards/*"))}


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


# ---- the same embeddings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-3)])
def test_embeddings_from_the_cache_are_those_of_the_text(model, processor, tmp_path, dtype, tolerance):
    store = filled(tmp_path, model, processor, ROWS + ODD_ROWS, dtype=dtype)
    for rows in (ROWS + ODD_ROWS, ROWS, ODD_ROWS[:1], ODD_ROWS[1:2]):
        torch.testing.assert_close(embed(model, store, rows), embed(model, processor, rows), atol=tolerance, rtol=0)
    size = sum(file.stat().st_size for file in tmp_path.glob("*/shards/*"))
    assert store.batch(ROWS)["english_features"].dtype == getattr(torch, dtype)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.rglob("*.safetensors")} == {0o666 & ~umask()}  # others may read a shared cache
    numbers = sum(TEXTS[path] * 5 * width for path, width in (("multilingual", 32), ("english", 24)))
    assert size == pytest.approx(numbers * getattr(torch, dtype).itemsize, rel=0.2)


def test_a_text_without_a_token_is_absent_as_it_is_when_read_from_text(backbones, tmp_path):
    """Without a template the empty text is no token at all, where XLM-R's would be two."""
    model = stirred(LiraForRetrieval.from_backbones(backbones["qwen3"], backbones["bert"], **SMALL))
    english = LiraProcessor.from_backbones(backbones["bert"], backbones["bert"]).english_tokenizer
    processor = LiraProcessor(train_tokenizer(QWEN, template=False), english)
    rows = [Row("", ["nothing"], [None], "th"), Row("TV 55", ["TV"], [None], "th")]
    store = filled(tmp_path, model, processor, rows)
    assert store.batch(rows)["text_mask"].tolist() == [False, True]
    torch.testing.assert_close(embed(model, store, rows), embed(model, processor, rows), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def recipe(backbones, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("recipe")
    stage = {"max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3, "disable_tqdm": True, "per_device_train_batch_size": 8}
    return {
        "data": str(build(folder / "data", "small", ["id"], 0, progress=False)),
        "languages": ["id"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "output": str(folder / "cache"),
        "max_length": 32,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2},
        "anchoring": stage,
        "retrieval": {**stage, "eval_strategy": "steps", "eval_steps": 3},
    }


def test_training_from_the_cache_is_training_from_text(recipe):
    shared = str(Path(recipe["output"]).with_name("features"))
    folders = [
        run(check_recipe({**recipe, "features": shared})),
        run(check_recipe({**recipe, "cache_features": False, "output": recipe["output"] + "-text"})),
    ]
    for stage in ("anchoring/model", "model"):
        one, two = (json.loads((folder.parent / stage / "training_log.json").read_text()) for folder in folders)
        assert [entry["loss"] for entry in one if "loss" in entry] == pytest.approx([entry["loss"] for entry in two if "loss" in entry], abs=1e-4)
        assert [e["eval_ndcg@10"] for e in one if "eval_ndcg@10" in e] == pytest.approx([e["eval_ndcg@10"] for e in two if "eval_ndcg@10" in e])
    shutil.rmtree(folders[0])
    other = {**recipe, "features": shared, "stage": "retrieval", "backbones": {**recipe["backbones"], "english": recipe["backbones"]["multilingual"]}}
    with pytest.raises(ValueError, match="was not filled by this model's english backbone"):  # its stage 1 had another
        run(check_recipe(other), resume=True)


# ---- what makes it start anew ------------------------------------------------------------------------------------------------


def other_weights(model, processor):
    with torch.no_grad():
        next(model.lira.english.parameters())[0, 0] += 1e-3
    return model, processor


def other_configuration(model, processor):
    model.lira.english.config.layer_norm_eps *= 10
    return model, processor


def other_bins(model, processor):
    model.config.num_bins = model.lira.config.num_bins = 2
    return model, processor


def other_pooling(model, processor):
    model.lira.config.english_pooling = "cls"
    return model, processor


def other_length(model, processor):
    return model, LiraProcessor(processor.tokenizer, processor.english_tokenizer, max_length=processor.max_length // 2)


def other_tokenizer(model, processor):
    tokenizer = copy.deepcopy(processor.english_tokenizer)
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    return model, LiraProcessor(processor.tokenizer, tokenizer)


CHANGES = [other_weights, other_configuration, other_bins, other_pooling, other_length, other_tokenizer]
NAMES = ["weights", "config", "num_bins 4, not 2", "pooling mean, not cls", "max_length 128, not 64", "tokenizer"]


@pytest.mark.parametrize(("change", "name"), list(zip(CHANGES, NAMES, strict=True)))
def test_a_change_of_what_features_depend_on_is_refused_and_refilled(model, processor, tmp_path, encoded, caplog, change, name):
    old = filled(tmp_path, model, processor)
    before = old.batch(ROWS)["english_features"]
    model, changed = change(model, processor)
    with pytest.raises(ValueError, match=f"features: .* holds nothing that fits the .* path; fill it first .*{name}"):
        FeatureStore.open(tmp_path, model.lira, changed)
    with pytest.raises(ValueError, match=f"was not filled by this model's .*{name}"):
        FeatureStore(old.shards, changed).check(model.lira)
    encoded.clear()
    store = filled(tmp_path, model, changed)
    assert encoded.count("english") == 2 * len(ROWS) and name in caplog.text
    FeatureStore.open(tmp_path, model.lira, changed).check(model.lira)
    assert torch.equal(old.batch(ROWS)["english_features"], before)  # the earlier features are still there, under their own name
    if change is not other_bins:  # LaSR has a position for each bin, so this model cannot embed
        torch.testing.assert_close(embed(model, store, ROWS), embed(model, changed, ROWS), atol=1e-6, rtol=0)


def test_another_number_format_is_another_cache(model, processor, tmp_path, encoded):
    filled(tmp_path, model, processor)
    encoded.clear()
    with pytest.raises(ValueError, match="dtype float32, not float16"):
        FeatureStore.open(tmp_path, model.lira, processor, "float16")
    filled(tmp_path, model, processor, dtype="float16")
    assert len(encoded) == 3 * len(ROWS)


def test_new_texts_are_encoded_and_no_old_one_again(model, processor, tmp_path, encoded):
    filled(tmp_path, model, processor)
    before = shards(tmp_path)
    encoded.clear()
    changed = [Row("another TV", [ROWS[0].translations[0], "a new candidate"], [None, None], "th", "query"), *ROWS[1:]]
    with pytest.raises(ValueError, match="the multilingual path was not filled with 'another TV'"):
        FeatureStore.open(tmp_path, model.lira, processor).batch(changed)
    store = filled(tmp_path, model, processor, changed)
    assert encoded == ["multilingual", "english"]
    assert before.items() <= shards(tmp_path).items()
    torch.testing.assert_close(embed(model, store, ROWS + changed), embed(model, processor, ROWS + changed), atol=1e-6, rtol=0)
    encoded.clear()
    filled(tmp_path, model, processor, changed)  # the tokenizers have been used in the meantime
    assert not encoded


def test_a_prompt_is_part_of_the_text(backbones, model, tmp_path, encoded):
    rows = [Row("TV 55", ["TV"], [None], "th", "query")]
    plain, prompted = (
        LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], prompts={"query": {"multilingual": prefix, "english": prefix}})
        for prefix in ("", "query: ")
    )
    filled(tmp_path, model, plain, rows)
    with pytest.raises(ValueError, match="not filled with 'query: TV 55'"):
        FeatureStore.open(tmp_path, model.lira, prompted).batch(rows)
    assert len(filled(tmp_path, model, prompted, rows).shards["english"]) == 2


def test_a_saved_model_finds_the_features_of_its_backbones(model, processor, tmp_path):
    filled(tmp_path / "features", model, processor)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again, its = LiraForRetrieval.from_pretrained(tmp_path / "model"), LiraProcessor.from_pretrained(tmp_path / "model")
    store = FeatureStore.open(tmp_path / "features", again.lira, its)
    torch.testing.assert_close(embed(again, store, ROWS), embed(model, processor, ROWS), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_backbone_has_a_key_of_its_own_weights(backbones, kind):
    model = LiraForRetrieval.from_backbones(backbones[kind], backbones[kind], **SMALL)
    processor = LiraProcessor.from_backbones(backbones[kind], backbones[kind])
    one, two = (cache_key(model.lira, processor, path, "float32") for path in ("multilingual", "english"))
    assert one["weights"] == two["weights"] and one["tokenizer"] == two["tokenizer"]


def test_a_tokenizer_written_in_python_has_a_digest():
    assert tokenizer_digest(ByT5Tokenizer()) == tokenizer_digest(ByT5Tokenizer()) != tokenizer_digest(ByT5Tokenizer(extra_ids=7))


# ---- kills, processes, disks -------------------------------------------------------------------------------------------------

FILL = """
import sys, os
from pathlib import Path
import torch
from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.features import fill
from lira_hf.modeling import LiraModel
from lira_hf.modeling.processing_lira import Row

multilingual, english, output, log, count = sys.argv[1:]
torch.set_num_threads(1)
model = LiraForRetrieval.from_backbones(multilingual, english, width=32, num_bins=4, fusion_layers=1, fusion_heads=2)
processor = LiraProcessor.from_backbones(multilingual, english)
encode_path = LiraModel.encode_path
def counted(self, path, ids, mask):
    with open(f"{log}-{os.environ.get('RANK', 0)}", "a") as file:
        file.write("x" * len(ids))
    return encode_path(self, path, ids, mask)
LiraModel.encode_path = counted
rows = [Row(f"text {i} " + "long " * (i % 20), [f"candidate {i}"], [None], "th") for i in range(int(count))]
fill(output, model.lira, processor, rows, batch_tokens=512, shard_rows=64, show_progress_bar=False)
"""


def arguments(backbones, output, log, count) -> list[str]:
    return list(map(str, (backbones["xlm-r"], backbones["bert"], output, log, count)))


def test_a_killed_fill_goes_on_and_ends_with_the_same_bytes(backbones, tmp_path):
    script, count = tmp_path / "fill.py", 3000
    script.write_text(FILL)
    whole = [sys.executable, script, *arguments(backbones, tmp_path / "whole", tmp_path / "once", count)]
    subprocess.run(whole, check=True, capture_output=True)
    assert (tmp_path / "once-0").stat().st_size == 2 * count
    killed = [sys.executable, script, *arguments(backbones, tmp_path / "killed", tmp_path / "again", count)]
    for wanted in (1, 40):  # of 94 shards
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 120
        while len(shown := list((tmp_path / "killed").glob("*/shards/*.safetensors"))) < wanted and time.time() < deadline:
            assert process.poll() is None, "the fill ended before it could be killed"
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        shown = shards(tmp_path / "killed")
        assert len([name for name in shown if name.endswith(".safetensors")]) < 94
    subprocess.run(killed, check=True, capture_output=True)
    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")
    repeated = (tmp_path / "again-0").stat().st_size - 2 * count
    assert 0 <= repeated <= 2 * 64  # of each kill at most the shard in flight


def test_two_processes_fill_one_cache(backbones, tmp_path):
    script, count = tmp_path / "fill.py", 600
    script.write_text(FILL)
    subprocess.run([sys.executable, script, *arguments(backbones, tmp_path / "one", tmp_path / "alone", count)], check=True, capture_output=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, script, *arguments(backbones, tmp_path / "two", tmp_path / "shared", count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    shares = [(tmp_path / f"shared-{rank}").stat().st_size for rank in (0, 1)]
    assert sum(shares) == 2 * count and min(shares) > 0.4 * count


@pytest.mark.slow
def test_a_second_fill_waits_for_the_first_and_finds_its_work_done(backbones, tmp_path):
    script, count = tmp_path / "fill.py", 1500
    script.write_text(FILL)
    run = [sys.executable, script, *arguments(backbones, tmp_path / "both", tmp_path / "both-log", count)]
    processes = [subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert (tmp_path / "both-log-0").stat().st_size == 2 * count


def test_the_size_is_predicted_and_too_small_a_disk_refused_before_the_fill(model, processor, tmp_path, encoded):
    with pytest.raises(ValueError, match=r"features: .* would grow by .* MB \(18 multilingual, 36 english texts in float32\)") as error:
        filled(tmp_path / "features", model, processor, limit=10_000)
    assert "0.0 MB is the limit" in str(error.value) and not encoded and not (tmp_path / "features").exists()
    texts = [f"{text} {i}" for text in SENTENCES for i in range(100)]
    rows = [Row(text, [text], [None], "th") for text in texts]
    with pytest.raises(ValueError, match="would grow by") as error:
        filled(tmp_path / "features", model, processor, rows, limit=0, shard_rows=4096)
    predicted = float(str(error.value).split("grow by ")[1].split(" MB")[0])
    filled(tmp_path / "features", model, processor, rows, shard_rows=4096)
    real = sum(file.stat().st_size for file in (tmp_path / "features").rglob("*") if file.is_file()) / 1e6
    assert real == pytest.approx(predicted, rel=0.02)
    filled(tmp_path / "features", model, processor, rows, limit=0)  # what is there needs no room


def test_a_damaged_or_cut_shard_is_named(model, processor, tmp_path):
    store = filled(tmp_path, model, processor)
    victim = next(tmp_path.glob("english-*/shards/*"))
    victim.write_bytes(victim.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{victim.name} has been cut short; delete it and fill again"):
        store.batch(ROWS)
    with pytest.raises(ValueError, match=f"{victim.name} is damaged"):
        FeatureStore.open(tmp_path, model.lira, processor)
    victim.unlink()
    torch.testing.assert_close(embed(model, filled(tmp_path, model, processor), ROWS), embed(model, processor, ROWS), atol=1e-6, rtol=0)


def test_shards_made_elsewhere_may_be_copied_in(model, processor, tmp_path, encoded):
    one = filled(tmp_path / "one", model, processor, ROWS[:10])
    two = filled(tmp_path / "two", model, processor, ROWS[6:])  # four rows are in both, cut otherwise
    for path in one.shards:
        shutil.copytree(two.shards[path].folder / "shards", one.shards[path].folder / "shards", dirs_exist_ok=True)
    encoded.clear()
    store = filled(tmp_path / "one", model, processor)
    assert not encoded and len(store.shards["english"]) == 2 * len(ROWS)
    torch.testing.assert_close(embed(model, store, ROWS), embed(model, processor, ROWS), atol=1e-6, rtol=0)


def test_a_shard_in_the_wrong_folder_is_refused(model, processor, tmp_path):
    other = filled(tmp_path, model, processor).shards["english"]
    model, processor = other_weights(model, processor)
    own = filled(tmp_path, model, processor).shards["english"]
    shutil.copy(other.files[0], own.files[0])  # the same texts, so the same name, and the same size
    for read in (lambda: FeatureStore.open(tmp_path, model.lira, processor), lambda: filled(tmp_path, model, processor)):
        with pytest.raises(ValueError, match=f"{own.files[0].name} is a shard of {other.folder.name}, where texts were encoded otherwise"):
            read()


# ---- reading and batching ----------------------------------------------------------------------------------------------------


def test_a_worker_of_a_data_loader_reads_the_same(model, processor, tmp_path):
    store = filled(tmp_path, model, processor)
    loader = torch.utils.data.DataLoader(ROWS, batch_size=6, collate_fn=store.batch, num_workers=1, multiprocessing_context="fork")
    for start, batch in zip(range(0, len(ROWS), 6), loader, strict=True):
        for name, tensor in store.batch(ROWS[start : start + 6]).items():
            torch.testing.assert_close(batch[name], tensor, equal_nan=True, atol=0, rtol=0)
    again = pickle.loads(pickle.dumps(store.shards["english"]))  # how a spawned worker gets it
    assert torch.equal(again.read(np.arange(5)), store.shards["english"].read(np.arange(5)))


def test_reading_makes_nothing_resident(model, processor, tmp_path):
    shard = filled(tmp_path, model, processor, ROWS[:1]).shards["english"]
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        rows = torch.rand(8192, *shard.shape, generator=generator)
        write_shard(shard.folder, torch.arange(number * 8192, (number + 1) * 8192) * 7919, rows)
    grown, process = Shards(shard.folder), psutil.Process()
    before = process.memory_info().rss
    for places in np.array_split(np.random.default_rng(0).permutation(len(grown)), 400):
        grown.read(places)
    assert process.memory_info().rss - before < 16e6 < 150e6 < sum(file.stat().st_size for file in grown.files)
    places, there = grown.find(np.array([5 * 7919, 8192 * 7919, 1]))
    assert there.tolist() == [True, True, False]
    assert torch.equal(grown.read(places[1:2])[0], torch.rand(2, 8192, *shard.shape, generator=generator.manual_seed(0))[1, 0])


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 1000))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    batches = list(token_batches(torch.tensor(lengths, dtype=torch.long), budget))
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)


def test_features_beyond_half_precision_are_refused(model, processor, tmp_path):
    with torch.no_grad():
        model.lira.multilingual.encoder.layer[-1].output.LayerNorm.weight.mul_(1e6)
    with pytest.raises(
        ValueError, match="dtype: the multilingual features of .* are not finite in float16; bfloat16 and float32 hold larger numbers"
    ):
        filled(tmp_path, model, processor, dtype="float16")
    filled(tmp_path, model, processor, dtype="bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "dtype: 'float8' is not allowed; choose one of float32, float16, bfloat16"),
        ({"shard_rows": 0}, "shard_rows: 0 is not allowed; at least 1 is"),
        ({"batch_tokens": 0}, "batch_tokens: 0 is not allowed; at least 1 is"),
        ({"rows": iter(ROWS)}, "rows: list_iterator can be read once only"),
    ],
)
def test_a_wrong_argument_is_named(model, processor, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        filled(tmp_path / "features", model, processor, **options)
    assert not (tmp_path / "features").exists()
