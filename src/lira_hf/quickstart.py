"""The main job in one go: data, backbones, features, both stages, every control, table, plot, reload in a clean process, search.

    OUTPUT/data  OUTPUT/backbones  OUTPUT/features     made once          OUTPUT/runs/SEED/SYSTEM.json   a finished training's scores
    OUTPUT/model                                       seed 0's LiRA      OUTPUT/results.json, results.png

Everything finished is kept, so a run that was killed goes on where it stopped."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
import transformers
from rich.console import Console

from lira_hf.collation import RetrievalData
from lira_hf.evaluation.retrieval import FROZEN_SYSTEMS, SYSTEMS, TRAINED_SYSTEMS, Scoreboard, build_frozen, embed, score, summary
from lira_hf.evaluation.studies import anchor, build_data, find_backbones, set_up, train_arm
from lira_hf.languages import LANGUAGES, check_languages
from lira_hf.modeling import LiraForRetrieval
from lira_hf.reporting import keep, plot, print_table, results, write_json

RELOAD = """
import json, sys, torch
from transformers import AutoModel, AutoProcessor
folder, rows = sys.argv[1], json.load(open(sys.argv[2]))
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert not any(name == "lira_hf" or name.startswith("lira_hf.") for name in sys.modules), "lira_hf was imported"
torch.save(model.encode(**rows, processor=processor, prompt_name="query"), sys.argv[3])
"""


def quickstart(
    output: str | Path, seeds: int = 1, multilingual: str | None = None, english: str | None = None, languages: list[str] | None = None
) -> dict:
    """Does all of it and returns the content of OUTPUT/results.json.

    Args:
        output: folder; made if it is not there. seeds: how often the training is repeated; data and backbones stay.
        multilingual, english: Hub ids or folders of real backbones, both or none. languages: codes, None for all seven."""
    if (multilingual is None) != (english is None):
        raise ValueError(f"{'english' if english is None else 'multilingual'}: missing; give both backbones or none")
    codes, console, started = check_languages(languages), Console(), time.time()
    output = Path(output)
    for noisy in (transformers.utils.logging, datasets):
        noisy.disable_progress_bar()

    def heading(text: str) -> None:
        console.print(f"\n[bold]{text}[/bold]  [dim]{time.time() - started:.0f} s[/dim]", highlight=False, soft_wrap=True)

    heading("1/6 data: LazRetrieval, small; synthetic, made from hand-written words")
    data = build_data(output, codes)
    for split, parts in data.items():
        queries, products = sum(len(part.queries) for part in parts), sum(len(part.products) for part in parts)
        console.print(f"  {split:11s}{queries:7,} queries {products:7,} products", highlight=False)

    heading("2/6 backbones: " + ("two tiny encoders, trained here on other catalogue text" if multilingual is None else f"{multilingual}, {english}"))
    name = "tiny backbones" if multilingual is None else f"{multilingual} + {english}"
    multilingual, english = find_backbones(output, codes, multilingual, english)

    heading("3/6 features: every text through the frozen backbones, once")
    rig = set_up(output, codes, data, multilingual, english)

    board = Scoreboard()
    for system in FROZEN_SYSTEMS:
        board.add(system, summary(score(build_frozen(rig.base, system), rig.store, data["test"]), data["test"]))
    for seed in range(seeds):
        heading(f"4/6 training, seed {seed}: stage 1 (Arca), then stage 2 (LaSR) and its controls with the same budget")
        say = functools.partial(show_figures, console)
        anchored = anchor(rig, seed, say=say)
        for system, fields in TRAINED_SYSTEMS.items():
            place = output / "model" if system == "lira" and seed == 0 else None
            board.add(system, train_arm(rig, seed, system, fields, anchored, {}, say, place)["test"])

    heading("5/6 results on the test split, which nothing was tuned on")
    for system in FROZEN_SYSTEMS:  # frozen systems have no seed
        board.runs[system] *= seeds
    systems = {system: board.systems()[system] for system in SYSTEMS}
    found = results(
        systems,
        benchmark=f"LazRetrieval small (synthetic), {name}",
        model="lira",
        seeds=list(range(seeds)),
        split="test",
        seconds=round(time.time() - started),
    )
    write_json(output / "results.json", found)
    keep(found, output / "model", "laz")
    plot(found, output / "results.png")
    print_table(found)

    heading("6/6 the model, reloaded in a clean process by AutoModel.from_pretrained(..., trust_remote_code=True)")
    model = LiraForRetrieval.from_pretrained(output / "model")
    difference = reload_difference(output / "model", model, rig.processor, data["test"][0])
    console.print(f"  without lira_hf, the largest difference of any embedding: {difference:.1e}", highlight=False)
    if difference > 1e-5:
        raise RuntimeError(f"the reloaded model's embeddings differ by {difference:.1e}")
    for part in data["test"][:3]:
        show_search(console, model, rig.store, part)
    console.print(
        f"\n[bold]Done.[/bold] {output}/results.json, {output}/results.png; the model is {output}/model\n"
        "Next, with your own backbones and data:\n"
        f"  lira-hf quickstart --output my-run --multilingual intfloat/multilingual-e5-small --english BAAI/bge-small-en-v1.5\n"
        f"  lira-hf data build --output my-data --size standard --languages {codes[0]}\n"
        "  lira-hf train configs/tiny.yaml --data my-data --output my-model --backbones.multilingual ID --backbones.english ID",
        highlight=False,
        soft_wrap=True,
    )
    return found


FIGURES = (
    "loss", "loss_ndcg", "loss_hinge", "dropped_negatives", "eval_ndcg@10", "reward", "actor_entropy", "epsilon1_p50", "epsilon1_p95",
    "collapse_cosine", "collapse_rank",
)  # fmt: skip


def show_figures(console: Console, name: str, log: list[dict]) -> None:
    """The last value of each figure in a training log, on one line."""
    last = {figure: next((entry[figure] for entry in reversed(log) if figure in entry), None) for figure in FIGURES}
    shown = "  ".join(f"{figure} {float(value):.3f}" for figure, value in last.items() if value is not None)
    console.print(f"  {name}: {shown}", highlight=False, soft_wrap=True)


def reload_difference(folder: Path, model, processor, part: RetrievalData) -> float:
    """Largest difference between this process's embeddings of some queries and those of a process that knows only transformers."""
    queries = [query.row for query in part.queries[:32]]
    rows = {"texts": [r.text for r in queries], "translations": [r.translations for r in queries], "scores": [r.scores for r in queries],
            "language": part.language}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        inputs, out = Path(scratch) / "rows.json", Path(scratch) / "embeddings.pt"
        inputs.write_text(json.dumps(rows))
        command = [sys.executable, "-c", RELOAD, str(Path(folder).resolve()), str(inputs), str(out)]
        done = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the clean process failed:\n{done.stderr}")
        theirs = torch.load(out)
    ours = model.encode(**rows, processor=processor, prompt_name="query")
    return float((ours - theirs).abs().max())


def show_search(console: Console, model, store, part: RetrievalData, k: int = 3) -> None:
    """One query of a language and the products found for it, each with its English meaning and grade."""
    query = next((q for q in part.queries if "clean" not in q.slices), part.queries[0])
    products = list(part.products.values())
    similarity = embed(model, store, [query.row])[0] @ embed(model, store, [product.row for product in products]).T
    console.print(
        f"\n  {LANGUAGES[part.language].name}: [bold]{query.row.text}[/bold]  ({query.english}; {', '.join(query.slices)})", highlight=False
    )
    for value, index in zip(*similarity.topk(min(k, len(products))), strict=True):
        product = products[int(index)]
        grade = query.judged.get(product.id, 0)
        console.print(f"    {value:.2f}  grade {grade}  {product.title}  [dim]({product.english})[/dim]", highlight=False, soft_wrap=True)
