"""The report: one page of all results in a folder, as Markdown and, rendered from it, as HTML that needs nothing beside itself.

    OUTPUT/report.md  OUTPUT/drawings/*.svg      OUTPUT/index.html, with the same drawings inside

Files are known by what they hold, not by their names: results.json of any measuring command, the files of studies (lira_hf.evaluation.studies),
certificate.json, training_log.json."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

import yaml

from lira_hf.reporting.card import certificate, place
from lira_hf.reporting.plots import bars, curves, dots, histories
from lira_hf.reporting.tables import kinds_of_query, label, markdown, plain, table, with_interval

BENCHMARKS = {  # word in a results file's `benchmark`: how it is measured
    "LazRetrieval": "laz", "BelebeleRetrieval": "belebele", "MLQARetrieval": "mlqa", "STS22": "sts22", "MGSM": "mgsm", "X-CSQA": "xcsqa",
}  # fmt: skip
PLACES = ("*.json", "results/*.json", "model/results/*.json", "**/training_log.json")
QUEUE = {
    "queue_filled": "entries in the queue", "queue_age": "mean age of an entry, in steps",
    "queue_drift": "drift: how far a queued embedding is from today's", "dropped_negatives": "share of negatives dropped as likely false",
}  # fmt: skip


@dataclass
class Found:
    """What a folder holds: results by file, studies by name, certificates and training logs by file, and the files that are neither."""

    folder: Path
    results: dict[str, dict] = field(default_factory=dict)
    studies: dict[str, dict] = field(default_factory=dict)
    certificates: dict[str, dict] = field(default_factory=dict)
    logs: dict[str, list[dict]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Found:
        """Raises ValueError where there is no such folder, a file is not JSON, or nothing in it is a result."""
        if not folder.is_dir():
            raise ValueError(f"results: {str(folder)!r} is no folder; give one with the results of `lira-hf evaluate`, `study` or `certify`")
        found = cls(folder)
        for file in dict.fromkeys(file for pattern in PLACES for file in sorted(folder.glob(pattern))):
            name = file.relative_to(folder).as_posix()
            try:
                found.add(name, json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, OSError) as error:
                raise ValueError(f"results: {name} in {str(folder)!r} cannot be read ({' '.join(str(error).split())})") from error
        if not any((found.results, found.studies, found.certificates, found.logs)):
            raise ValueError(f"results: {str(folder)!r} holds no results; `lira-hf evaluate`, `study`, `certify` and `quickstart` write some")
        return found

    def add(self, name: str, content) -> None:
        if isinstance(content, list):
            self.logs[name] = content
        elif "studies" in content or content in self.results.values():
            return  # what the studies' own files say, together; or a copy
        elif "study" in content:
            self.studies[content["study"]] = content
        elif {"card", "constants", "overall"} <= set(content):
            self.certificates[name] = content
        elif "benchmark" in content and all("average" in system for system in content.get("systems", {None: {}}).values()):
            self.results[name] = content
        else:
            self.others.append(name)


class Report:
    """Markdown in the making, and its drawings by name."""

    def __init__(self):
        self.parts: list[str] = []
        self.drawings: dict[str, str] = {}

    def say(self, *parts: str) -> None:
        self.parts += parts

    def draw(self, name: str, what: str, svg: str) -> None:
        """Places a drawing; `what` is told to those who cannot see it."""
        self.drawings[name] = svg
        self.say(f"![{what}](drawings/{name}.svg)")

    def missing(self, what: str, command: str) -> None:
        self.say(f"**Missing**: the folder holds no {what} (`{command}`).")

    @property
    def markdown(self) -> str:
        return "\n\n".join(self.parts) + "\n"


def report(results_folder: str | Path, output: str | Path) -> Path:
    """Writes OUTPUT/index.html, report.md and drawings/, and returns the path of the first.

    Raises ValueError for a folder without results, or with a file that cannot be read."""
    found, made = Found.read(Path(results_folder)), Report()
    sections = {
        "Benchmarks": benchmarks, "Kinds of query": slices, "Ablation": ablation, "Translation noise": noise, "Few training rows": few_shot,
        "Backbones": backbones, "Certificate": certificates, "Queue health": queues, "How this was made": origin,
    }  # fmt: skip
    made.say("# LiRA: what was measured")
    for warning in said(found):
        made.say(f"> {warning}")
    made.say("\n".join(f"- [{title}](#{slug(title)})" for title in sections))
    for title, section in sections.items():
        made.say(f"## {title}")
        section(made, found)
    output = Path(output)
    (output / "drawings").mkdir(parents=True, exist_ok=True)
    for name, svg in made.drawings.items():
        write(output / "drawings" / f"{name}.svg", svg + "\n")
    write(output / "report.md", made.markdown)
    write(output / "index.html", html(made))
    return output / "index.html"


def write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def slug(title: str) -> str:
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-")


def html(made: Report) -> str:
    """The Markdown as one page: tables scroll in a box of their own, drawings are inside."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(made.markdown)
    for token, inline in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            token.attrSet("id", slug(inline.content))
    body = reader.renderer.render(tokens, reader.options, {})
    body = body.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")

    def inside(image: re.Match) -> str:
        return f'<figure role="img" aria-label="{image[2]}">{made.drawings[image[1]]}</figure>'

    body = re.sub(r'<p><img src="drawings/([\w-]+)\.svg" alt="([^"]*)" /></p>', inside, body)
    template = (files("lira_hf.reporting") / "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(title="LiRA: what was measured", body=body)


# ---- what is said of a number ----------------------------------------------------------------------------------------------


def said(found: Found) -> list[str]:
    """What a reader must know before any number."""
    names = " ".join(one["benchmark"] for one in (*found.results.values(), *found.studies.values()))
    lines = []
    if "synthetic" in names:
        lines.append(
            "**Synthetic data**: LazRetrieval was made here by a program from hand-written words. The authors' is not public, and is another."
        )
    if "tiny backbones" in names:
        lines.append("**Tiny backbones**: trained in about a minute so that everything runs anywhere. They say nothing about real encoders.")
    return lines


def points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def seeds_of(one: dict) -> str:
    count = len(one["seeds"])
    return (
        f"{count} seeds of training; intervals are 95 % bootstraps over seeds and queries"
        if count > 1
        else "one seed of training; intervals are over queries alone"
    )


# ---- sections ----------------------------------------------------------------------------------------------------------------


def benchmarks(made: Report, found: Found) -> None:
    """Each benchmark's table beside what others published."""
    anchors = yaml.safe_load((files("lira_hf.reporting") / "anchors.yaml").read_text(encoding="utf-8"))
    shown = set()
    for task, name in BENCHMARKS.items():
        made.say(f"### {task}")
        own = {file: one for file, one in found.results.items() if task in one["benchmark"]}
        own = dict(sorted(own.items(), key=lambda pair: -len(pair[1].get("seeds") or [])))  # means before single measurements
        shown |= set(own)
        for one in own.values():
            made.say(*measured(one))
        if not own:
            made.missing(f"results of {task}", f"lira-hf evaluate MODEL --benchmark {name}")
        published(made, [anchor for anchor in anchors if anchor["task"] == task])
    others = [one for file, one in found.results.items() if file not in shown]
    if others:
        made.say("### Others")
    for one in others:
        made.say(*measured(one))


def measured(one: dict) -> list[str]:
    seeds = len(one.get("seeds") or [])
    spread = f"means over {seeds} seeds of training, ± their standard deviation" if seeds > 1 else "one model, measured once"
    return [f"{plain(one['benchmark'])}; model `{place(str(one['model']))}`; {spread}.", markdown(one)]


def published(made: Report, anchors: list[dict]) -> None:
    for anchor in anchors:
        digits = max(len(str(value).partition(".")[2]) for values in anchor["rows"].values() for value in values if value is not None)  # as published
        body = [[row, *("–" if value is None else f"{value:.{digits}f}" for value in values)] for row, values in anchor["rows"].items()]
        hand = "; **second-hand**, and may be wrong" if anchor.get("second_hand") else ""
        made.say(
            f"Published, not measured here: {anchor['what']}. Source: {anchor['source']}, {anchor.get('date', 'date not recorded')}{hand}.",
            table(["", *anchor["columns"]], body),
        )


def slices(made: Report, found: Found) -> None:
    """nDCG@10 by kind of query."""
    sliced = {
        file: one for file, one in found.results.items()
        if "onnx" not in one["systems"] and all(system.get("slices") for system in one["systems"].values())
    }  # fmt: skip
    if not sliced:
        made.missing("results by kind of query", "lira-hf evaluate MODEL --data DIR")
    for number, one in enumerate(sliced.values()):
        rows = {
            label(name): one["systems"][name]["slices"]
            for name in ("lira", "pooled_head", "concat", "english_best", "multilingual_only")
            if name in one["systems"]
        }
        made.say(f"{plain(one['benchmark'])}:")
        made.draw(
            f"slices-{number}", "nDCG@10 of systems by kind of query; the table below has the numbers", dots(f"slices-{number}", "nDCG@10", rows)
        )
        made.say(markdown(one, slices=True))


def ablation(made: Report, found: Found) -> None:
    one = found.studies.get("ablation")
    if one is None:
        made.missing("ablation study", "lira-hf study ablation CONFIG.yaml --output DIR")
    else:
        differences = one["differences"]
        arms = [name for name in differences if one["arms"].get(name, {}).get("same_as") or name.startswith("without_")]
        made.say(f"What is lost without a part: nDCG@10 minus that of {label(one['baseline'])}, {seeds_of(one)}. {plain(one['benchmark'])}.")
        values = {label(name): (differences[name]["mean"], *differences[name]["interval"]) for name in arms}
        made.draw(
            "ablation", "bars of what is lost without each part; the table below has the numbers", bars("ablation", "points of nDCG@10", values)
        )
        codes = list(next(iter(differences.values()))["languages"])
        body = []
        for name, each in differences.items():
            excludes = each["interval"][1] < 0 or each["interval"][0] > 0
            languages = [points(each["languages"][code]["mean"]) for code in codes]
            body.append([label(name), f"{one['systems'][name]['average']:.1f}", with_interval(each), "yes" if excludes else "no", *languages])
        made.say(table(["minus LiRA", "nDCG@10", "difference", "excludes 0", *codes], body))
        undecided = [label(name) for name in arms if differences[name]["interval"][0] <= 0 <= differences[name]["interval"][1]]
        if undecided:
            made.say(f"**No drop is shown** {' or '.join(undecided)}: the interval holds 0.")
        same = {name: arm["same_as"] for name, arm in one["arms"].items() if arm.get("same_as")}
        if same:
            made.say("One training under two names: " + "; ".join(f"{label(name)} is {label(other)}" for name, other in same.items()) + ".")
    anchors = yaml.safe_load((files("lira_hf.reporting") / "anchors.yaml").read_text(encoding="utf-8"))
    published(made, [anchor for anchor in anchors if anchor["task"] == "ablation"])


def line(values: list[dict], key: str) -> list[tuple]:
    return [(each[key], each["mean"], *each["interval"]) for each in values]


def noise(made: Report, found: Found) -> None:
    one = found.studies.get("noise")
    if one is None:
        return made.missing("noise study", "lira-hf study noise CONFIG.yaml --output DIR")
    made.say(
        f"nDCG@10 as the candidate translations of more and more queries and products are corrupted; {seeds_of(one)}. {plain(one['benchmark'])}."
    )
    for kind, systems in one["curves"].items():
        name = f"noise-{slug(kind)}"
        made.say(f"### {label(kind)}".replace("### mixed", "### all kinds mixed"))
        lines = {label(system): line(values, "level") for system, values in systems.items()}
        made.draw(
            name, f"nDCG@10 against the share of rows corrupted, {label(kind)}", curves(name, "% of queries and products corrupted", "nDCG@10", lines)
        )
        levels = [f"{each['level']:g} %" for each in next(iter(systems.values()))]
        made.say(table(["nDCG@10", *levels], [[label(system), *(f"{each['mean']:.1f}" for each in values)] for system, values in systems.items()]))
        half = one["at_half"][kind]
        ours, theirs = half["lost"]["lira"], half["lost"]["english_trained"]
        ratio = "" if half["ratio"] is None else f" (a ratio of {half['ratio']:.2f})"
        verdict = "less than half is lost." if half["less_than_half"] else "**it is not shown that less than half is lost.**"
        made.say(
            f"At 50 % LiRA loses {ours:.1f} points, {label('english_trained')} {theirs:.1f}{ratio}. "
            f"Half of the latter minus the former: {with_interval(half['half_of_english_minus_lira'])}; {verdict}"
        )
    made.say("### Noise in the query", "LiRA minus a system by kind of query, no translation corrupted.")
    for name, differences in one["query_noise"].items():
        made.say(kinds_of_query(differences, label(name)))
    kinds = list(next(iter(one["query_noise"].values())))
    made.say(
        table(
            ["kind", *(f"minus {label(name)}" for name in one["query_noise"])],
            [[kind, *(with_interval(each[kind]) for each in one["query_noise"].values())] for kind in kinds],
        )
    )


def few_shot(made: Report, found: Found) -> None:
    one = found.studies.get("few-shot")
    if one is None:
        return made.missing("few-shot study", "lira-hf study few-shot CONFIG.yaml --output DIR")
    made.say(f"nDCG@10 after training on a share of the {one['training_rows']:,} rows; {seeds_of(one)}. {plain(one['benchmark'])}.")
    lines = {label(system): line(values, "percent") for system, values in one["curves"].items()}
    floor = one["floor"]
    lines[label(floor["system"])] = [(percent, floor["mean"], None, None) for percent in one["percents"]]
    made.draw(
        "few-shot", "nDCG@10 against the share of training rows", curves("few-shot", "% of the training rows", "nDCG@10", lines, logarithmic=True)
    )
    body = [[label(system), *(with_interval(each, sign=False) for each in values)] for system, values in one["curves"].items()]
    rows = [f"{each['percent']:g} % ({each['rows']:,} rows)" for each in next(iter(one["curves"].values()))]
    made.say(table(["nDCG@10", *rows], [*body, [label(floor["system"]), *[f"{floor['mean']:.1f}"] * len(rows)]]))
    for control, values in one["lira_above"].items():
        above = "above at every point" if one["above_everywhere"][control] else "**not above at every point**"
        made.say(f"LiRA minus {label(control)}: " + ", ".join(f"{each['percent']:g} % {with_interval(each)}" for each in values) + f"; {above}.")


def backbones(made: Report, found: Found) -> None:
    one = found.studies.get("backbones")
    if one is None:
        return made.missing("study of backbones", "lira-hf study backbones CONFIG.yaml --output DIR")
    made.say(f"The same training around other pairs of frozen backbones; {seeds_of(one)}.")
    body = []
    for name, pair in one["pairs"].items():
        kinds = [f"{each['kind']}, {each['layers']} layers, {each['width']} wide, {each['parameters']:,}" for each in pair["backbones"].values()]
        body.append([name, *kinds])
    made.say(table(["pair", "multilingual", "English"], body))
    controls = list(next(iter(one["pairs"].values()))["differences"])
    body = [
        [name, f"{pair['systems']['lira']['average']:.1f}", *(with_interval(pair["differences"][control]) for control in controls)]
        for name, pair in one["pairs"].items()
    ]
    made.say(table(["pair", "LiRA, nDCG@10", *(f"above {label(control)}" for control in controls)], body))
    values = {name: {label(system): each["average"] for system, each in pair["systems"].items()} for name, pair in one["pairs"].items()}
    made.draw("backbones", "nDCG@10 of each system around each pair of backbones", dots("backbones", "nDCG@10", values))


def certificates(made: Report, found: Found) -> None:
    if not found.certificates:
        return made.missing("certificate", "lira-hf certify MODEL --data DIR --output DIR")
    for number, one in enumerate(found.certificates.values()):
        name = f"certificate-{number}"
        made.say(f"Of the model `{place(str(one['model']))}`:")
        groups = {"all": one["overall"]} | one["languages"] | one["slices"]
        rows = {
            "observed, p95": {group: figures["deviation"]["p95"] for group, figures in groups.items()},
            f"{one['word']} bound, p95": {group: figures["bound_blind"]["p95"] for group, figures in groups.items()},
            "ε₁, p95": {group: figures["epsilon1"]["p95"] for group, figures in groups.items()},
        }
        what = "95 % quantiles of the observed deviation, of its bound and of epsilon 1, by language and kind of query"
        made.draw(name, what, dots(name, "distance; the deviation is of |z − z*|", rows))
        made.say(certificate(one))


def queues(made: Report, found: Found) -> None:
    """What training logs say of the queue of past products."""
    told = {file: log for file, log in found.logs.items() if any(key in entry for entry in log for key in QUEUE)}
    if not told:
        return made.missing("training log", "lira-hf train leaves MODEL/training_log.json")
    keys = [key for key in QUEUE if any(key in entry for log in told.values() for entry in log)]
    if "queue_age" not in keys:
        made.say("These trainings had no queue; what they dropped among the products of their batches:")
    panels: dict[str, dict[str, list]] = {QUEUE[key]: {} for key in keys}
    for file, log in told.items():
        for key in keys:
            values = [(entry["step"], entry[key]) for entry in log if key in entry]
            if values:
                panels[QUEUE[key]][file.removesuffix("/training_log.json")] = values
    made.draw("queues", "what the queue held as training went on; the table below has the last values", histories("queues", panels))
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    body = [[name, *(f"{lines[name][-1][1]:.4g}" if name in lines else "–" for lines in panels.values())] for name in names]
    made.say(table(["last value", *panels], body))


def origin(made: Report, found: Found) -> None:
    """Which files, which versions."""
    body = []
    for file, one in (*found.results.items(), *((f"study {name}", one) for name, one in found.studies.items()), *found.certificates.items()):
        with_ = one.get("environment", {})
        packages = ", ".join(f"{name} {with_[name]}" for name in ("lira-hf", "torch", "transformers", "datasets", "python") if with_.get(name))
        body.append([file, with_.get("commit") or "not recorded", packages or "not recorded"])
    made.say(f"Rendered from the files of `{found.folder.resolve().name}` by `lira-hf report`.")
    if body:
        made.say(table(["file", "commit of lira-hf", "versions"], body))
    if found.others:
        made.say(f"Also there, and not shown on this page: {', '.join(f'`{name}`' for name in found.others)}.")
