"""Word problems in seven languages for a language model that knows English alone: with LiRA's soft prompt, and without it.

Writes docs/results/reasoning.json, arm by arm; started again, it goes on with what is missing. Everything in it is tiny and synthetic: the
data of `lira-hf data problems`, whose candidate translations are simulated; the encoders and the language model of lira_hf.backbones, the
latter of 3 layers and trained on English problems alone. None of them has read a wording of the validation or the test split. The language
model is the same in all systems, frozen, and decodes greedily. The learning rate (the recipe's) was chosen on the validation split; so is the
checkpoint of each run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from lira_hf.backbones import train_tiny_llm
from lira_hf.catalogue.problems import build_problems
from lira_hf.collation import SPLITS, Problem, ProblemData
from lira_hf.collation.folders import load_config
from lira_hf.evaluation.reasoning import MORE_TOKENS, is_right, responses
from lira_hf.evaluation.studies import QUIET, anchored_folder, shipped_recipe
from lira_hf.features import FeatureStore
from lira_hf.modeling import LiraForCausalLM, LiraProcessor
from lira_hf.reporting import results, write_json
from lira_hf.training import Recipe, arguments, fill_features, load_parts, train_reasoning
from lira_hf.training.running import load_data

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "reasoning.json"
ASKED = {  # what the language model reads where it is alone
    "no_translation": lambda problem, processor: problem.row.text,
    "english_only": lambda problem, processor: problem.row.translations[0],
    "english_best": lambda problem, processor: processor.question(problem.row),
    "perfect": lambda problem, processor: problem.english,
}
ARMS = {  # of LiraConfig: a soft prompt before the text of english_best; the control has all but the source
    "lira": {},
    "english_soft": {"paths": "english", "selection": "critic"},
}
SEEDS = (0, 1, 2)
RESAMPLES = 10_000
Right = dict[str, str]  # by language, a digit for each question: 1 where the answer is right


def prepare(scratch: Path, **given: str | None) -> Recipe:
    """Data and backbones, made where they are missing, in the shipped recipe."""
    given["llm"] = given["llm"] or str(train_tiny_llm(scratch / "backbones"))
    return shipped_recipe("reasoning", scratch, build_problems, given, problems=True)


def judged(written: dict[str, list[str]], data: list[ProblemData]) -> Right:
    return {
        part.language: "".join(str(int(is_right(text, problem))) for text, problem in zip(written[part.language], part.problems, strict=True))
        for part in data
    }


def answered(model: LiraForCausalLM, store: FeatureStore, data: list[ProblemData]) -> Right:
    return judged({part.language: responses(model, store, part.problems) for part in data}, data)


@torch.no_grad()
def answered_alone(llm, processor: LiraProcessor, asked, data: list[ProblemData], batch_size: int = 64) -> Right:
    """What the language model answers to the text that `asked` makes of a problem, without a soft prompt."""

    def write(problems: list[Problem]) -> list[str]:
        longest = processor.answers([problem.response for problem in problems])[0].shape[1]
        rows = [problem.row for problem in problems]
        batch = processor.dialogue(processor.prompt_ids(rows, [asked(problem, processor) for problem in problems]))
        written = llm.generate(**batch, do_sample=False, max_new_tokens=longest + MORE_TOKENS)
        return processor.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    starts = range(0, max(len(part.problems) for part in data), batch_size)
    return judged({part.language: [text for start in starts for text in write(part.problems[start : start + batch_size])] for part in data}, data)


def trained(recipe: Recipe, folder: Path, seed: int, fields: dict, store: FeatureStore, data: dict) -> dict:
    """Validation and test answers of one run."""
    torch.manual_seed(seed)
    model = LiraForCausalLM.from_anchored(str(folder), llm=recipe.backbones.llm, **{**recipe.model, **fields})
    with tempfile.TemporaryDirectory() as checkpoints:
        args = arguments(Path(checkpoints), seed, recipe.reasoning | QUIET)
        log = train_reasoning(model, store, data["train"], data["validation"], args, evaluation_rows=recipe.evaluation_rows)
    steps = [entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry]
    return {"steps": steps, **{split: answered(model, store, data[split]) for split in ("validation", "test")}}


def run(found: dict, recipe: Recipe, output: Path) -> None:
    """Trains what `found` lacks: found["alone"][system], and found["runs"][arm][seed]."""
    data = {split: load_data(recipe, split) for split in SPLITS}
    base, processor, *_ = load_parts(recipe)
    store = fill_features(recipe, base, processor, [part for parts in data.values() for part in parts])
    llm = AutoModelForCausalLM.from_pretrained(recipe.backbones.llm).eval()
    for system, asked in ASKED.items():
        if system not in found["alone"]:
            found["alone"][system] = answered_alone(llm, processor, asked, data["test"])
            write_json(output, found)
        print(f"{system:16s} {accuracy(found['alone'][system]):.1f}", flush=True)

    for seed in SEEDS:
        for arm, fields in ARMS.items():
            runs = found["runs"].setdefault(arm, {})
            if str(seed) not in runs:
                folder = anchored_folder(recipe, seed, store, data["train"])
                runs[str(seed)] = trained(recipe, folder, seed, fields, store, data)
                write_json(output, found)
            one = runs[str(seed)]
            print(f"{arm:16s} seed {seed}: validation {accuracy(one['validation']):.1f}, test {accuracy(one['test']):.1f}", flush=True)


def accuracy(right: Right) -> float:
    """Mean over languages, 0 to 100."""
    return mean(100 * mean(map(int, flags)) for flags in right.values())


def flags(runs: list[Right]) -> np.ndarray:
    """Share of the runs that answer a question right [languages, questions], 0 to 100."""
    return 100 * np.mean([[[int(flag) for flag in right[code]] for code in runs[0]] for right in runs], axis=0)


def conclude(found: dict, recipe: Recipe) -> dict:
    """Test accuracy by system, also of the questions whose best candidate still gives the answer and of the others; and how far LiRA is above."""
    kept = np.array([load_config(recipe.data, code, "test")["best_gives_answer"] for code in recipe.languages])  # [languages, questions]
    runs = {name: [right] for name, right in found["alone"].items()}
    runs |= {arm: [each[str(seed)]["test"] for seed in SEEDS] for arm, each in found["runs"].items()}
    systems = {}
    for name, each in runs.items():
        table = flags(each)
        systems[name] = {
            "languages": dict(zip(recipe.languages, table.mean(1).tolist(), strict=True)),
            "average": float(table.mean()),
            "seeds": [accuracy(right) for right in each],
            "candidate_gives_answer": float(table[kept].mean()),
            "candidate_does_not": float(table[~kept].mean()),
        }
    above = {name: interval(flags(runs["lira"]) - flags(runs[name])) for name in ("english_best", "english_soft")}
    benchmark = "word problems (synthetic), tiny backbones, tiny language model trained on English"
    return results(systems, benchmark=benchmark, model="lira", seeds=list(SEEDS)) | {
        "metric": "accuracy", "share_whose_candidate_gives_answer": float(kept.mean()), "lira_above": above, **found
    }  # fmt: skip


def interval(differences: np.ndarray) -> dict:
    """The mean of differences [languages, questions], and its 95 % interval from resampled questions of each language."""
    rng = np.random.default_rng(0)
    count = differences.shape[1]
    means = [np.take_along_axis(differences, rng.integers(count, size=differences.shape), 1).mean() for _ in range(RESAMPLES)]
    return {"average": float(differences.mean()), "interval": np.percentile(means, [2.5, 97.5]).tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, help="folder for data, backbones and features; kept. Default: one that is deleted")
    parser.add_argument("--multilingual")
    parser.add_argument("--english")
    parser.add_argument("--llm")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.disable_progress_bar()
    scratch = options.scratch or Path(tempfile.mkdtemp())
    try:
        found = json.loads(options.output.read_text()) if options.output.exists() else {}
        found = {"alone": found.get("alone", {}), "runs": found.get("runs", {})}
        recipe = prepare(scratch, multilingual=options.multilingual, english=options.english, llm=options.llm)
        run(found, recipe, options.output)
        concluded = conclude(found, recipe)
        write_json(options.output, concluded)
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch)
    print(f"{'':16s} average  kept  lost  " + "  ".join(f"{code:>4s}" for code in recipe.languages))
    for name, system in concluded["systems"].items():
        cells = [system["average"], system["candidate_gives_answer"], system["candidate_does_not"], *system["languages"].values()]
        print(f"{name:16s} {cells[0]:7.1f}" + "".join(f"{value:6.1f}" for value in cells[1:]))
    for name, one in concluded["lira_above"].items():
        print(f"lira above {name}: {one['average']:+.1f} (95 % interval {one['interval'][0]:+.1f} to {one['interval'][1]:+.1f})")


if __name__ == "__main__":
    main()
