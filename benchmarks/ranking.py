"""What the correlation objective is worth: LiRA trained on LazSimilarity by correlation, with and without the CorrQueue, and by squared error.

Writes docs/results/ranking.json, arm by arm; started again, it goes on with what is missing. Every arm has the same data, stage 1, steps and batch
(configs/ranking.yaml). The learning rate of each is the one with the best validation Pearson, with seed 0, of the same grid; so is the
checkpoint of each run. `mse` starts from the least-squares line and learns scale and offset; `mse of the cosine` compares 5 cos(u, v) + correction
with the label as it is, which is what sentence-transformers' CosineSimilarityLoss does. The frozen system is the cosine of the concatenation
with the critic's best candidates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import mean

import torch
from transformers.utils import logging

from lira_hf.catalogue.similarity_builder import build_similarity
from lira_hf.collation import SPLITS, PairData
from lira_hf.evaluation.ranking import score, summary
from lira_hf.evaluation.studies import QUIET, anchored_folder, shipped_recipe
from lira_hf.features import FeatureStore
from lira_hf.modeling import LiraForSequenceClassification
from lira_hf.reporting import results, write_json
from lira_hf.training import Recipe, arguments, fill_features, load_parts, train_ranking
from lira_hf.training.running import TASKS, load_data

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "ranking.json"
ARMS = {
    "mse": {"regression": "mse"},
    "correlation": {"regression": "correlation", "corr_queue_size": 1024},
    "correlation, no queue": {"regression": "correlation", "corr_queue_size": 0},
    "correlation, languages together": {"regression": "correlation", "corr_queue_size": 1024, "correlate_within": "batch"},
    "mse of the cosine": {"regression": "mse"},
    "Pearson alone": {"regression": "correlation", "corr_queue_size": 1024, "pearson_weight": 1.0},
}
FROZEN = {"selection": "critic", "correction_scale": 0.0}
LEARNING_RATES = (1.25e-4, 2.5e-4, 5e-4, 1e-3)
SEEDS = (0, 1, 2)


def opened(recipe: Recipe, folder: Path, seed: int, fields: dict) -> LiraForSequenceClassification:
    torch.manual_seed(seed)
    return LiraForSequenceClassification.from_pretrained(folder, **{**recipe.model, **TASKS[PairData].config, **fields})


def trained(recipe: Recipe, folder: Path, arm: str, seed: int, rate: float, store: FeatureStore, data: dict) -> dict:
    """Validation and test correlations of one run."""
    model = opened(recipe, folder, seed, ARMS[arm])
    if arm == "mse of the cosine":
        with torch.no_grad():
            model.comparison.line.copy_(torch.tensor([5.0, 0.0]))  # which is not the line that fit() would still have to find
        model.comparison.affine.requires_grad_(False)
    with tempfile.TemporaryDirectory() as checkpoints:
        args = arguments(Path(checkpoints), seed, recipe.ranking | QUIET | {"learning_rate": rate})
        log = train_ranking(model, store, data["train"], data["validation"], args)
    found = {split: summary(score(model, store, data[split])) for split in ("validation", "test")}
    return {"steps": [entry["eval_pearson"] for entry in log if "eval_pearson" in entry], **found}


def run(found: dict, recipe: Recipe, arms: list[str], output: Path) -> None:
    """Trains what `found` lacks: found["runs"][arm][learning rate][seed]."""
    data = {split: load_data(recipe, split) for split in SPLITS}
    base, processor, *_ = load_parts(recipe)
    store = fill_features(recipe, base, processor, [part for parts in data.values() for part in parts])
    folders = {seed: anchored_folder(recipe, seed, store, data["train"]) for seed in SEEDS}
    if "frozen" not in found:
        found["frozen"] = summary(score(opened(recipe, folders[0], 0, FROZEN).eval(), store, data["test"]))
        write_json(output, found)

    def train(arm: str, rate: float, seed: int) -> None:
        runs = found["runs"].setdefault(arm, {}).setdefault(f"{rate:g}", {})
        if str(seed) not in runs:
            runs[str(seed)] = trained(recipe, folders[seed], arm, seed, rate, store, data)
            write_json(output, found)
        one = runs[str(seed)]
        print(
            f"{arm:30s} {rate:g} seed {seed}: validation {one['validation']['pearson']['average']:.2f}, test {one['test']['pearson']['average']:.2f}"
        )

    for arm in arms:
        for rate in LEARNING_RATES:
            train(arm, rate, 0)
    for seed in SEEDS[1:]:
        for arm in arms:
            train(arm, float(chosen(found["runs"][arm])), seed)


def chosen(rates: dict) -> str:
    """The learning rate with the best validation Pearson of the first seed."""
    return max(rates, key=lambda rate: rates[rate]["0"]["validation"]["pearson"]["average"])


def conclude(found: dict) -> dict:
    """Test correlations by system, seed by seed, and the differences of every arm to mse with the same seed."""
    systems = {"concat": {name: {**table, "seeds": [table["average"]]} for name, table in found["frozen"].items()}}
    finished = {arm: rates for arm, rates in found["runs"].items() if all(str(seed) in rates[chosen(rates)] for seed in SEEDS)}
    for arm, rates in finished.items():
        runs = [rates[chosen(rates)][str(seed)]["test"] for seed in SEEDS]
        systems[arm] = {"learning_rate": float(chosen(rates))}
        for name in ("pearson", "spearman"):
            tables = [one[name] for one in runs]
            languages = {code: mean(table["languages"][code] for table in tables) for code in tables[0]["languages"]}
            averages = [table["average"] for table in tables]
            systems[arm][name] = {"languages": languages, "average": mean(averages), "seeds": averages}
    against = {}
    for arm in finished:
        if arm != "mse" and "mse" in systems:
            pairs = zip(systems[arm]["pearson"]["seeds"], systems["mse"]["pearson"]["seeds"], strict=True)
            differences = [ours - theirs for ours, theirs in pairs]
            against[arm] = {"seeds": differences, "average": mean(differences)}
    return results(systems, benchmark="LazSimilarity (synthetic), tiny backbones", model="lira", seeds=list(SEEDS)) | {
        "metric": "pearson and spearman, -100 to 100, test split", "above_mse": against, **found
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, help="folder for data, backbones and features; kept. Default: one that is deleted")
    parser.add_argument("--multilingual")
    parser.add_argument("--english")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    logging.disable_progress_bar()
    scratch = options.scratch or Path(tempfile.mkdtemp())
    try:
        found = json.loads(options.output.read_text()) if options.output.exists() else {}
        grid = [f"{rate:g}" for rate in LEARNING_RATES]
        runs = {arm: {rate: seeds for rate, seeds in rates.items() if rate in grid} for arm, rates in found.get("runs", {}).items()}
        found = {"runs": runs, **({"frozen": found["frozen"]} if "frozen" in found else {})}
        given = {path: getattr(options, path) for path in ("multilingual", "english")}
        run(found, shipped_recipe("ranking", scratch, build_similarity, given), options.arms, options.output)
        write_json(options.output, conclude(found))
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch)
    for arm, difference in conclude(found)["above_mse"].items():
        print(f"{arm:30s} above mse: {difference['average']:+.2f} ({', '.join(f'{value:+.2f}' for value in difference['seeds'])})")


if __name__ == "__main__":
    main()
