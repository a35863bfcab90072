"""Studies: arms that share data, backbones and cached features, and differ in fields of LiraConfig or of the recipe.

OUTPUT/data  OUTPUT/backbones  OUTPUT/features     made once
OUTPUT/runs/SEED/ARM.json                          a finished arm: scores of every test query, the fields it was trained with
OUTPUT/runs/SEED/anchoring-NAME/model              a finished stage 1, shared by the arms that start from it
OUTPUT/runs/SEED/noise-SYSTEM.json                 a system's scores under translation noise
OUTPUT/{ablation,noise,few_shot,backbones}.json    what a study found; OUTPUT/results.json the systems of all of them

Every study file is a results.json (lira_hf.reporting.results: "benchmark", "metric", "model", "seeds", "systems", "environment"; a system has
"languages", "average", "slices", "language_slices", and with several seeds "spread" and "seeds") with these keys beside them:

    all           "study" (its name), "split", "queries" {code: number of test queries}, "training_rows", "recipe"
    ablation      "baseline" (lira, the full model)
                  "arms" {system: {"fields", "anchoring", "same_as"}}; same_as names the control that is the same training, or is null
                  "differences" {system: COMPARED}: system minus baseline, so that a drop is negative
    noise         "levels" [percent of queries and products whose candidates are corrupted], "kinds" {kind: what the translators do then}
                  "curves" {kind or "mixed": {system: [{"level", "mean", "interval", "seeds", "lost": {"mean", "interval", "seeds"}}]}}
                  "at_half" {kind or "mixed": {"lost" {system: points}, "ratio" (lira's loss by english_trained's),
                             "half_of_english_minus_lira" BOOTSTRAPPED, "less_than_half" (whether that interval is above 0)}}
                  "query_noise" {system: {slice: BOOTSTRAPPED}}: lira minus system on each slice of queries, no translation corrupted
    few_shot      "percents", "steps" {percent: steps of stage 2}, "floor" {"system": "concat", "mean", "interval", "seeds"}
                  "curves" {system: [{"percent", "rows", "mean", "interval", "seeds"}]}
                  "lira_above" {control: [{"percent", **COMPARED}]}: lira minus control; "above_everywhere" {control: whether each mean is above 0}
    backbones     "pairs" {name: {"backbones" {path: {"kind", "layers", "width", "parameters"}}, "systems",
                           "differences" {system: COMPARED}: lira minus system}}; the recipe's own pair is "own"

    BOOTSTRAPPED  {"mean", "interval" [low, high], "languages" {code: {"mean", "interval"}}}: points of nDCG@10, 95 % (see intervals.bootstrap)
    COMPARED      BOOTSTRAPPED, and "slices" {slice: BOOTSTRAPPED}"""

from lira_hf.evaluation.studies.rigs import (
    QUIET,
    Rig,
    anchor,
    anchored_folder,
    build_data,
    find_backbones,
    rig_of,
    set_up,
    shipped_recipe,
    train_arm,
)
from lira_hf.evaluation.studies.running import STUDIES, run_study

__all__ = [
    "QUIET", "STUDIES", "Rig", "anchor", "anchored_folder", "build_data", "find_backbones", "rig_of", "run_study", "set_up", "shipped_recipe",
    "train_arm",
]  # fmt: skip
