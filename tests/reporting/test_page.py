"""The report: everything that is there is shown, everything that is not is said to be missing, and the page needs nothing beside itself."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
import study_files
import yaml
from markdown_it import MarkdownIt

from lira_hf.reporting import results
from lira_hf.reporting.page import Report, html, report
from lira_hf.reporting.plots import looks
from lira_hf.reporting.tables import LABELS, kinds_of_query

PARTS = ("ablation study", "noise study", "few-shot study", "study of backbones", "certificate", "training log", "results by kind of query")


def laz(**more):
    systems = {name: study_files.system(80.25 + place) for place, name in enumerate(("concat", "lira"))}
    return results(systems, benchmark="LazRetrieval small (synthetic), tiny backbones", model="/home/somebody/models/mine", seeds=[0]) | more


def certificate():
    group = {name: {"p50": 0.5, "p95": 1.0} for name in ("deviation", "bound_blind", "epsilon1")}
    card = {"title": "Certificate (empirical), data, test", "header": ["", "|z - z*| p95", "bound"], "rows": [["all", "1.32", "3.74"], ["th", "1.39", "–"]],
            "notes": ["violated: |h(y) - h(y*)| <= c of KL(y*, y)"]}  # fmt: skip
    return {"word": "empirical", "model": "mine", "constants": {}, "overall": group, "languages": {"th": group}, "slices": {}, "card": card}


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder of all kinds of results, and the folder of their report."""
    folder, output = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("report")
    log = [{"step": step, "queue_filled": 10 * step, "queue_age": 2.5, "queue_drift": 0.125, "dropped_negatives": 0.01} for step in (20, 40)]
    studies = {name: make() for name, make in study_files.STUDIES.items()}
    together = laz(studies=["ablation"], benchmark="LazRetrieval of all studies together")
    write(
        folder,
        quickstart=laz(),
        model__results__laz=laz(),
        certificate=certificate(),
        model__training_log=log,
        results=together,
        mega={"rows": 5},
        **studies,
    )
    report(folder, output)
    return output


class Page(HTMLParser):
    """What a page asks for from elsewhere, its ids and links, and the tables that are in no box of their own."""

    def __init__(self, text):
        super().__init__()
        self.asked, self.ids, self.links, self.open, self.loose = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.asked += [value for name, value in attributes if name in ("src", "srcset", "data", "xlink:href") or (tag == "link" and name == "href")]
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loose += tag == "table" and self.open[-1] != ("div", "wide")
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append((tag, given.get("class")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag


def test_the_page_needs_nothing_beside_itself(everything):
    text = (everything / "index.html").read_text()
    page = Page(text)
    assert all(value.startswith("#") for value in page.asked) and "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(set(page.ids)) == len(page.ids) and {link.removeprefix("#") for link in page.links} <= set(page.ids) and len(page.links) == 9
    assert page.open == [] and page.loose == 0 and text.count("<table>") > 20
    drawings = sorted(path.stem for path in (everything / "drawings").glob("*.svg"))
    assert drawings == sorted(["slices-0", "ablation", "noise-mixed", "noise-wrong_type", "few-shot", "backbones", "certificate-0", "queues"])
    assert text.count("<svg") == len(drawings) and "<img" not in text


def test_the_markdown_has_the_numbers_and_names_its_drawings(everything):
    text = (everything / "report.md").read_text()
    assert set(re.findall(r"\]\(drawings/([\w-]+)\.svg\)", text)) == {path.stem for path in (everything / "drawings").glob("*.svg")}
    for shown in (
        "| without the LLM critic | 79.2 | -2.2 (-3.8 to -0.8) | yes | -2.2 | -2.2 |", "| without the queue | 82.0 | +0.5 (-1.0 to +2.0) | no |",
        "without translation is multilingual path, trained;", "less than half is lost.", "**it is not shown that less than half is lost.**",
        "| LiRA | 78.0 (77.3 to 78.9) |", "; above at every point.", "; **not above at every point**.", "qwen3, 2 layers, 128 wide, 699,264",
        "| model | 400 | 2.5 | 0.125 | 0.01 |", "not shown on this page: `mega.json`.", "model `mine`; one model, measured once",
    ):  # fmt: skip
        assert shown in text
    assert "**Missing**: the folder holds no results of MGSM" in text and not any(f"holds no {part}" in text for part in PARTS)
    assert text.count("LazRetrieval small") == 2  # its table and its slices: neither the copy in the model's folder nor all studies together
    assert "/home/somebody" not in text and "all studies together" not in text


def test_every_table_is_rectangular_whatever_its_cells_hold(everything):
    rows = []
    for token in MarkdownIt("commonmark").enable("table").parse((everything / "report.md").read_text()):
        if token.type == "thead_open":
            rows.append([])
        if token.type == "tr_open":
            rows[-1].append(0)
        if token.type in ("th_open", "td_open"):
            rows[-1][-1] += 1
    assert len(rows) > 20 and all(len(set(cells)) == 1 and len(cells) > 1 for cells in rows)
    page = (everything / "index.html").read_text()
    assert "<th>|z - z*| p95</th>" in page and "violated: |h(y) - h(y*)| &lt;= c of KL(y*, y)" in page


def test_what_is_missing_is_said_to_be_missing(tmp_path):
    one = laz(benchmark="<script>alert(1)</script> (imported)", systems={"lira": {"languages": {"th": 50.0}, "average": 50.0}})
    write(tmp_path, shop=one)
    page = report(tmp_path, tmp_path / "out").read_text()
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(f"holds no {part}" in text for part in PARTS) and text.count("**Missing**") == len(PARTS) + 6
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "Synthetic data" not in text and "Tiny backbones" not in text


def test_the_same_results_give_the_same_bytes(everything, tmp_path):
    folder = write(tmp_path, quickstart=laz(), noise=study_files.noise())
    first, second = (report(folder, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_published_scores_say_where_they_are_from():
    anchors = yaml.safe_load((files("lira_hf.reporting") / "anchors.yaml").read_text())
    for anchor in anchors:
        assert anchor["source"] and anchor["what"] and all(len(values) == len(anchor["columns"]) for values in anchor["rows"].values())
        assert all(0 < value < 100 for values in anchor["rows"].values() for value in values if value is not None)
        assert ("summaries" in anchor["source"]) == anchor.get("second_hand", False)
    assert {anchor["task"] for anchor in anchors} == {"LazRetrieval", "BelebeleRetrieval", "MLQARetrieval", "STS22", "MGSM", "X-CSQA", "ablation"}


def test_lines_are_told_apart_without_colour():
    labels = [LABELS["lira"], LABELS["concat"], "one", "another", "a third"]
    chosen = looks(labels)
    assert len({(look["marker"], look["linestyle"]) for look in chosen.values()}) == len(labels)
    assert looks(["other", LABELS["lira"]])[LABELS["lira"]] == chosen[LABELS["lira"]]


def test_a_heading_of_letters_outside_ascii_can_be_linked():
    made = Report()
    made.say("## Ổ cứng, 1 TB", "[there](#ổ-cứng-1-tb)")
    assert 'id="ổ-cứng-1-tb"' in html(made)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is no folder"), ({"a.txt": "x"}, "holds no results"), ({"a.json": '{"benchmark"'}, "a.json .* cannot be read")]
)
def test_a_folder_without_results_is_refused(tmp_path, content, message):
    folder = tmp_path / "given"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"results: .*{message}"):
        report(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_kinds_of_query_are_told_apart_by_their_intervals():
    differences = {
        name: {"mean": sum(ends) / 2, "interval": ends} for name, ends in {"typo": [1.0, 2.0], "clean": [-0.5, 1.5], "unseen": [-3.0, -1.0]}.items()
    }
    said = kinds_of_query(differences, "the rest")
    assert said == "LiRA is above the rest on typo; not surely above or below on clean; **below on unseen -2.0 (-3.0 to -1.0)**."
