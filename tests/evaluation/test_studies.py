"""Studies: intervals with closed forms, shares of rows, noise, jobs that several take from, arms that differ and are not repeated."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import binom
from small_backbones import SMALL, stirred
from small_data import cut
from study_jobs import jobs_of_processes

from lira_hf import LiraForPreTraining, LiraForRetrieval
from lira_hf.catalogue import build
from lira_hf.collation import read
from lira_hf.evaluation.studies import arms, rigs, run_study, running
from lira_hf.evaluation.studies.intervals import bootstrap
from lira_hf.evaluation.studies.noise import CLEAN, MIXED, Embedded, affected, corrupted
from lira_hf.evaluation.studies.rigs import share
from lira_hf.evaluation.studies.settings import ERRORS, load_study
from lira_hf.evaluation.studies.tables import render_study
from lira_hf.evaluation.studies.working import Job, work, work_together


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("laz") / "data", "small", ["id"], 0, progress=False)


@pytest.fixture(scope="module")
def few(built, tmp_path_factory) -> str:
    return cut(built, tmp_path_factory.mktemp("few") / "data", ["id"])


@pytest.fixture
def config(few, backbones, tmp_path) -> dict:
    common = {"learning_rate": 1e-3, "save_steps": 2, "logging_steps": 1}
    return {
        "data": few,
        "languages": ["id"],
        "backbones": {"multilingual": backbones["xlm-r"], "english": backbones["bert"]},
        "features": f"{few}-features",
        "max_length": 48,
        "products_per_query": 4,
        "model": {"width": 16, "num_bins": 2, "fusion_layers": 1, "fusion_heads": 2, "queue_size": 32, "consistency_weight": 0.0},
        "anchoring": {"max_steps": 2, "per_device_train_batch_size": 8, **common},
        "retrieval": {"max_steps": 4, "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 2, **common},
        "study": {"seeds": 2, "workers": 1, "few_shot": {"steps": {10: 2, 50: 4}, "evaluations": 2}},
    }


def written(config: dict, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


# ---- intervals -----------------------------------------------------------------------------------------------------------------


def test_the_interval_of_yes_and_no_is_the_binomial_distributions():
    values = np.repeat([0.0, 1.0], [28, 12])[None]
    found = bootstrap({"th": values}, resamples=40_000)
    assert found["mean"] == 0.3
    assert found["interval"] == pytest.approx(binom.ppf([0.025, 0.975], 40, 0.3) / 40, abs=1e-4)


def test_differences_that_are_all_alike_have_no_width():
    found = bootstrap({"th": np.full((3, 7), -1.25), "vi": np.full((3, 5), -0.75)})
    assert found["mean"] == -1 and found["interval"] == [-1, -1]
    assert found["languages"]["vi"] == {"mean": -0.75, "interval": [-0.75, -0.75]}


def test_seeds_are_resampled_too_and_the_same_ones_for_all_languages():
    alone = bootstrap({"th": np.array([[0.0], [1.0]])})
    # 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: a variance of 1/8, half of the unbiased one of a mean of two, so it is spread by sqrt 2
    assert alone["interval"] == pytest.approx([0.5 - 0.5**0.5, 0.5 + 0.5**0.5], abs=1e-4)
    opposed = bootstrap({"th": np.array([[0.0], [1.0]]), "vi": np.array([[1.0], [0.0]])})
    assert opposed["interval"] == [0.5, 0.5] and opposed["languages"]["th"]["interval"] == alone["interval"]


def test_queries_of_a_cluster_are_drawn_together():
    values = np.repeat([0.0, 1.0], [28, 12])[None]
    alike = bootstrap({"th": np.repeat(values, 3, 1)}, {"th": np.repeat(np.arange(40), 3)}, resamples=40_000)
    assert alike == bootstrap({"th": values}, resamples=40_000)  # three copies of each query tell no more than one
    uneven = bootstrap({"th": np.array([[0.0, 0.0, 0.0, 1.0]])}, {"th": np.array([0, 0, 0, 1])})
    assert uneven["mean"] == 0.25 and uneven["interval"] == [0, 1]  # 0, 1/4, 1: a query weighs the same in whichever cluster it is


@pytest.mark.parametrize(("count", "least", "most"), [(3, 0.7, 0.85), (10, 0.88, 0.97)])
def test_where_seeds_alone_vary_few_of_them_cover_too_little(count, least, most):
    """As the docstring says; what queries vary by is covered."""
    rows = np.random.default_rng(0).normal(size=(400, count))
    held = [low <= 0 <= high for low, high in (bootstrap({"th": row[:, None]}, resamples=400)["interval"] for row in rows)]
    assert least < np.mean(held) < most


@pytest.mark.parametrize("shapes", [[(2, 3), (3, 3)], [(0, 3)], [(2, 0)], []])
def test_tables_without_a_mean_are_refused(shapes):
    with pytest.raises(ValueError, match="values"):
        bootstrap({str(number): np.zeros(shape) for number, shape in enumerate(shapes)})


def test_queries_that_share_an_exact_product_are_one_cluster():
    grades = [{"a": 3, "x": 0}, {"b": 3, "a": 2}, {"a": 3, "c": 3}, {"c": 3}, {"x": 0}, {"d": 1}]  # the fifth has nothing relevant
    queries = [SimpleNamespace(judged=judged) for judged in grades]
    rig = SimpleNamespace(data={"test": [SimpleNamespace(language="th", queries=queries)]})
    assert running.clusters_of(rig)["th"].tolist() == [0, 1, 0, 0, 2]  # a partial match is not shared
    assert running.clusters_of(rig, {"th": [1, 3, 4]})["th"].tolist() == [1, 0, 2]


# ---- what an arm is ----------------------------------------------------------------------------------------------------------------


def test_an_arm_is_another_with_another_stage_1_or_other_draws(config, tmp_path):
    recipe, _ = load_study(written(config, tmp_path), tmp_path)
    rig = rigs.Rig(recipe, None, None, None, {"train": []}, "fingerprint")
    other = [
        replace(rig, recipe=recipe.model_copy(update=change))
        for change in ({"products_per_query": 7}, {"language_temperature": 3.0}, {"anchoring": recipe.anchoring | {"max_steps": 9}})
    ]
    found = [rigs.identity(rig, {}, "retrieval", anchoring) for anchoring in ({}, {"contrast_weight": 0.0}, None)]
    found += [rigs.identity(each, {}, "retrieval", {}) for each in other] + [rigs.identity(replace(rig, fingerprint="other"), {}, "retrieval", {})]
    assert len({json.dumps(each, sort_keys=True) for each in found}) == len(found) == 7


def test_grades_are_part_of_a_rigs_fingerprint(config, tmp_path):
    recipe, _ = load_study(written(config, tmp_path), tmp_path)
    first = rigs.rig_of(recipe)
    for query in first.data["test"][0].queries:
        query.judged = {product: 3 - grade for product, grade in query.judged.items()}
    assert rigs.rig_of(recipe, first.data).fingerprint != first.fingerprint == rigs.rig_of(recipe).fingerprint


def test_a_stage_1_that_does_not_say_how_it_was_made_is_refused(tmp_path):
    (tmp_path / "anchoring" / "model").mkdir(parents=True)
    with pytest.raises(ValueError, match="anchoring' does not say how it was trained"):
        rigs.check_anchoring(tmp_path / "anchoring", {})
    (tmp_path / "anchoring" / "made_by.json").write_text('{"made_by": {"fields": 1}}')
    with pytest.raises(ValueError, match="anchoring' was trained with other fields; give another folder, or delete it"):
        rigs.check_anchoring(tmp_path / "anchoring", {"fields": 2})


# ---- fewer rows ------------------------------------------------------------------------------------------------------------------


def test_fewer_rows_are_a_part_of_more_and_bring_only_the_products_they_judge(built):
    data = read(built, "id", "train")
    parts = [share(data, percent, 0) for percent in (1, 5, 50, 100)]
    assert [len(part.queries) for part in parts] == [12, 60, 600, 1200]
    for less, more in zip(parts, parts[1:], strict=False):
        assert {query.id for query in less.queries} < {query.id for query in more.queries}
        assert less.products.keys() <= more.products.keys()
    assert parts[0].products.keys() == {product for query in parts[0].queries for product in query.judged}
    assert share(data, 1, 0) == parts[0] != share(data, 1, 1)


# ---- translation noise -----------------------------------------------------------------------------------------------------------


def test_the_usual_translators_give_what_the_data_set_has(built):
    data = read(built, "id", "test")
    assert corrupted(data, built, "test", {}) == data


@pytest.mark.parametrize("kind", ERRORS)
def test_corrupted_rows_have_other_candidates_with_lower_scores_and_are_the_same_otherwise(built, kind):
    data = read(built, "id", "test")
    found = corrupted(data, built, "test", ERRORS[kind])

    def mean_score(part):
        return np.mean([score[0] for query in part.queries for score in query.row.scores])

    assert mean_score(found) < mean_score(data) - 0.5
    assert [replace(query.row, translations=[], scores=[]) for query in found.queries] == [
        replace(query.row, translations=[], scores=[]) for query in data.queries
    ]
    assert [query.judged for query in found.queries] == [query.judged for query in data.queries]
    changed = np.mean([a.row.translations != b.row.translations for a, b in zip(found.products.values(), data.products.values(), strict=True)])
    assert changed > 0.9  # the others are as wrong in the data set already


def test_data_of_unknown_making_cannot_be_translated_anew(built, few):
    data = read(built, "id", "test")
    with pytest.raises(ValueError, match="was not made by `lira-hf data build`"):
        corrupted(data, few, "test", ERRORS["dropped"])
    other = replace(data, queries=[*data.queries[:-1], replace(data.queries[-1], row=replace(data.queries[-1].row, text="lain"))])
    with pytest.raises(ValueError, match="other code or words"):
        corrupted(other, built, "test", ERRORS["dropped"])


@pytest.mark.parametrize("percent", [0, 10, 25, 50, 100])
def test_a_level_changes_exactly_its_share_of_the_rows(built, percent):
    part = read(built, "id", "test")
    count = len(part.queries)
    assert len(set(affected(count, percent, "a"))) == round(count * percent / 100)
    assert set(affected(count, percent, "a")) <= set(affected(count, 100, "a"))
    one = {kind: torch.full((count, 2), float(number)) for number, kind in enumerate([CLEAN, "dropped", "invented"])}
    embedded = Embedded(part, one, {})
    found = embedded._mixed(one, "dropped", percent, "a")[:, 0]
    assert (found == 1).sum() == round(count * percent / 100) and (found == 0).sum() == count - (found == 1).sum()
    mixed, all_of_it = (embedded._mixed(one, MIXED, level, "a")[:, 0] for level in (percent, 100))
    assert (mixed != 0).sum() == round(count * percent / 100) and (mixed[mixed != 0] == all_of_it[mixed != 0]).all()
    assert set(all_of_it.tolist()) == {1, 2}


# ---- jobs ------------------------------------------------------------------------------------------------------------------------


def test_no_job_is_done_twice_and_none_before_what_it_needs(tmp_path):
    done, first = [], [tmp_path / f"first-{number}" for number in range(3)]

    def do(file):
        done.append(file)
        assert file in first or first[int(file.name[-1]) % 3].exists()
        threading.Event().wait(0.02)
        file.touch()

    jobs = [Job(tmp_path / f"second-{number}", lambda number=number: do(tmp_path / f"second-{number}"), (first[number % 3],)) for number in range(6)]
    jobs += [Job(file, lambda file=file: do(file)) for file in first]
    workers = [threading.Thread(target=work, args=(jobs,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert len(done) == len(set(done)) == 9


@pytest.mark.slow
def test_processes_share_the_jobs_and_a_failure_is_told(tmp_path):
    work_together(2, jobs_of_processes, tmp_path, None)
    marks = [file.name.split("-") for file in tmp_path.glob("*-*-*")]
    assert sorted(number for number, *_ in marks) == [str(number) for number in range(8)]
    assert len({process for _, process, _ in marks}) == 2
    (tmp_path / "other").mkdir()
    with pytest.raises(RuntimeError, match="1 of 8 jobs are left over"):
        work_together(2, jobs_of_processes, tmp_path / "other", 7)


# ---- arms ------------------------------------------------------------------------------------------------------------------------


def test_no_two_arms_are_the_same_training(config, tmp_path):
    _, study = load_study(written(config, tmp_path), tmp_path)
    every = [*arms.ABLATION.values(), *arms.few_shot_arms(study.few_shot).values()]
    trainings = {arm.name: repr((arm.fields, arm.anchoring, arm.percent, arm.retrieval)) for arm in every}
    assert len(set(trainings.values())) == len(trainings)
    stages = {arm.anchored: (repr(arm.anchoring), arm.percent) for arm in every if arm.anchoring is not None}
    assert len(set(stages.values())) == len(stages)
    assert all((repr(arm.anchoring), arm.percent) == stages[arm.anchored] for arm in every if arm.anchoring is not None)


@pytest.fixture
def batch(processor):
    texts = ["ทีวี 55 นิ้ว สีดำ", "áo thun nam màu đen"]
    translations = [["55 inch TV black", "red cotton dress", "TV 55"], ["blue shoes", "smart television", "black shirt"]]
    rows = processor.check(texts, translations, [[[9, 8, 9], [2, 3, 2], [6, 7, 6]], [[1, 2, 1], [3, 3, 3], [9, 9, 9]]], ["th", "vi"])
    return processor.batch(rows)


def anchored(backbones, batch, **fields):
    torch.manual_seed(0)
    model = stirred(LiraForPreTraining.from_backbones(backbones["xlm-r"], backbones["bert"], **SMALL, **fields))
    with torch.no_grad():
        return model(**batch)


def test_without_the_critic_of_translations_scores_do_not_matter(backbones, batch):
    other = {**batch, "translation_scores": batch["translation_scores"].flip(1)}
    first, second = (anchored(backbones, given, critics="embedding") for given in (batch, other))
    assert torch.equal(first.actor_logits, second.actor_logits) and torch.equal(first.loss, second.loss)
    assert not torch.equal(anchored(backbones, batch).actor_logits, anchored(backbones, other).actor_logits)


def test_without_the_critic_of_embeddings_their_similarity_does_not_matter(backbones, batch):
    other = {**batch, "multilingual_input_ids": batch["multilingual_input_ids"].flip(0), "multilingual_attention_mask": batch["multilingual_attention_mask"].flip(0)}  # fmt: skip
    quiet = {"critics": "translation", "anchor_weight": 0.0, "contrast_weight": 0.0}
    first, second = (anchored(backbones, given, **quiet) for given in (batch, other))
    assert not torch.equal(first.similarity, second.similarity)
    assert torch.equal(first.actor_logits, second.actor_logits) and torch.equal(first.loss, second.loss)
    assert not torch.equal(anchored(backbones, batch).actor_logits, anchored(backbones, other).actor_logits)


def only(monkeypatch, *names):
    monkeypatch.setattr(running, "ABLATION", {name: arms.ABLATION[name] for name in names})
    monkeypatch.setattr(running, "SAME", {})


def test_a_killed_study_goes_on_and_repeats_no_finished_arm(config, tmp_path, monkeypatch):
    only(monkeypatch, "lira", "without_queues", "without_stage1")
    config["study"]["seeds"] = 1
    calls, train_retrieval, train_anchoring = [], rigs.train_retrieval, rigs.train_anchoring

    def retrieval(model, *given, **options):
        calls.append((model.config.queue, given[3].seed))
        if len(list(output.glob("runs/*/*.json"))) == 2 and not kept:
            raise KeyboardInterrupt
        return train_retrieval(model, *given, **options)

    def anchoring(model, store, data, args, **options):
        calls.append(("anchoring", args.seed))
        return train_anchoring(model, store, data, args, **options)

    monkeypatch.setattr(rigs, "train_retrieval", retrieval)
    monkeypatch.setattr(rigs, "train_anchoring", anchoring)
    file, output, kept = written(config, tmp_path), tmp_path / "out", {}
    with pytest.raises(KeyboardInterrupt):
        run_study("ablation", file, output)
    kept |= {path: path.read_bytes() for path in output.glob("runs/*/*.json")}
    found = run_study("ablation", file, output)
    assert len(calls) == 1 + 3 + 1  # stage 1, three arms, of which one was begun twice
    assert len(kept) == 2 and all(path.read_bytes() == content for path, content in kept.items())
    del calls[:]
    assert run_study("ablation", file, output) == found and not calls
    assert json.loads((output / "results.json").read_text())["systems"].keys() == found["systems"].keys()
    assert not [*output.glob("runs/*/*/checkpoint-*")]


def test_the_files_of_a_study_say_what_was_trained_and_how_it_differs(config, tmp_path, monkeypatch):
    only(monkeypatch, "lira", "without_queues")
    file, output = written(config, tmp_path), tmp_path / "out"
    found = run_study("ablation", file, output)
    assert {"concat", "lira", "without_queues"} <= found["systems"].keys() and "lira" not in found["differences"]
    runs = {name: [json.loads((output / "runs" / str(seed) / f"{name}.json").read_text()) for seed in (0, 1)] for name in ("lira", "without_queues")}
    assert runs["lira"][0]["fields"] == {} and runs["without_queues"][0]["fields"] == {"queue": "none"}
    differences = [a["test"]["average"] - b["test"]["average"] for a, b in zip(runs["without_queues"], runs["lira"], strict=True)]
    against = found["differences"]["without_queues"]
    assert against["mean"] == pytest.approx(np.mean(differences), abs=1e-3)
    assert (
        against["interval"][0] <= against["mean"] <= against["interval"][1] and against["slices"].keys() == found["systems"]["lira"]["slices"].keys()
    )
    assert found["systems"]["lira"]["seeds"] == pytest.approx([run["test"]["average"] for run in runs["lira"]], abs=1e-3)
    assert any(line.startswith("without_queues") for line in render_study(found))
    config["model"]["width"] = 32
    with pytest.raises(ValueError, match="was trained with other model"):
        run_study("ablation", written(config, tmp_path), output)


def test_a_finished_arm_opens_as_it_was(config, few, tmp_path):
    recipe, _ = load_study(written(config, tmp_path), tmp_path / "out")
    rig = rigs.rig_of(running.prepared(recipe))
    trained = arms.CONTROLS["lira"].train(rig, 1)
    model = rigs.open_arm(rig, 1, "lira")
    assert isinstance(model, LiraForRetrieval)
    assert rigs.score(model, rig.store, rig.data["test"])["id"] == pytest.approx(trained["scores"]["id"])


@pytest.mark.slow
def test_few_shot_curves_share_the_arms_of_all_rows(config, tmp_path):
    config["study"]["seeds"] = 1
    file, output = written(config, tmp_path), tmp_path / "out"
    found = run_study("few-shot", file, output)
    assert [point["rows"] for point in found["curves"]["lira"]] == [4, 20, 40]
    assert found["lira_above"]["english_trained"][1]["percent"] == 50
    above = found["curves"]["lira"][1]["mean"] - found["curves"]["english_trained"][1]["mean"]
    assert found["lira_above"]["english_trained"][1]["mean"] == pytest.approx(above, abs=1e-3)
    one = json.loads((output / "runs" / "0" / "lira-10-percent.json").read_text())["made_by"]
    assert one["training queries"] == 4 and one["arguments"]["max_steps"] == 2 and one["arguments"]["eval_steps"] == 1
    assert len(render_study(found)) == 2 + 4 + 1 + 3


@pytest.mark.slow
def test_noise_is_measured_on_the_finished_arms(config, built, tmp_path):
    config["data"], config["features"] = str(built), f"{built}-features"
    config["study"] |= {"seeds": 1, "noise": {"levels": [0, 50, 100], "kinds": {"wrong_type": {"wrong_type": 1.0}}}}
    found = run_study("noise", written(config, tmp_path), tmp_path / "out")
    for name, points in found["curves"]["wrong_type"].items():
        assert points[0]["lost"] == {"mean": 0, "interval": [0, 0], "seeds": [0]}
        assert points[0]["mean"] > points[1]["mean"] > points[2]["mean"], name
        assert points[2]["mean"] + points[2]["lost"]["mean"] == pytest.approx(points[0]["mean"], abs=1e-3)
    lira = json.loads((tmp_path / "out" / "runs" / "0" / "lira.json").read_text())["test"]["average"]
    assert found["curves"]["mixed"]["lira"][0]["mean"] == pytest.approx(lira, abs=1e-2)
    half = found["at_half"]["wrong_type"]
    assert half["half_of_english_minus_lira"]["mean"] == pytest.approx(half["lost"]["english_trained"] / 2 - half["lost"]["lira"], abs=1e-3)
    measured = tmp_path / "out" / "runs" / "0" / "noise-lira.json"
    measured.write_text(json.dumps(json.loads(measured.read_text()) | {"of": "another"}))
    with pytest.raises(ValueError, match="noise-lira.json' was measured of another model"):
        run_study("noise", written(config, tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("seeds", 0, "study.seeds"),
        ("seedz", 1, "did you mean seeds"),
        ("few_shot", {"steps": {120: 4}}, "120: 4 is not allowed"),
        ("noise", {"levels": [0, 100]}, "study.noise.levels"),
        ("noise", {"kinds": {"bad": {"wrong_type": 2}}}, "study.noise.kinds.bad.wrong_type: 2"),
        ("noise", {"kinds": {"bad": {"name": 1.0}}}, "study.noise.kinds.bad.name"),
        ("pairs", {"large": {"multilingual": "a"}}, "study.pairs.large"),
    ],
)
def test_a_bad_field_is_named_in_one_line(config, tmp_path, place, value, words):
    config["study"][place] = value
    with pytest.raises(ValueError) as error:
        run_study("ablation", written(config, tmp_path), tmp_path / "out")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_study_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="ablation, noise, few-shot, backbones"):
        run_study("abbation", written(config, tmp_path), tmp_path / "out")
