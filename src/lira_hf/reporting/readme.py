"""The places of a document that are rendered from files of results."""

from __future__ import annotations

import json
from pathlib import Path

from lira_hf.reporting.tables import LABELS, kinds_of_query, label, markdown, over_seeds, table, with_interval


def fill_between(text: str, name: str, content: str) -> str:
    """text with what stands between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise ValueError(f"{name}: no place marked {start} ... {end} in the text")
    return text[: text.index(start) + len(start)] + "\n" + content + "\n" + text[text.index(end) :]


def rate(found: dict) -> str:
    """A sentence from the results of benchmarks/mega.py."""
    return (
        f"{found['rows_per_second']:,.0f} rows a second per worker ({found['slowest_shard']:,.0f} to {found['fastest_shard']:,.0f} by shard, "
        f"{found['rows']:,} rows measured on {found['cores']} cores), memory {found['megabytes_first']:.0f} MB at first and "
        f"{found['megabytes_last']:.0f} MB at last ([plot](docs/results/mega.png))."
    )


def gain(found: dict) -> str:
    """A sentence from the results of benchmarks/features.py."""
    cases = found["epoch"]["cases"].items()
    ratios = "; ".join(
        f"{name}, {case['ratio']['median']:.0f} times ({case['ratio']['lowest']:.0f} to {case['ratio']['highest']:.0f})" for name, case in cases
    )
    return (
        f"An epoch of stage 2 from the cache is faster than the same from text: {ratios}. Where LiRA's own pass takes the time, no cache can do more."
    )


def queues(found: dict) -> str:
    """A table and a sentence from the results of benchmarks/queues.py."""
    columns = ["validation", "test", "long_tail", "unseen"]
    kinds = found["kinds"]["kinds"].items()
    body = [[kind, *(over_seeds([one[column] for one in runs]) for column in columns)] for kind, runs in kinds]
    cost, low, high = found["cost"], found["cost"]["added_percent_lowest"], found["cost"]["added_percent_highest"]
    small, large = cost["memory"]["1024"], cost["memory"]["16384"]
    return table(["queue, nDCG@10", *columns], body) + (
        f"\n\n{found['kinds']['queue_size']:,} entries, {found['kinds']['seeds']} seeds. A queue of {cost['entries']:,} embeddings of "
        f"{cost['dimensions']} numbers adds {cost['added_percent']:.0f} % ({low:.0f} to {high:.0f}) "
        f"to a step of {cost['queries']} queries and {cost['products']:,} products on cached features. A step with 1,024 queued features takes "
        f"{small['chunks of 256']:,.0f} MB, with 16,384 {large['chunks of 256']:,.0f} MB; embedded in one piece {large['one piece']:,.0f} MB."
    )


def readings(found: dict) -> str:
    """A table from the results of benchmarks/anchoring.py."""
    columns = {
        "chosen candidate's score": ("chosen_score", 2), "ε₁ p95": ("epsilon1_p95", 2), "effective rank": ("collapse_rank", 1),
        "own translation first, %": ("own_translation_first", 1), "then nDCG@10, test": ("test", 1), "unseen": ("unseen", 1),
    }  # fmt: skip
    body = [[arm, *(over_seeds([one[key] for one in runs], digits) for key, digits in columns.values())] for arm, runs in found["arms"].items()]
    return table(["stage 1", *columns], body)


def correlations(found: dict) -> str:
    """A table from the results of benchmarks/ranking.py."""
    body, systems = [], found["systems"]
    for name, system in systems.items():
        own = system["pearson"]["seeds"]
        above = []
        for other in ("mse of the cosine", "mse"):
            pairs = zip(own, systems[other]["pearson"]["seeds"], strict=False)
            above.append("" if name in (other, "concat") else ", ".join(f"{one - two:+.2f}" for one, two in pairs))
        body.append([LABELS.get(name, name), over_seeds(own, 2), over_seeds(system["spearman"]["seeds"], 2), *above])
    return table(["test", "Pearson", "Spearman", "Pearson above mse of the cosine, by seed", "above mse, by seed"], body)


def accuracies(found: dict) -> str:
    """A table and a sentence from the results of benchmarks/reasoning.py."""
    codes = list(next(iter(found["systems"].values()))["languages"])
    parts = {"kept": "candidate_gives_answer", "lost": "candidate_does_not"}
    body = []
    for name, system in found["systems"].items():
        cells = [over_seeds(system["seeds"]), *(f"{system[key]:.1f}" for key in parts.values())]
        body.append([f"`{name}`", *cells, *(f"{system['languages'][code]:.1f}" for code in codes)])
    above = "; ".join(
        f"above `{name}` by {one['average']:.1f} (95 % of paired bootstraps over questions: {one['interval'][0]:.1f} to {one['interval'][1]:.1f})"
        for name, one in found["lira_above"].items()
    )
    return table(["accuracy, %", "average", *parts, *codes], body) + f"\n\n`lira` is {above}."


def first_accuracies(found: dict) -> str:
    """A sentence from what benchmarks/reasoning.py measured with an earlier language model."""

    def right(flags: dict[str, str]) -> float:
        every = "".join(flags.values())
        return 100 * every.count("1") / len(every)

    alone = {name: right(found["alone"][name]) for name in ("english_best", "perfect")}
    trained = {}
    for name, rates in found["runs"].items():
        best = max(rates, key=lambda rate: right(rates[rate]["0"]["validation"]))
        trained[name] = right(rates[best]["0"]["test"])
    return ", ".join(f"`{name}` {value:.1f}" for name, value in (alone | trained).items()) + "."


def certified(found: dict) -> str:
    """A sentence from a certificate."""
    rows, seen, bound = (found["overall"][key] for key in ("rows", "deviation", "bound_blind"))
    return (
        f"on {rows:,} queries the distance is {seen['p50']:.2f} at the median and {seen['p95']:.2f} at the 95 % quantile, the {found['word']} bound "
        f"{bound['p50']:.2f} and {bound['p95']:.2f}, {bound['looseness']['p50']:.1f} times as much. {100 * bound['coverage']:.0f} % of the rows are "
        f"inside it; for {100 * bound['vacuous']:.0f} % it says nothing, as no distance can be larger."
    )


def graphs(found: dict) -> str:
    """A sentence from the results of `lira-hf export --int8 --data`."""
    score, ratio = {name: system["average"] for name, system in found["systems"].items()}, found["speed"]["ratio"]
    each = {"model.onnx": "onnx", "model_int8.onnx": "onnx_int8"}
    told = [
        f"`{file}`, {found['files'][file] / 1e6:.1f} MB, nDCG@10 {score[name]:.2f}, {ratio[name]['median']:.1f} times as fast as torch "
        f"({ratio[name]['lowest']:.1f} to {ratio[name]['highest']:.1f})"
        for file, name in each.items()
    ]
    return f"{'; '.join(told)}; nDCG@10 of the model itself {score['lira']:.2f}."


def ablation(found: dict) -> str:
    """A table of what is lost without each part, and against the simplest head; the heaviest loss first."""
    parts = {name: one for name, one in found["differences"].items() if name.startswith("without_") or name == "pooled_head"}
    body = [
        [label(name), f"{found['systems'][name]['average']:.1f}", with_interval(one), "yes" if one["interval"][1] < 0 else "no"]
        for name, one in sorted(parts.items(), key=lambda pair: pair[1]["mean"])
    ]
    return table([f"LiRA {found['systems'][found['baseline']]['average']:.1f}", "nDCG@10", "difference", "interval below 0"], body)


def noise(found: dict) -> str:
    """What half of the translations corrupted costs."""
    told = []
    for kind, half in found["at_half"].items():
        lost = half["lost"]
        sure = "" if half["less_than_half"] else ", but the interval of half of the latter minus the former holds 0"
        told.append(f"{label(kind)} {lost['lira']:.1f} against {lost['english_trained']:.1f} (frozen concatenation {lost['concat']:.1f}{sure})")
    return f"With half of all candidate translations corrupted, LiRA loses, against the trained English path, by kind: {'; '.join(told)}."


def query_noise(found: dict) -> str:
    """Where LiRA is above the frozen concatenation, and where it is not."""
    return kinds_of_query(found["query_noise"]["concat"], "the frozen concatenation")


def few_shot(found: dict) -> str:
    """From the fewest training rows to all."""
    told = []
    for place in (0, -1):
        (_, ours), *others = found["curves"].items()
        controls = "; ".join(f"{label(name)}: {values[place]['mean']:.1f}" for name, values in others)
        told.append(f"on {ours[place]['rows']:,} rows LiRA has {ours[place]['mean']:.1f} ({controls})")
    return f"{', '.join(told)}. The frozen concatenation has {found['floor']['mean']:.1f}."


def critics(found: dict) -> str:
    """A table and a sentence from the results of benchmarks/critics.py."""
    body = [
        [f"{percent} %", *(f"{score:.1f}" for score in one["ndcg@10"].values()), with_interval(one["difference"])]
        for percent, one in found["missing"].items()
    ]
    few = found["few"]
    (first, second), scores = few["ndcg@10"], few["ndcg@10"]
    header = ["candidates without scores", *map(label, next(iter(found["missing"].values()))["ndcg@10"]), "LiRA above"]
    picked = "; ".join(f"{name} {value:.3f}" for name, value in found["picked"].items())
    return table(header, body) + (
        f"\n\nCosine of the picked candidate and the perfect translation in the frozen English model, by what picks it: {picked}."
        f"\n\nStage 2 on {few['percent']} % of the rows: after {first} {scores[first]:.1f}, after {second} {scores[second]:.1f}; "
        f"{with_interval(few['difference'])}."
    )


def pairs(found: dict) -> str:
    """A table of LiRA above the strongest others, around each pair of backbones."""
    others = ("pooled_head", "concat", "english_trained", "multilingual_trained")
    body = []
    for name, pair in found["pairs"].items():
        kinds = " + ".join(f"{each['kind']} {each['width']}" for each in pair["backbones"].values())
        body.append(
            [f"{name}: {kinds}", f"{pair['systems']['lira']['average']:.1f}", *(with_interval(pair["differences"][other]) for other in others)]
        )
    return table(["backbones, by width", "LiRA", *(f"above {label(other)}" for other in others)], body)


RENDERED = {  # place in the document: the file it is rendered from, and how
    "results": ("quickstart", markdown), "mega": ("mega", rate),
    "features": ("features", gain), "queues": ("queues", queues), "anchoring": ("anchoring", readings), "ranking": ("ranking", correlations),
    "reasoning": ("reasoning", accuracies), "reasoning-first": ("reasoning_first", first_accuracies), "certified": ("certificate", certified),
    "onnx": ("onnx", graphs), "ablation": ("ablation", ablation), "noise": ("noise", noise), "query-noise": ("noise", query_noise),
    "few-shot": ("few_shot", few_shot), "backbones": ("backbones", pairs), "critics": ("critics", critics),
}  # fmt: skip


def render(document: Path, folder: Path) -> str:
    """The document with the places that it has rendered from the files of `folder`."""
    text = document.read_text(encoding="utf-8")
    for place, (name, how) in RENDERED.items():
        if f"<!-- {place} -->" in text:
            text = fill_between(text, place, how(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
    return text
