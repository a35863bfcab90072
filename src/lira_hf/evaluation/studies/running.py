"""The studies themselves: what is missing is trained, and everything that is there summed up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from scipy.sparse.csgraph import connected_components

from lira_hf.backbones import train_tiny_backbones
from lira_hf.catalogue import build
from lira_hf.collation import RetrievalData
from lira_hf.environment import together_made_with
from lira_hf.evaluation.retrieval import FROZEN_SYSTEMS, Scoreboard, build_frozen, score, summary
from lira_hf.evaluation.studies.arms import ABLATION, CONTROLS, FEW_SHOT, SAME, few_shot_arms, jobs_of
from lira_hf.evaluation.studies.intervals import bootstrap
from lira_hf.evaluation.studies.noise import CLEAN, MIXED, corrupted, embed_all
from lira_hf.evaluation.studies.rigs import Rig, arm_file, fill_features, open_arm, rig_of
from lira_hf.evaluation.studies.settings import Study, TinyPair, load_study
from lira_hf.evaluation.studies.working import Job, work_together
from lira_hf.reporting import results, write_json
from lira_hf.training import Recipe

NOISE = ("concat", "english_trained", "pooled_head", "lira")
Values = dict[str, np.ndarray]  # by language, nDCG@10 of [seeds, queries]


def run_study(name: str, config: str | Path, output: str | Path, seeds: int | None = None, overrides: dict[str, Any] | None = None) -> dict:
    """Does a study and returns the content of OUTPUT/NAME.json; OUTPUT/results.json has the systems of all studies that are there.

    Args:
        name: ablation, noise, few-shot or backbones. config: YAML file, see settings.load_study. output: folder, which the studies of one
            file share; finished arms in it are not repeated. seeds: instead of the file's. overrides: dotted fields of the file.
    Raises ValueError for an unknown study, a bad file, and an output whose arms were trained otherwise."""
    if name not in STUDIES:
        raise ValueError(f"study: {name!r} is not known; allowed: {', '.join(STUDIES)}")
    recipe, study = load_study(config, output, overrides)
    if seeds is not None:
        study = study.model_copy(update={"seeds": seeds})
    recipe = prepared(recipe)
    make_jobs, conclude = STUDIES[name]
    work_together(study.workers, make_jobs, recipe, study, title=name)
    found = conclude(recipe, study)
    file = Path(output) / f"{name.replace('-', '_')}.json"
    write_json(file, found)
    write_json(Path(output) / "results.json", together(Path(output), found))
    return found


def prepared(recipe: Recipe) -> Recipe:
    """The recipe with its data and tiny backbones made, where they are OUTPUT's own, and with quiet stages."""
    output = Path(recipe.output)
    if recipe.data == str(output / "data"):
        build(output / "data", "small", recipe.languages, 0)
    if recipe.backbones.multilingual == str(output / "backbones" / "multilingual"):
        train_tiny_backbones(output / "backbones", recipe.languages)
    quiet = {"disable_tqdm": True}
    return recipe.model_copy(update={stage: getattr(recipe, stage) | quiet for stage in ("anchoring", "retrieval")})


def opened(recipe: Recipe) -> Rig:
    """The rig of a recipe, without the bars of its many small parts."""
    for noisy in (transformers.utils.logging, datasets):
        noisy.disable_progress_bar()
    return rig_of(recipe)


# ---- figures that every study needs ----------------------------------------------------------------------------------------


def values_of(rig: Rig, runs: list[dict[str, dict[str, float]]]) -> Values:
    """Scores by language and query id of each seed, as one table for each language, in the order of the test split's queries."""
    order = {part.language: [query.id for query in part.queries if query.id in runs[0][part.language]] for part in rig.data["test"]}
    return {code: np.array([[run[code][query] for query in ids] for run in runs]) for code, ids in order.items()}


def arm_values(rig: Rig, study: Study, name: str) -> Values:
    files = [arm_file(rig.recipe.output, seed, name) for seed in range(study.seeds)]
    return values_of(rig, [json.loads(file.read_text())["scores"] for file in files])


def frozen_values(rig: Rig, name: str) -> Values:
    return values_of(rig, [score(build_frozen(rig.base, name), rig.store, rig.data["test"])])


def system_of(values: Values, rig: Rig) -> dict:
    """An entry of `systems`."""
    board = Scoreboard()
    order = ids_of(values, rig)
    for seed in range(len(next(iter(values.values())))):
        found = {code: dict(zip(order[code], table[seed].tolist(), strict=True)) for code, table in values.items()}
        board.add("system", summary(found, rig.data["test"]))
    return board.systems()["system"]


def ids_of(values: Values, rig: Rig) -> dict[str, list[str]]:
    """The ids of the queries that values have, by language."""
    judged = {part.language: [q.id for q in part.queries if any(grade > 0 for grade in q.judged.values())] for part in rig.data["test"]}
    return {code: judged[code] for code in values}


def slices_of(values: Values, rig: Rig) -> dict[str, dict[str, list[int]]]:
    """Places of the queries of each slice in the tables of values, by slice and language."""
    found: dict[str, dict[str, list[int]]] = {}
    for part in rig.data["test"]:
        names = {query.id: query.slices for query in part.queries}
        for place, identifier in enumerate(ids_of(values, rig)[part.language]):
            for name in names[identifier]:
                found.setdefault(name, {}).setdefault(part.language, []).append(place)
    return dict(sorted(found.items()))


def clusters_of(rig: Rig, places: dict[str, list[int]] | None = None) -> dict[str, np.ndarray]:
    """By language, which queries share an exact product, directly or through others: numbers from 0, in the order of the tables of values.
    places: only those queries."""
    found = {}
    for part in rig.data["test"]:
        exact = [
            {name for name, grade in query.judged.items() if grade == 3}
            for query in part.queries
            if any(grade > 0 for grade in query.judged.values())
        ]
        shared = [[bool(one & other) for other in exact] for one in exact]
        found[part.language] = connected_components(np.array(shared), directed=False)[1]
    if places is None:
        return found
    return {code: np.unique(found[code][at], return_inverse=True)[1] for code, at in places.items()}


def compared(first: Values, second: Values, rig: Rig) -> dict:
    """first minus second, with intervals: {"mean", "interval", "languages", "slices": {slice: {"mean", "interval", "languages"}}}."""
    differences = {code: first[code] - second[code] for code in first}
    slices = {
        name: bootstrap({code: differences[code][:, at] for code, at in places.items()}, clusters_of(rig, places))
        for name, places in slices_of(differences, rig).items()
    }
    return bootstrap(differences, clusters_of(rig)) | {"slices": slices}


def headed(rig: Rig, study: Study, name: str, systems: dict, trained: Iterable[str], **more: Any) -> dict:
    """The content of a study's file: that of results.json, and more. trained: arms; what they were made with is the environment."""
    files = [arm_file(rig.recipe.output, seed, arm) for seed in range(study.seeds) for arm in trained]
    made_with = together_made_with([json.loads(file.read_text())["environment"] for file in files])
    backbones = [Path(path).name for path in (rig.recipe.backbones.multilingual, rig.recipe.backbones.english)]
    benchmark = f"LazRetrieval (synthetic), backbones {' + '.join(backbones)}"
    queries = {part.language: len(part.queries) for part in rig.data["test"]}
    return results(systems, benchmark=benchmark, model="lira", seeds=list(range(study.seeds)), split="test") | {
        "environment": made_with, "study": name, "queries": queries, "training_rows": sum(len(part.queries) for part in rig.data["train"]),
        "recipe": rig.recipe.model_dump(include={"model", "anchoring", "retrieval", "products_per_query"}), **more,
    }  # fmt: skip


def together(output: Path, newest: dict) -> dict:
    """results.json: the systems and differences of all studies in OUTPUT, those of the newest last."""
    others = [json.loads(file.read_text()) for file in sorted(output.glob("*.json")) if file.stem in {n.replace("-", "_") for n in STUDIES}]
    parts = [*(other for other in others if other["study"] != newest["study"]), newest]
    head = {key: newest[key] for key in ("benchmark", "metric", "model", "revision", "seeds", "environment", "split")}
    merged = {key: {name: value for part in parts for name, value in part.get(key, {}).items()} for key in ("systems", "differences")}
    return head | merged | {"studies": [part["study"] for part in parts]}


# ---- ablation --------------------------------------------------------------------------------------------------------------


def ablation_jobs(recipe: Recipe, study: Study) -> list[Job]:
    return jobs_of(list(ABLATION.values()), opened(recipe), study.seeds)


def conclude_ablation(recipe: Recipe, study: Study) -> dict:
    rig = opened(recipe)
    values = {name: frozen_values(rig, name) for name in FROZEN_SYSTEMS} | {name: arm_values(rig, study, name) for name in ABLATION}
    values |= {name: values[same] for name, same in SAME.items()}
    arms = {
        name: {"fields": arm.fields, "anchoring": arm.anchoring, "same_as": SAME.get(name)}
        for name, arm in {**ABLATION, **{name: ABLATION[same] for name, same in SAME.items()}}.items()
    }
    return headed(
        rig, study, "ablation", {name: system_of(each, rig) for name, each in values.items()}, ABLATION, baseline="lira", arms=arms,
        differences={name: compared(each, values["lira"], rig) for name, each in values.items() if name != "lira"},
    )  # fmt: skip


# ---- noise -----------------------------------------------------------------------------------------------------------------


def noise_jobs(recipe: Recipe, study: Study) -> list[Job]:
    rig = opened(recipe)
    jobs = jobs_of([CONTROLS[name] for name in NOISE if name in CONTROLS], rig, study.seeds)
    versions: dict[str, list[RetrievalData]] = {}

    def translated() -> dict[str, list[RetrievalData]]:  # only where there is something left to measure
        if not versions:
            versions[CLEAN] = rig.data["test"]
            for kind, errors in study.noise.kinds.items():
                versions[kind] = [corrupted(part, recipe.data, "test", errors) for part in rig.data["test"]]
            rows = [row for parts in versions.values() for part in parts for row in part.rows()]
            rig.store = fill_features(recipe, rig.base, rig.processor, rows)
        return versions

    for seed in range(study.seeds):
        for name in NOISE:
            needs = (arm_file(recipe.output, seed, name),) if name in CONTROLS else ()
            file = noise_file(recipe, study, seed, name)
            check_noise(file, rig, study, seed, name)
            jobs.append(Job(file, partial(measure_noise, rig, study, seed, name, translated, file), needs))
    return jobs


def noise_file(recipe: Recipe, study: Study, seed: int, name: str) -> Path:
    return arm_file(recipe.output, seed, f"noise-{name}")


def measure_noise(rig: Rig, study: Study, seed: int, name: str, translated: Callable[[], dict[str, list[RetrievalData]]], file: Path) -> None:
    """Writes {"noise": its settings, "of": what was measured, "scores": {kind: {level: {code: {query id: nDCG@10}}}}} of one system."""
    versions = translated()
    model = open_arm(rig, seed, name) if name in CONTROLS else build_frozen(rig.base, name)
    embedded = embed_all(model, rig.store, versions)
    scores = {
        kind: {f"{level:g}": {each.data.language: each.scores(kind, level, seed) for each in embedded} for level in study.noise.levels}
        for kind in (MIXED, *study.noise.kinds)
    }
    write_json(file, {"noise": study.noise.model_dump(), "of": measured(rig, seed, name), "scores": scores})


def measured(rig: Rig, seed: int, name: str) -> str | None:
    """What a noise file's scores are of: the weights of an arm, None where it is not trained, or a frozen system's data and backbones."""
    if name not in CONTROLS:
        return rig.fingerprint
    weights = arm_file(rig.recipe.output, seed, name).with_suffix(".safetensors")
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16] if weights.exists() else None


def check_noise(file: Path, rig: Rig, study: Study, seed: int, name: str) -> None:
    """Raises ValueError where a file was measured with other settings, or of another model."""
    if file.exists():
        found = json.loads(file.read_text())
        if found["noise"] != json.loads(json.dumps(study.noise.model_dump())):
            raise ValueError(f"study.noise: {str(file)!r} was measured with other settings; delete it, or give another folder")
        if found.get("of") != measured(rig, seed, name):
            raise ValueError(f"output: {str(file)!r} was measured of another model; delete it, or give another folder")


def conclude_noise(recipe: Recipe, study: Study) -> dict:
    rig = opened(recipe)
    levels, kinds = [f"{level:g}" for level in study.noise.levels], (MIXED, *study.noise.kinds)
    values: dict[tuple[str, str, str], Values] = {}
    for name in NOISE:
        files = [noise_file(recipe, study, seed, name) for seed in range(study.seeds)]
        runs = [json.loads(file.read_text()) for file in files]
        values |= {(name, kind, level): values_of(rig, [run["scores"][kind][level] for run in runs]) for kind in kinds for level in levels}

    def lost(name: str, kind: str, level: str) -> Values:
        return {code: values[name, kind, "0"][code] - table for code, table in values[name, kind, level].items()}

    curves = {
        kind: {
            name: [
                {"level": float(level), **flat(values[name, kind, level], rig), "lost": flat(lost(name, kind, level), rig)} for level in levels
            ]
            for name in NOISE
        }
        for kind in kinds
    }  # fmt: skip
    at_half = {}
    for kind in kinds:
        ours, theirs = lost("lira", kind, "50"), lost("english_trained", kind, "50")
        spared = bootstrap({code: theirs[code] / 2 - ours[code] for code in ours}, clusters_of(rig))
        mean_lost = {name: bootstrap(lost(name, kind, "50"))["mean"] for name in NOISE}
        ratio = mean_lost["lira"] / mean_lost["english_trained"] if mean_lost["english_trained"] else None
        at_half[kind] = {"lost": mean_lost, "ratio": ratio, "half_of_english_minus_lira": spared, "less_than_half": spared["interval"][0] > 0}
    clean = {name: values[name, MIXED, "0"] for name in NOISE}
    systems = {name: system_of(each, rig) for name, each in clean.items()}
    systems |= {f"{name}, half of the translations corrupted": system_of(values[name, MIXED, "50"], rig) for name in NOISE}
    return headed(
        rig, study, "noise", systems, [name for name in NOISE if name in CONTROLS], levels=study.noise.levels, kinds=study.noise.kinds,
        curves=curves, at_half=at_half,
        query_noise={name: compared(clean["lira"], clean[name], rig)["slices"] for name in NOISE if name != "lira"},
    )  # fmt: skip


def flat(values: Values, rig: Rig) -> dict:
    """Mean and interval over all languages, and each seed's mean."""
    found = bootstrap(values, clusters_of(rig))
    seeds = np.mean([table.mean(1) for table in values.values()], axis=0)
    return {"mean": found["mean"], "interval": found["interval"], "seeds": [round(float(value), 4) for value in seeds]}


# ---- few rows --------------------------------------------------------------------------------------------------------------


def few_shot_jobs(recipe: Recipe, study: Study) -> list[Job]:
    return jobs_of(list(few_shot_arms(study.few_shot).values()), opened(recipe), study.seeds)


def conclude_few_shot(recipe: Recipe, study: Study) -> dict:
    rig = opened(recipe)
    arms = few_shot_arms(study.few_shot)
    values = {place: arm_values(rig, study, arm.name) for place, arm in arms.items()}
    percents = sorted({percent for _, percent in arms})
    rows = {percent: sum(len(part.queries) for part in rig.part(0, percent).data["train"]) for percent in percents}
    curves = {
        system: [{"percent": percent, "rows": rows[percent], **flat(values[system, percent], rig)} for percent in percents] for system in FEW_SHOT
    }
    above = {
        control: [
            {"percent": percent, **compared(values["lira", percent], values[control, percent], rig)} for percent in percents
        ]
        for control in FEW_SHOT if control != "lira"
    }  # fmt: skip
    concat = frozen_values(rig, "concat")
    systems = {"concat": system_of(concat, rig)}
    for system in FEW_SHOT:
        systems |= {f"{system}, {percent:g} % of the rows": system_of(values[system, percent], rig) for percent in percents}
    everywhere = {control: all(point["mean"] > 0 for point in points) for control, points in above.items()}
    return headed(
        rig, study, "few-shot", systems, [arm.name for arm in arms.values()], percents=percents, curves=curves,
        floor={"system": "concat", **flat(concat, rig)}, lira_above=above,
        above_everywhere=everywhere, steps={f"{percent:g}": steps for percent, steps in study.few_shot.steps.items()},
    )  # fmt: skip


# ---- backbones -------------------------------------------------------------------------------------------------------------


def pair_recipes(recipe: Recipe, study: Study) -> dict[str, Recipe]:
    """The recipe with its own backbones and with each other pair, whose arms are in OUTPUT/pairs/NAME."""
    found = {"own": recipe}
    for name, pair in study.pairs.items():
        output = Path(recipe.output) / "pairs" / name
        if isinstance(pair, TinyPair):
            sizes = (pair.multilingual_width, pair.english_width)
            folders = train_tiny_backbones(output / "backbones", recipe.languages, english=pair.english, widths=sizes)
            paths = {path: str(folder) for path, folder in folders.items()}
        else:
            paths = pair.model_dump(exclude={"llm"})
        backbones = recipe.backbones.model_copy(update=paths)
        features = recipe.features or str(Path(recipe.output) / "features")
        found[name] = recipe.model_copy(update={"backbones": backbones, "output": str(output), "features": features})
    return found


def backbones_jobs(recipe: Recipe, study: Study) -> list[Job]:
    arms = [CONTROLS[name] for name in FEW_SHOT]
    return [job for each in pair_recipes(recipe, study).values() for job in jobs_of(arms, opened(each), study.seeds)]


def conclude_backbones(recipe: Recipe, study: Study) -> dict:
    pairs, systems = {}, {}
    for name, each in pair_recipes(recipe, study).items():
        rig = opened(each)
        values = {system: arm_values(rig, study, system) for system in FEW_SHOT} | {system: frozen_values(rig, system) for system in FROZEN_SYSTEMS}
        own = {system: system_of(table, rig) for system, table in values.items()}
        systems |= {f"{system}, {name}": entry for system, entry in own.items()}
        pairs[name] = {
            "backbones": {path: described(getattr(rig.base.lira, path)) for path in ("multilingual", "english")}, "systems": own,
            "differences": {system: compared(values["lira"], table, rig) for system, table in values.items() if system != "lira"},
        }  # fmt: skip
        if name == "own":
            first = rig
    return headed(first, study, "backbones", systems, FEW_SHOT, pairs=pairs)


def described(backbone) -> dict[str, Any]:
    config = backbone.config
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return {"kind": config.model_type, "layers": config.num_hidden_layers, "width": config.hidden_size, "parameters": parameters}


STUDIES: dict[str, tuple[Callable[[Recipe, Study], list[Job]], Callable[[Recipe, Study], dict]]] = {
    "ablation": (ablation_jobs, conclude_ablation),
    "noise": (noise_jobs, conclude_noise),
    "few-shot": (few_shot_jobs, conclude_few_shot),
    "backbones": (backbones_jobs, conclude_backbones),
}
