"""Why the ablation shows no drop without the embedding critic and without stage 1: three questions, three seeds.

    python benchmarks/critics.py --study DIR [--seeds 3]

What is the embedding critic worth where the language model's scores are missing? The ablation's arms `lira` and `without_embedding_critic`
again, on data from which half, or nine of ten, of the candidates' scores were taken, in training and in test. How good is the candidate that
each critic would pick, as the frozen English model sees it? And what is stage 1 worth where stage 2 has few rows? Stage 2 on a tenth of the
rows, after a stage 1 on all rows, and after none.

DIR is the output of `lira-hf study ablation configs/study.yaml --output DIR`, whose data, backbones, features and stage 1 are used.
Writes docs/results/critics.json; finished arms, in DIR/critics, are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from lira_hf.collation import Product, Query, RetrievalData, reference
from lira_hf.environment import together_made_with
from lira_hf.evaluation.studies.arms import ABLATION, CONTROLS, few_shot_arms, jobs_of
from lira_hf.evaluation.studies.intervals import bootstrap
from lira_hf.evaluation.studies.rigs import Rig, anchor, anchoring_folder, arm_file, fill_features, rig_of, train_arm
from lira_hf.evaluation.studies.running import clusters_of, opened, prepared, values_of
from lira_hf.evaluation.studies.settings import Study, load_study
from lira_hf.evaluation.studies.working import Job, work_together
from lira_hf.reporting import write_json
from lira_hf.training import Recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "critics.json"
MISSING = (50, 90)  # percent of the candidates without scores
CRITICS = ("lira", "without_embedding_critic")
FEW = 10  # percent of the rows in stage 2
STARTS = ("stage 1 on all rows", "no stage 1")


def unscored(data: RetrievalData, percent: int) -> RetrievalData:
    """The same without the scores of so many candidates; the same ones whoever asks."""

    def taken(text: str | None, candidate: str) -> bool:
        return int.from_bytes(hashlib.blake2b(f"{text}\0{candidate}".encode(), digest_size=4).digest(), "little") % 100 < percent

    def without(item: Query | Product):
        scores = [None if taken(item.row.text, text) else given for text, given in zip(item.row.translations, item.row.scores, strict=True)]
        return replace(item, row=replace(item.row, scores=scores))

    return RetrievalData(data.language, [without(query) for query in data.queries], {name: without(one) for name, one in data.products.items()})


def unscored_rig(recipe: Recipe, percent: int) -> Rig:
    rig = opened(recipe)
    data = {split: [unscored(part, percent) for part in parts] for split, parts in rig.data.items()}
    output = Path(recipe.output) / "critics" / f"missing-{percent}"
    return rig_of(recipe.model_copy(update={"output": str(output), "features": str(Path(recipe.output) / "features")}), data)


def few_rig(recipe: Recipe, study: Study, seed: int) -> Rig:
    rig = opened(recipe).part(seed, FEW, **few_shot_arms(study.few_shot)["lira", FEW].retrieval)
    return replace(rig, recipe=rig.recipe.model_copy(update={"output": str(Path(recipe.output) / "critics" / "few")}))


def start_from(recipe: Recipe, study: Study, seed: int, start: str) -> None:
    whole, few = opened(recipe), few_rig(recipe, study, seed)
    anchored, anchoring = (anchor(whole, seed), {}) if start == STARTS[0] else (whole.base, None)
    train_arm(few, seed, start, {}, anchored, anchoring)


def jobs(recipe: Recipe, study: Study) -> list[Job]:
    arms = [(CONTROLS | ABLATION)[name] for name in CRITICS]
    made = [job for percent in MISSING for job in jobs_of(arms, unscored_rig(recipe, percent), study.seeds)]
    for seed in range(study.seeds):
        for start in STARTS:
            done = arm_file(Path(recipe.output) / "critics" / "few", seed, start)
            made.append(Job(done, partial(start_from, recipe, study, seed, start), (anchoring_folder(recipe.output, seed) / "model",)))
    return made


def compared(rig: Rig, output: str | Path, names: tuple[str, str], seeds: int) -> dict:
    """Both arms' nDCG@10 on test, and the first minus the second."""
    values = [values_of(rig, [json.loads(arm_file(output, seed, name).read_text())["scores"] for seed in range(seeds)]) for name in names]
    found = {name: bootstrap(table)["mean"] for name, table in zip(names, values, strict=True)}
    return {"ndcg@10": found, "difference": bootstrap({code: values[0][code] - values[1][code] for code in values[0]}, clusters_of(rig))}


@torch.no_grad()
def picked(recipe: Recipe, study: Study) -> dict[str, float]:
    """How near the candidate that each critic picks is to the perfect translation: mean cosine in the frozen English model over the test
    queries with two candidates or more and all scores, and over the seeds of stage 1."""
    rig = opened(recipe)
    queries = [query for part in rig.data["test"] for query in part.queries if len(query.row.translations) > 1 and None not in query.row.scores]
    store = fill_features(recipe, rig.base, rig.processor, [each for query in queries for each in (query.row, reference(query))])
    found: dict[str, list[float]] = {}
    for seed in range(study.seeds):
        model = anchor(rig, seed).eval()
        for start in range(0, len(queries), 256):
            part = queries[start : start + 256]
            batch = store.batch([query.row for query in part])
            perfect = F.normalize(store.batch([reference(query) for query in part])["english_pooled"][:, 0].float(), dim=-1)  # [B, h]
            english, mask = F.normalize(batch["english_pooled"].float(), dim=-1), batch["candidate_mask"].bool()  # [B, K, h], [B, K]
            unscored, actor = torch.full_like(batch["translation_scores"], torch.nan), model.lira.arca.actor
            near = (english * perfect[:, None]).sum(-1)  # [B, K]
            views = {
                "the language model's scores": actor.prior(batch["translation_scores"], english, mask),
                "agreement of the candidates": actor.prior(unscored, english, mask),
                "similarity after stage 1": model(**batch, return_loss=False).similarity,
                "the best there is": near,
            }
            for name, view in views.items():
                choice = view.masked_fill(~mask, -torch.inf).argmax(-1, keepdim=True)
                found.setdefault(name, []).extend(near.gather(1, choice)[:, 0].tolist())
            found.setdefault("a random one", []).extend((near.masked_fill(~mask, 0).sum(-1) / mask.sum(-1)).tolist())
    return {name: sum(values) / len(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True, help="output of the ablation")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    recipe, study = load_study(ROOT / "configs" / "study.yaml", given.study)
    recipe, study = prepared(recipe), study.model_copy(update={"seeds": given.seeds})
    work_together(study.workers, jobs, recipe, study, title="critics")
    rig = opened(recipe)
    outputs = {0: recipe.output} | {percent: Path(recipe.output) / "critics" / f"missing-{percent}" for percent in MISSING}
    found = {
        "seeds": study.seeds,
        "missing": {str(percent): compared(rig, output, CRITICS, study.seeds) for percent, output in outputs.items()},
        "picked": picked(recipe, study),
        "few": {"percent": FEW} | compared(rig, Path(recipe.output) / "critics" / "few", STARTS, study.seeds),
    }
    files = [file for output in (*outputs.values(), Path(recipe.output) / "critics" / "few") for file in sorted(Path(output).glob("runs/*/*.json"))]
    made_with = together_made_with([one["environment"] for one in map(json.loads, (file.read_text() for file in files)) if "environment" in one])
    write_json(RESULTS, found | {"environment": made_with})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
