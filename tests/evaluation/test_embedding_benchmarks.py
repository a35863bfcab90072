"""mteb's own tasks on schema-identical data: our metrics are mteb's, its encoder's vectors are the model's, and a run can be killed."""

import json
import zlib
from statistics import mean

import mteb
import numpy as np
import pytest
import small_benchmarks
import torch
from mteb.cache import ResultCache
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from small_backbones import SMALL, stirred

from lira_hf import LiraForRetrieval, LiraProcessor
from lira_hf.evaluation.benchmarks import evaluate
from lira_hf.evaluation.embedding_benchmarks import BENCHMARKS, evaluate_systems, listen, missing_subsets, open_task, sides_of
from lira_hf.evaluation.finished import quiet
from lira_hf.evaluation.metrics import mrr, ndcg, recall, top_k
from lira_hf.evaluation.mteb_encoder import LiraEncoder, SystemEncoder
from lira_hf.evaluation.ranking import correlations
from lira_hf.evaluation.systems import LiraSystem, SentenceSystem, open_systems
from lira_hf.evaluation.translations import Translations, row_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Of each benchmark's data."""
    root = tmp_path_factory.mktemp("benchmarks")
    subsets = ("en", "de", "es", "pl", "tr", "ar", "ru", "zh", "fr", "de-en", "es-en", "it", "pl-en", "zh-en", "es-it", "de-fr", "de-pl", "fr-pl")
    return {
        "belebele": str(small_benchmarks.belebele(root / "belebele", ["tha_Thai", "urd_Arab"])),
        "mlqa": str(small_benchmarks.mlqa(root / "mlqa", extra=True)),
        "sts22": str(small_benchmarks.sts22(root / "sts22", subsets)),
    }


@pytest.fixture(scope="module")
def parts(backbones) -> tuple[LiraForRetrieval, LiraProcessor]:
    torch.manual_seed(0)
    model = stirred(LiraForRetrieval.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL))
    prompts = {"query": {"multilingual": "query: ", "english": "ask: "}, "document": {"multilingual": "passage: ", "english": ""}}
    return model, LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], prompts=prompts)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "small"
    for part in parts:
        part.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def belebele(folders):
    return open_task("belebele", ["th", "ur"], data=folders["belebele"])


@pytest.fixture(scope="module")
def table(folders, belebele, tmp_path_factory) -> str:
    """Candidates with scores for the Thai texts, all but the first."""
    path = tmp_path_factory.mktemp("table") / "translations.jsonl"
    rows = [row for row in listen(belebele[0], Translations()) if row.language == "th"]
    lines = []
    for i, row in enumerate(rows[1:]):
        given = [{"text": f"first {i}", "source": "a"}, {"text": f"best {i}", "source": "b", "semantic": 9, "emotional": 9, "pragmatic": 9}]
        lines.append({"text": row.text, "language": "th", "translations": given})
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return str(path)


class RandomVectors(AbsEncoder):
    """Corners of a cube, whose cosines are exact: many scores are equal, and equal in whatever order they are summed."""

    def __init__(self):
        meta = {"name": "tests/random", "revision": "0", "similarity_fn_name": ScoringFunction.COSINE, "embed_dim": 16}
        self.mteb_model_meta = ModelMeta.create_empty(meta)
        self.seen = {}

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        texts = [text for batch in inputs for text in batch["text"]]
        for text in texts:
            generator = np.random.default_rng(zlib.crc32(f"{hf_subset} {text}".encode()))
            self.seen[hf_subset, text] = generator.choice([-1.0, 1.0], 16).astype(np.float32)
        return np.stack([self.seen[hf_subset, text] for text in texts])


def under_mteb(task, encoder) -> dict[str, dict]:
    with quiet():
        found = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={"batch_size": 8})
    return {row["hf_subset"]: row for row in found.task_results[0].scores["test"]}


# ---- our metrics are mteb's ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["belebele", "mlqa"])
@pytest.mark.parametrize("kind", ["random", "lira"])
def test_retrieval_metrics_equal_those_of_mteb(name, kind, folders, parts):
    task, columns = open_task(name, data=folders[name], languages=["th", "ur"] if name == "belebele" else None)
    encoder = RandomVectors() if kind == "random" else LiraEncoder(*parts)
    theirs = under_mteb(task, encoder)
    assert set(theirs) == set(columns)
    for subset, row in theirs.items():
        split = task.dataset[subset]["test"]
        texts = {
            part: [(line["id"], " ".join(filter(None, (line.get("title"), line["text"])))) for line in split[part]] for part in ("corpus", "queries")
        }
        if kind == "random":
            vectors = {part: torch.tensor(np.stack([encoder.seen[subset, text] for _, text in rows])) for part, rows in texts.items()}
            vectors = {part: torch.nn.functional.normalize(each) for part, each in vectors.items()}
        else:
            rows = {"queries": "query", "corpus": "document"}
            heard = {
                part: [r for r in listen(task, Translations()) if r.prompt == prompt and r.language == columns[subset]]
                for part, prompt in rows.items()
            }
            lookup = {part: {r.text: r for r in each} for part, each in heard.items()}
            vectors = {part: encoder.system.embed([lookup[part][text] for _, text in each]) for part, each in texts.items()}
        judged = {query: dict(grades) for query, grades in split["relevant_docs"].items()}
        ranked = top_k(vectors["queries"] @ vectors["corpus"].T, [i for i, _ in texts["corpus"]], 10)
        runs = {query: run for (query, _), run in zip(texts["queries"], ranked, strict=True)}
        for metric, key in ((ndcg, "ndcg_at_10"), (mrr, "mrr_at_10"), (recall, "recall_at_10")):
            assert mean(metric(judged, runs).values()) / 100 == pytest.approx(row[key], abs=1e-5), (metric, subset)
        assert 0 < row["ndcg_at_10"] < 1


def test_pearson_and_spearman_equal_those_of_mteb(folders):
    task, columns = open_task("sts22", data=folders["sts22"])
    assert len(columns) == 18
    encoder = RandomVectors()
    theirs = under_mteb(task, encoder)
    for subset, row in theirs.items():
        split = task.dataset[subset]["test"]
        one, two = (torch.tensor(np.stack([encoder.seen[subset, text] for text in split[name]])) for name in ("sentence1", "sentence2"))
        ours = correlations(torch.nn.functional.cosine_similarity(one, two).tolist(), list(split["score"]))
        assert ours["pearson"] / 100 == pytest.approx(row["cosine_pearson"], abs=1e-5)
        assert ours["spearman"] / 100 == pytest.approx(row["cosine_spearman"], abs=1e-5)
        assert row["main_score"] == row["cosine_spearman"]  # why the table does not take the main score


def test_ranking_metrics_by_hand():
    judged = {"q": {"a": 2, "b": 1, "c": 0}, "none": {"a": 0}, "unanswered": {"a": 1}}
    runs = {"q": [("c", 0.9), ("a", 0.8)], "none": [("a", 1.0)]}
    assert mrr(judged, runs) == {"q": 50.0, "unanswered": 0.0} and recall(judged, runs) == {"q": 50.0, "unanswered": 0.0}
    assert mrr(judged, runs, k=1) == {"q": 0.0, "unanswered": 0.0} and recall(judged, runs, k=1) == {"q": 0.0, "unanswered": 0.0}


# ---- vectors, languages, prompts, translations -------------------------------------------------------------------------------


def test_the_encoder_gives_the_vectors_of_encode(parts, table, belebele):
    model, processor = parts
    encoder, task = LiraEncoder(model, processor, table), belebele[0]
    found = Translations.open(table)
    for kind, prompt in (("queries", "query"), ("corpus", "document")):
        split = task.dataset["tha_Thai-tha_Thai"]["test"][kind]
        texts = [line["text"] for line in split]
        batches = [{"text": texts[:5]}, {"text": texts[5:]}]
        theirs = encoder.encode(
            batches, task_metadata=task.metadata, hf_split="test", hf_subset="tha_Thai-tha_Thai", prompt_type=mteb.types.PromptType(prompt)
        )
        given = [found.of(text, "th") for text in texts]
        translations = [[each["text"] for each in some] for some in given]
        scores = [[None if each["semantic"] is None else (each["semantic"], each["emotional"], each["pragmatic"]) for each in some] for some in given]
        ours = model.encode(texts, processor=processor, translations=translations, scores=scores, language="th", prompt_name=prompt)
        assert float((ours - theirs).abs().max()) < 1e-6
        assert float((model.encode(texts, processor=processor, language="th", prompt_name=prompt) - theirs).abs().max()) > 1e-3


def test_a_data_set_may_carry_its_translations(folders, parts):
    rows = listen(open_task("mlqa", data=folders["mlqa"])[0], Translations())
    assert len(rows) == 30 and all(len(row.translations) == 2 and row.scores == [(9.0, 8.0, 7.0), None] and row.language == "vi" for row in rows)
    assert {row.prompt for row in rows} == {"query", "document"}


def test_a_folder_that_changed_is_read_anew(tmp_path):
    small_benchmarks.mlqa(tmp_path / "mlqa")
    before = listen(open_task("mlqa", data=tmp_path / "mlqa")[0], Translations())
    small_benchmarks.mlqa(tmp_path / "mlqa", extra=True)  # the same configurations and card
    after = listen(open_task("mlqa", data=tmp_path / "mlqa")[0], Translations())
    assert not any(row.translations for row in before) and all(row.translations for row in after)


def test_sentences_of_mixed_pairs_are_read_in_their_own_language(folders):
    task, _ = open_task("sts22", data=folders["sts22"])
    rows, sides = listen(task, Translations()), sides_of(task)
    assert {row.language for row in rows} == {"en", "und"} and {row.prompt for row in rows} == {"query"}
    first, second = (task.dataset["de-en"]["test"][name] for name in ("sentence1", "sentence2"))
    assert [sides["de-en", text] for text in first] == [None] * len(first) and [sides["de-en", text] for text in second] == ["en"] * len(second)
    assert all((row.text is None) == (row.language == "en") for row in rows)  # an English text is its own translation


def test_model_meta_says_what_was_measured(parts):
    model, processor = parts
    meta = LiraEncoder(model, processor).mteb_model_meta
    assert meta.similarity_fn_name == ScoringFunction.COSINE and meta.embed_dim == model.config.hidden_size
    assert meta.n_parameters == sum(p.numel() for p in model.parameters()) and meta.name == "lira-hf/lira" and "tha-Thai" in meta.languages
    before = LiraSystem(model, processor).digest
    assert before == meta.revision == LiraSystem(model, processor).digest
    with torch.no_grad():
        model.lira.lasr.path_weight[0] += 1e-3
    assert LiraSystem(model, processor).digest != before
    with torch.no_grad():
        model.lira.lasr.path_weight[0] -= 1e-3
    length, processor.max_length = processor.max_length, 7
    assert LiraSystem(model, processor).digest != before
    processor.max_length = length


# ---- systems ---------------------------------------------------------------------------------------------------------------


def test_a_plain_encoder_is_measured_as_its_own_sentence_vectors(backbones):
    sentences = SentenceTransformer(backbones["xlm-r"], device="cpu")  # mean pooling, as pooling_of decides
    texts = ["ทีวี 55 นิ้ว", "red dress"]
    systems = open_systems(backbones["xlm-r"], device="cpu")
    assert list(systems) == ["multilingual_only", "english_only", "english_best"] and list(
        open_systems(backbones["xlm-r"], translated=False, device="cpu")
    ) == ["multilingual_only"]
    rows = [row_of(text, "th", [{"text": "TV"}, {"text": "55 inch TV", "semantic": 9, "emotional": 9, "pragmatic": 9}]) for text in texts]
    wanted = {"multilingual_only": texts, "english_only": ["TV"] * 2, "english_best": ["55 inch TV"] * 2}
    for name, read in wanted.items():
        ours = systems[name].embed(rows)
        theirs = sentences.encode(read, normalize_embeddings=True, convert_to_tensor=True)
        assert float((ours @ ours.T - theirs @ theirs.T).abs().max()) < 1e-5, name


def test_a_sentence_transformer_with_more_modules_is_run_by_itself(backbones, tmp_path):
    torch.manual_seed(0)
    transformer = Transformer(backbones["bert"])
    whole = SentenceTransformer(modules=[transformer, Pooling(24, "mean"), Dense(24, 6)], device="cpu", prompts={"query": "ask: "})
    whole.save_pretrained(str(tmp_path / "dense"))
    system = open_systems(str(tmp_path / "dense"), ["multilingual_only"], device="cpu")["multilingual_only"]
    rows = [row_of(text, "th", []) for text in ("red dress", "TV 55")]
    rows[0].prompt = "query"
    wanted = torch.cat(
        [
            whole.encode(["ask: red dress"], normalize_embeddings=True, convert_to_tensor=True),
            whole.encode(["TV 55"], normalize_embeddings=True, convert_to_tensor=True),
        ]
    )
    assert system.size == 6 and float((system.embed(rows) - wanted).abs().max()) < 1e-6


# ---- the command -------------------------------------------------------------------------------------------------------------


def test_a_sentence_transformer_with_another_pooling_is_another(backbones):
    from sentence_transformers.models import Pooling, Transformer

    digests = []
    for mode in ("mean", "cls"):
        transformer = Transformer(backbones["xlm-r"])
        sentences = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=mode)], device="cpu")
        digests.append(SentenceSystem(sentences, "multilingual_only", None).digest)
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_evaluate_measures_all_systems_and_goes_on_after_a_kill(folder, folders, table, tmp_path, monkeypatch, capsys):
    given = {"data": folders["belebele"], "translations": table, "languages": ["th", "ur"], "systems": ["english_best", "lira"]}
    whole = evaluate(folder, "belebele", output=tmp_path / "whole", features=False, **given)
    assert list(whole["systems"]) == ["english_best", "lira"]
    assert whole["metric"] == "ndcg@10" and set(whole["systems"]["lira"]["languages"]) == {"th", "ur"}
    assert whole["translations"]["texts"] - whole["translations"]["translated"] == 1 + 36  # one Thai text, and all of Urdu
    assert json.loads((tmp_path / "whole" / "results.json").read_text()) == whole

    calls, embed = [], LiraSystem.embed

    def dying(self, rows, **options):  # noqa: E306
        calls.append(len(rows))
        if len(calls) == 8:  # in the second language of the second system
            raise KeyboardInterrupt
        return embed(self, rows, **options)

    monkeypatch.setattr(LiraSystem, "embed", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, "belebele", output=tmp_path / "part", **given)
    assert not (tmp_path / "part" / "results.json").exists()
    calls[:] = [0] * 100
    capsys.readouterr()
    part = evaluate(folder, "belebele", output=tmp_path / "part", **given)
    assert len(calls) - 100 == 2  # documents and queries of what was missing
    assert "3 of 4 results are from" in capsys.readouterr().out
    for name, system in whole["systems"].items():
        assert part["systems"][name]["languages"] == pytest.approx(system["languages"], abs=1e-3), name
    calls.clear()
    evaluate(folder, "belebele", output=tmp_path / "part", **given)
    assert not calls
    evaluate(folder, "belebele", output=tmp_path / "part", **{**given, "translations": None, "systems": ["lira"]})
    assert calls  # without translations, it is another result


def test_a_half_written_cache_is_not_read(parts, belebele, tmp_path):
    task, columns = belebele
    options = {"systems": {"lira": LiraSystem(*parts)}, "translations": Translations(), "heard": [], "output": tmp_path}
    first = evaluate_systems("belebele", task, columns, **options)
    path = next(tmp_path.rglob("BelebeleRetrieval.json"))
    path.write_text(path.read_text()[:200])
    encoder = SystemEncoder(options["systems"]["lira"], "lira-hf/model-lira")
    cache = ResultCache(cache_path=path.parents[3])
    assert missing_subsets(task, encoder, cache) == list(columns) and not path.exists()
    assert evaluate_systems("belebele", task, columns, **options) == first


def test_texts_are_written_for_translation(folder, folders, tmp_path, capsys):
    assert evaluate(folder, "belebele", data=folders["belebele"], languages=["th"], texts=tmp_path / "texts.jsonl", output=tmp_path / "out") == {
        "texts": 36
    }
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert {row["language"] for row in rows} == {"th"} and len({row["text"] for row in rows}) == 36 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_results_stand_beside_the_weights_of_a_lira_model(folder, folders, tmp_path):
    found = evaluate(folder, "sts22", data=folders["sts22"], systems=["lira"], output=tmp_path)
    with open(f"{folder}/results/sts22.json") as file:
        kept = json.load(file)
    assert kept.pop("weights") and kept == found
    assert found["metric"] == "pearson" and len(found["systems"]["lira"]["languages"]) == 18 and found["revision"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "mlqa", "languages": ["th"]}, "languages: MLQARetrieval has no 'th'; it has vi"),
        ({"benchmark": "sts22", "languages": ["vi"]}, "languages: STS22.v2 has no 'vi'; it has none of ours, leave it out"),
        ({"benchmark": "belebele", "data": "/nowhere"}, "data: '/nowhere' is no folder"),
        ({"benchmark": "belebele", "languages": ["vi"]}, "data: .* cannot be read as BelebeleRetrieval"),
        ({"benchmark": "belebele", "languages": ["th"], "systems": ["nobody"]}, "systems: 'nobody' is not known here"),
        ({"benchmark": "belebele", "split": "train"}, "split: 'train' is for laz"),
        ({"benchmark": "laz", "languages": ["all"]}, "languages: 'all' is not for laz"),
        ({"benchmark": "laz", "translations": "x"}, "translations: 'x' is not for laz"),
        ({"benchmark": "laz", "data": None}, "data: missing"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message, folder, folders, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate(folder, **{"data": folders.get(options["benchmark"]), "output": tmp_path / "out", **options})


def test_the_hub_data_sets_are_pinned():
    for benchmark in BENCHMARKS.values():
        dataset = mteb.get_task(benchmark.task).metadata.dataset
        assert len(dataset["revision"]) == 40 and dataset["path"].startswith("mteb/")
