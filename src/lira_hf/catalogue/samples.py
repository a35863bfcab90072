"""Pages on which somebody who speaks a language can judge fifty rows of a built data set in five minutes.

One file for each language, complete in itself: it opens from a disk or a mail, needs no network and sends nothing. The
verdicts are copied as lines of text, row id and verdict apart by a tab.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from random import Random
from typing import Any

from lira_hf.catalogue.folder import new_folder
from lira_hf.catalogue.letters import script_of
from lira_hf.catalogue.tables import read_rows
from lira_hf.languages import LANGUAGES

GRADES = {3: "exact", 2: "one attribute wrong", 1: "goes with it", 0: "unrelated"}
SLICES = {
    "clean": "as written with care",
    "code_mixed": "some words in English",
    "encoding": "another keyboard or encoding; may look right",
    "long_tail": "a product type that few ask for",
    "joined_split": "words run together or cut",
    "no_marks": "typed without marks",
    "romanised": "in Latin letters, without a fixed spelling",
    "typo": "a slip of the finger",
    "unseen": "a product type that no training row names",
}
RIGHT_TO_LEFT = "Arab"


def write_samples(folder: str | Path, output: str | Path, count: int = 50, seed: int = 0) -> Path:
    """Write index.html and one page for each language of the data set in `folder`; returns `output`.

    A page shows `count` test rows (all, where there are fewer), drawn by `seed` with equal shares for all slices as far
    as they reach. `output` appears whole or not at all. Raises ValueError for a wrong argument, for a folder without a
    test split, and for an `output` that is not new or empty.
    """
    folder, output = Path(folder), Path(output)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: {count!r} is not allowed; give an integer of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {seed!r} is not allowed; give an integer")
    codes = [code for code in LANGUAGES if (folder / code).is_dir()]
    if not codes:
        raise ValueError(f"folder: {str(folder)!r} holds no language; give a folder of `lira-hf data build`")
    with new_folder(output) as root:
        shown = {}
        for code in codes:
            total, rows = read_rows(folder, code, "", "test")
            chosen = choose(rows, count, Random(f"{seed}/{code}"))
            products = {product["_id"]: product for product in read_rows(folder, code, "-corpus", "test", ["_id", "title", "text", "english"])[1]}
            (root / f"{code}.html").write_text(_page(code, chosen, products, seed), encoding="utf-8")
            shown[code] = (chosen, total)
        (root / "index.html").write_text(_index(shown), encoding="utf-8")
    return output


def choose(rows: Sequence[Mapping[str, Any]], count: int, rng: Random) -> list[Mapping[str, Any]]:
    """`count` of `rows`, or all: the slices take turns, rarest first, each with its next row in a random order.

    They come back by slice, then by id.
    """
    shuffled = rng.sample(list(rows), len(rows))
    sizes = Counter(tag for row in rows for tag in row["slice"])
    waiting = {tag: [row for row in reversed(shuffled) if tag in row["slice"]] for tag in sorted(sizes, key=lambda tag: (sizes[tag], tag))}
    taken: dict[str, Mapping[str, Any]] = {}
    while len(taken) < min(count, len(rows)):
        for queue in waiting.values():
            while queue and queue[-1]["query_id"] in taken:
                queue.pop()
            if queue and len(taken) < count:
                row = queue.pop()
                taken[row["query_id"]] = row
    return sorted(taken.values(), key=lambda row: (row["slice"], row["query_id"]))


def _page(code: str, rows: Sequence[Mapping[str, Any]], products: Mapping[str, Mapping[str, str]], seed: int) -> str:
    """The page of one language."""
    name = LANGUAGES[code].name
    tags = sorted({tag for row in rows for tag in row["slice"]})
    legend = "".join(f"<li><b>{escape(tag)}</b> {escape(SLICES.get(tag, ''))}</li>" for tag in tags)
    direction = "rtl" if LANGUAGES[code].script == RIGHT_TO_LEFT else "ltr"
    articles = "\n".join(_article(number, row, products, seed) for number, row in enumerate(rows, start=1))
    return _document(
        f"{name}: {len(rows)} rows to judge",
        f"""<header>
<h1>{escape(name)}: {len(rows)} rows to judge</h1>
<p>A program made these shop searches and products from hand-written words; nobody searched for them and nobody sells them. You speak {escape(name)}:
please say of each row whether it is <b>right</b> or <b>wrong</b>. Right means that somebody could type this search, that the English says the same,
and that the grades of the products make sense. Searches are untidy on purpose; the label says in which way:</p>
<ul class="legend">{legend}</ul>
<p>Time is short? Mark only what is wrong, then press “The rest is right”. At the end press “Copy my verdicts” and send us what was copied.</p>
</header>
<main lang="{code}" dir="{direction}">
{articles}
</main>
<footer>
<p><button type="button" id="rest">The rest is right</button> <button type="button" id="copy">Copy my verdicts</button>
<output id="state"></output></p>
<textarea id="verdicts" readonly rows="6" aria-label="my verdicts, one row on each line"></textarea>
<p>One line for each row you judged: its id, a tab, your verdict. Without the buttons, write us the ids of wrong rows.
<a href="index.html">All languages</a></p>
</footer>
<script>{SCRIPT}</script>""",
    )


def _article(number: int, row: Mapping[str, Any], products: Mapping[str, Mapping[str, str]], seed: int) -> str:
    """One row to judge."""
    code, id_ = row["language"], row["query_id"]
    tags = " ".join(f'<span class="tag">{escape(tag)}</span>' for tag in row["slice"])
    clean = "as typed" if row["clean"] == row["query"] else _text(row["clean"], code)
    shown = "\n".join(_product(grade, products[product_id], code) for grade, product_id in _one_of_each_grade(row, seed))
    return f"""<article data-id="{escape(id_)}">
<p class="top" lang="en" dir="ltr"><b>{number}</b> {tags} <code>{escape(id_)}</code></p>
<h2>{_text(row["query"], code)}</h2>
<dl lang="en" dir="ltr">
<dt>means</dt><dd>{escape(row["english"])}</dd>
<dt>wanted</dt><dd>{_intent(row["intent"])}</dd>
<dt>tidy form</dt><dd>{clean}</dd>
</dl>
<table class="products">
{shown}
</table>
<details lang="en" dir="ltr"><summary>{len(row["translations"])} simulated translations and their scores, 1 to 10</summary>
<table><tr><th>text</th><th>kind</th><th>sense</th><th>tone</th><th>style</th></tr>
{"".join(_candidate(candidate) for candidate in row["translations"])}</table></details>
<p class="verdict" lang="en" dir="ltr">
<label><input type="radio" name="{escape(id_)}" value="right"> right</label>
<label><input type="radio" name="{escape(id_)}" value="wrong"> wrong</label>
<input type="text" placeholder="what is wrong? (any language)" aria-label="what is wrong" dir="auto"></p>
</article>"""


def _text(text: str, code: str) -> str:
    """A text of a language, told to the browser as what it is: romanised Urdu runs from left to right."""
    script = script_of(text, code)
    tongue = code if script == LANGUAGES[code].script else f"{code}-{script}"
    return f'<bdi lang="{tongue}" dir="{"rtl" if script == RIGHT_TO_LEFT else "ltr"}">{escape(text)}</bdi>'


def _intent(intent: str) -> str:
    """The intent in words: torch · material plastic · colour yellow."""
    found = json.loads(intent)
    parts = [found["type"].replace("_", " "), *(f"{axis} {value}" for axis, value in found["wanted"].items())]
    return escape(" · ".join(parts))


def _one_of_each_grade(row: Mapping[str, Any], seed: int) -> list[tuple[int, str]]:
    """A product of each grade the row has, best first; which one, the seed and the row's id decide."""
    rng = Random(f"{seed}/{row['query_id']}")
    judged = list(zip(row["relevances"], row["product_ids"], strict=True))
    pools = {grade: sorted(id_ for each, id_ in judged if each == grade) for grade in GRADES}
    return [(grade, rng.choice(pool)) for grade, pool in pools.items() if pool]


def _product(grade: int, product: Mapping[str, str], code: str) -> str:
    more = f'<div class="more">{_text(product["text"], code)}</div>' if product["text"] else ""
    return (
        f'<tr><th class="grade{grade}" lang="en" dir="ltr">{grade} <small>{GRADES[grade]}</small></th>'
        f'<td>{_text(product["title"], code)}{more}<div class="english" lang="en" dir="ltr">{escape(product["english"])}</div></td></tr>'
    )


def _candidate(candidate: Mapping[str, Any]) -> str:
    scores = "".join(f"<td>{candidate[axis]}</td>" for axis in ("semantic", "emotional", "pragmatic"))
    return f"<tr><td>{escape(candidate['text'])}</td><td>{escape(candidate['source'])}</td>{scores}</tr>\n"


def _index(shown: Mapping[str, tuple[Sequence[Mapping[str, Any]], int]]) -> str:
    """The page that leads to the others; `shown` maps a language to its chosen rows and how many there are in all."""
    lines = []
    for code, (rows, total) in shown.items():
        counts = Counter(tag for row in rows for tag in row["slice"])
        slices = ", ".join(f"{tag} {number}" for tag, number in sorted(counts.items()))
        link = f'<a href="{code}.html">{escape(LANGUAGES[code].name)}</a>'
        lines.append(f"<tr><td>{link}</td><td>{len(rows):,} of {total:,}</td><td>{escape(slices)}</td></tr>")
    return _document(
        "LazRetrieval, synthetic: rows to judge",
        f"""<header><h1>LazRetrieval, synthetic: rows to judge</h1>
<p>Product searches that a program made from hand-written words. If you speak one of these languages, five minutes of yours show us where the words
are wrong. Each page works without a network and sends nothing.</p></header>
<table><tr><th>language</th><th>test rows shown</th><th>by slice (a row may be in two)</th></tr>
{"".join(lines)}
</table>""",
    )


def _document(title: str, body: str) -> str:
    """A whole HTML document; its policy forbids the browser to fetch anything."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #666; --line: #d5d5d5; --card: #f7f7f5; }
@media (prefers-color-scheme: dark) { :root { --paper: #161616; --ink: #ececec; --soft: #a5a5a5; --line: #3d3d3d; --card: #202020; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Noto Sans", "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
:lang(th) { font-family: "Noto Sans Thai Looped", "Noto Sans Thai", "Leelawadee UI", Thonburi, Loma, Garuda, Tahoma, "Noto Sans", sans-serif; }
:lang(bn) { font-family: "Noto Sans Bengali", "Nirmala UI", "Kohinoor Bangla", "Bangla Sangam MN", Vrinda, "Noto Sans", sans-serif; }
:lang(ur) { font-family: "Noto Nastaliq Urdu", "Jameel Noori Nastaleeq", "Urdu Typesetting", "Awami Nastaliq",
  "Noto Naskh Arabic", "Geeza Pro", "Noto Sans", sans-serif; }
bdi:lang(ur) { line-height: 2.2; }
:lang(en), :lang(th-Latn), :lang(bn-Latn), :lang(ur-Latn) {
  font-family: system-ui, "Noto Sans", "Segoe UI", "Helvetica Neue", Arial, sans-serif; line-height: 1.5; }
bdi { display: block; overflow-wrap: anywhere; }
bdi[dir=ltr] { text-align: left; }
main[dir=rtl] td bdi, main[dir=rtl] .english { text-align: right; }  /* a title and its English stay together */
dd bdi { display: inline-block; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.4rem; font-weight: 600; margin: .2rem 0 .4rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: 0 0 1rem; padding: .7rem 1rem; }
article.wrong { border-color: #c0392b; } article.right { border-color: #2e8b57; }
.top { display: flex; flex-wrap: wrap; gap: .5rem; align-items: baseline; margin: 0; color: var(--soft); font-size: .85rem; }
.top code { margin-left: auto; user-select: all; }
.tag { border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; }
.legend { columns: 2 16rem; font-size: .9rem; padding-left: 1.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .7rem; margin: 0 0 .5rem; font-size: .95rem; }
dt { color: var(--soft); } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
td, th { border-top: 1px solid var(--line); padding: .25rem .4rem; text-align: start; vertical-align: top; }
.products th { width: 7.5rem; font-weight: 600; } .products small { display: block; font-weight: 400; color: var(--soft); }
.more { font-size: .9rem; } .english { color: var(--soft); font-size: .88rem; }
.grade3 { border-left: .3rem solid #2e8b57; } .grade2 { border-left: .3rem solid #c9a227; }
.grade1 { border-left: .3rem solid #c96f27; } .grade0 { border-left: .3rem solid #999; }
details { margin-top: .5rem; font-size: .85rem; color: var(--soft); }
.verdict { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; margin: .6rem 0 0; }
.verdict label { cursor: pointer; padding: .2rem 0; } .verdict input[type=text] { flex: 1 1 12rem; font: inherit; padding: .2rem .4rem; }
textarea { width: 100%; font: .85rem/1.4 monospace; } button { font: inherit; padding: .3rem .8rem; }
"""

SCRIPT = """
"use strict";
const articles = [...document.querySelectorAll("article")];
const area = document.getElementById("verdicts"), state = document.getElementById("state");
const chosen = article => article.querySelector("input[type=radio]:checked")?.value;
const note = article => article.querySelector("input[type=text]").value.replace(/\\s+/g, " ").trim();
function refresh() {
  const lines = [];
  for (const article of articles) {
    const verdict = chosen(article);
    article.classList.toggle("right", verdict === "right");
    article.classList.toggle("wrong", verdict === "wrong");
    if (verdict) lines.push(article.dataset.id + "\\t" + verdict + (note(article) ? ": " + note(article) : ""));
  }
  area.value = lines.join("\\n");
  state.value = lines.length + " of " + articles.length + " judged";
}
document.querySelector("main").addEventListener("input", event => {
  if (event.target.type === "text" && event.target.value && !chosen(event.target.closest("article")))
    event.target.closest("article").querySelector("[value=wrong]").checked = true;
  refresh();
});
document.getElementById("rest").addEventListener("click", () => {
  for (const article of articles) if (!chosen(article)) article.querySelector("[value=right]").checked = true;
  refresh();
});
document.getElementById("copy").addEventListener("click", () => {
  refresh();
  area.select();  // where the browser forbids copying, the lines stay selected for Ctrl+C
  const copied = document.execCommand("copy");
  state.value += copied ? ", copied" : "; press Ctrl+C";
});
refresh();
"""
