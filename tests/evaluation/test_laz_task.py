"""LazRetrieval under mteb: the same number as our own metric gives on the same embeddings."""

import zlib

import mteb
import numpy as np
import pytest
import torch
from mteb.cache import ResultCache
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from lira_hf.catalogue import build
from lira_hf.collation import read
from lira_hf.evaluation.laz_task import LazRetrieval
from lira_hf.evaluation.metrics import ndcg, top_k


class TrigramEncoder(AbsEncoder):
    """Counts of hashed character 3-grams, compared by dot product: whole numbers, so exact in whatever order they are added."""

    def __init__(self, size=512):
        self.size = size
        self.texts = 0
        self.columns = set()
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": "tests/trigrams", "revision": str(size), "similarity_fn_name": ScoringFunction.DOT_PRODUCT, "embed_dim": size}
        )

    def vectors(self, texts):
        counts = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in zip(counts, texts, strict=True):
            padded = f" {text.casefold()} "
            for start in range(len(padded) - 2):
                row[zlib.crc32(padded[start : start + 3].encode()) % self.size] += 1
        return counts

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        texts = []
        for batch in inputs:
            self.columns |= set(batch)
            texts += batch["text"]
        self.texts += len(texts)
        return self.vectors(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("mteb") / "laz", languages=["th", "ur", "id"], progress=False)


def evaluated(task, encoder, cache=None):
    return mteb.evaluate(encoder, tasks=[task], cache=cache, encode_kwargs={"batch_size": 64}, co2_tracker=False, show_progress_bar=False)


def scores(found):
    return {row["hf_subset"]: row for row in found.task_results[0].scores["test"]}


def test_mteb_gives_what_our_own_metric_gives(folder):
    encoder = TrigramEncoder()
    found = scores(evaluated(LazRetrieval(folder), encoder))
    assert set(found) == {"th", "ur", "id"}
    for code, row in found.items():
        data = read(folder, code, "test")
        ids = list(data.products)
        products = torch.from_numpy(encoder.vectors([product.row.text for product in data.products.values()]))
        queries = torch.from_numpy(encoder.vectors([query.row.text for query in data.queries]))
        ranked = top_k(queries @ products.T, ids, 10)
        runs = {query.id: run for query, run in zip(data.queries, ranked, strict=True)}
        ours = ndcg({query.id: query.judged for query in data.queries}, runs)
        assert len(ours) == len(data.queries)
        assert row["main_score"] == row["ndcg_at_10"]
        assert 100 * row["main_score"] == pytest.approx(sum(ours.values()) / len(ours), abs=1e-3)  # mteb keeps 5 decimals of 0 to 1
        assert 10 < 100 * row["main_score"] < 95


def test_models_see_only_what_a_shop_would_show(folder):
    encoder = TrigramEncoder(64)
    evaluated(LazRetrieval(folder, ["th"]), encoder)
    assert encoder.columns <= {"id", "title", "text", "body", "query"}


def test_two_folders_do_not_share_a_cached_result(folder, tmp_path):
    other = build(tmp_path / "other", languages=["th"], seed=1, progress=False)
    cache, encoder = ResultCache(cache_path=tmp_path / "cache"), TrigramEncoder(64)
    first = scores(evaluated(LazRetrieval(folder, ["th"]), encoder, cache))["th"]["main_score"]
    encoded = encoder.texts
    assert scores(evaluated(LazRetrieval(folder, ["th"]), encoder, cache))["th"]["main_score"] == first
    assert encoder.texts == encoded  # answered from the cache
    assert scores(evaluated(LazRetrieval(other), encoder, cache))["th"]["main_score"] != first
    assert encoder.texts > encoded


def test_metadata_is_complete_and_says_which_scripts_occur(folder):
    metadata = LazRetrieval("org/laz-retrieval").metadata
    metadata._validate_metadata()
    assert metadata.is_filled()
    assert metadata.eval_langs == {
        "vi": ["vie-Latn"],
        "th": ["tha-Thai", "tha-Latn"],
        "id": ["ind-Latn"],
        "ms": ["zsm-Latn"],
        "ur": ["urd-Arab", "urd-Latn"],
        "bn": ["ben-Beng", "ben-Latn"],
        "fil": ["fil-Latn"],
    }
    assert (metadata.name, metadata.dataset) == ("LazRetrievalSynthetic", {"path": "org/laz-retrieval", "revision": "main"})
    assert LazRetrieval("org/laz-retrieval", revision="v1").metadata.revision == "v1"
    romanised = {code for code in ("th", "ur", "id") if any("romanised" in query.slices for query in read(folder, code, "test").queries)}
    assert romanised == {"th", "ur"}


def test_languages_are_those_of_the_folder_and_can_be_filtered(folder):
    task = LazRetrieval(folder)
    assert task.hf_subsets == ["th", "id", "ur"]
    assert task.filter_languages(["urd"]).hf_subsets == ["ur"]
    assert LazRetrieval(folder, ["ur"]).hf_subsets == ["ur"]


def test_wrong_arguments_are_refused_by_name(folder, tmp_path):
    with pytest.raises(ValueError, match="languages: 'xx' is not known"):
        LazRetrieval(folder, ["xx"])
    with pytest.raises(ValueError, match="source: .*vi-corpus.* holds no test-"):
        LazRetrieval(folder, ["vi"])
    with pytest.raises(ValueError, match="source: .* holds no language"):
        LazRetrieval(tmp_path)
    with pytest.raises(ValueError, match="revision: 'v1' is for a repository"):
        LazRetrieval(folder, revision="v1")
    with pytest.raises(ValueError, match="source: .*nowhere' is neither a folder nor a repository id"):
        LazRetrieval(tmp_path / "nowhere")
    (tmp_path / "th-corpus").mkdir()
    for table in ("corpus", "queries", "qrels"):
        (tmp_path / f"th-{table}").mkdir(exist_ok=True)
        (tmp_path / f"th-{table}" / "test-00000-of-00001.parquet").touch()
    with pytest.raises(ValueError, match="source: .* has no build.json"):
        LazRetrieval(tmp_path)
