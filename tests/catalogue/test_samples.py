"""The pages for speakers: what a reader of the HTML finds on them, and that nothing on them comes from outside."""

import re
from collections import Counter
from html.parser import HTMLParser
from random import Random

import pyarrow.parquet as pq
import pytest

from lira_hf.catalogue.samples import choose, write_samples
from lira_hf.catalogue.tables import table_path, write_table
from lira_hf.languages import LANGUAGES

_VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Parses a page strictly: every tag closed in order. Keeps tags with attributes and, for each <article>, its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.articles, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append((dict(attributes)["data-id"], []))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "article" in self.open:
            self.articles[-1][1].append(data.strip())


@pytest.fixture(scope="module")
def samples(built, tmp_path_factory):
    return write_samples(built, tmp_path_factory.mktemp("samples") / "pages")


@pytest.fixture(scope="module")
def pages(samples):
    return {code: Page((samples / f"{code}.html").read_text(encoding="utf-8")) for code in LANGUAGES}


@pytest.mark.parametrize("code", LANGUAGES)
def test_page_shows_what_a_speaker_needs(code, pages, read):
    rows = {row["query_id"]: row for row in read(code, "", "test")}
    products = {product["_id"]: product for product in read(code, "-corpus", "test")}
    assert len(pages[code].articles) == len({id_ for id_, _ in pages[code].articles}) == 50
    for id_, texts in pages[code].articles:
        row = rows[id_]
        assert {row["query"].strip(), row["english"], *row["slice"]} <= set(texts)
        assert (row["clean"] if row["clean"] != row["query"] else "as typed") in texts
        assert {candidate["text"] for candidate in row["translations"]} <= set(texts)
        titles = {grade: set() for grade in row["relevances"]}
        for product_id, grade in zip(row["product_ids"], row["relevances"], strict=True):
            titles[grade].add((products[product_id]["title"].strip(), products[product_id]["english"]))
        for pairs in titles.values():
            assert any(title in texts and english in texts for title, english in pairs)


def test_slices_have_equal_shares_as_far_as_they_reach(pages, read):
    for code, page in pages.items():
        rows = {row["query_id"]: row for row in read(code, "", "test")}
        available = Counter(tag for row in rows.values() for tag in row["slice"])
        shown = Counter(tag for id_, _ in page.articles for tag in rows[id_]["slice"])
        assert all(shown[tag] >= min(available[tag], 50 // len(available)) - 1 for tag in available)


def test_choice_depends_on_the_seed_only(built, samples, tmp_path):
    again = write_samples(built, tmp_path / "again")
    other = write_samples(built, tmp_path / "other", seed=1)
    for name in ("index.html", "th.html", "ur.html"):
        assert (again / name).read_bytes() == (samples / name).read_bytes()
    assert (other / "th.html").read_bytes() != (samples / "th.html").read_bytes()


def test_rarest_slice_is_taken_whole_before_the_rest_fills_up():
    rows = [{"query_id": f"q{n}", "slice": ["clean"]} for n in range(40)]
    rows += [{"query_id": f"r{n}", "slice": ["typo", "unseen"] if n == 0 else ["typo"]} for n in range(3)]
    chosen = choose(rows, 10, Random(0))
    assert Counter(row["slice"][0] for row in chosen) == {"clean": 7, "typo": 3}
    assert [row["query_id"] for row in choose(rows, 100, Random(0))] == sorted(
        (row["query_id"] for row in rows), key=lambda id_: (id_[0] == "r", id_ == "r0", id_)
    )
    assert len(choose(rows, 1, Random(0))) == 1


def test_pages_need_nothing_from_outside(samples, pages):
    for page in (*pages.values(), Page((samples / "index.html").read_text(encoding="utf-8"))):
        links = [value for tag, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "action", "srcset")]
        assert set(links) <= {"index.html", *(f"{code}.html" for code in LANGUAGES)}
        assert not {"img", "link", "iframe", "form"} & {tag for tag, _ in page.tags}
        style = "".join(page.texts)
        assert "url(" not in style and "@import" not in style
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")


def test_urdu_runs_from_right_to_left_and_its_romanised_rows_do_not(pages, read):
    main = {code: next(a for tag, a in page.tags if tag == "main") for code, page in pages.items()}
    assert {code: a["dir"] for code, a in main.items()} == {code: "rtl" if code == "ur" else "ltr" for code in LANGUAGES}
    assert all(a["lang"] == code for code, a in main.items())
    texts = [(a["lang"], a["dir"]) for tag, a in pages["ur"].tags if tag == "bdi"]
    assert set(texts) == {("ur", "rtl"), ("ur-Latn", "ltr")}
    assert set((a["lang"], a["dir"]) for tag, a in pages["bn"].tags if tag == "bdi") == {("bn", "ltr"), ("bn-Latn", "ltr")}


def test_each_row_takes_a_verdict_under_its_id(pages):
    for page in pages.values():
        radios = Counter(a["name"] for tag, a in page.tags if tag == "input" and a["type"] == "radio")
        assert radios == {id_: 2 for id_, _ in page.articles}
        assert {a["id"] for tag, a in page.tags if tag in ("button", "textarea")} == {"rest", "copy", "verdicts"}


def test_index_counts_and_links(samples):
    page = Page((samples / "index.html").read_text(encoding="utf-8"))
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"{code}.html" for code in LANGUAGES]
    assert page.texts.count("50 of 240") == 7


def test_texts_are_escaped_and_shards_joined(built, tmp_path, read):
    evil = '<script>alert("x")</script> & "q" \'q\''
    rows = [dict(row) for row in read("id", "", "test")[:4]]
    rows[0] |= {"query": evil, "clean": evil + "!", "english": evil, "slice": ["<b>"], "query_id": 'q"<i>'}
    rows[0]["translations"] = [{"text": evil, "source": "<u>", "semantic": 1, "emotional": 1, "pragmatic": 1}]
    rows[0]["intent"] = '{"type": "<s>", "wanted": {"<em>": "<u>"}}'
    products = [{**product, "title": evil, "text": evil, "english": evil} for product in read("id", "-corpus", "test")]
    for number, shard in enumerate((rows[:1], rows[1:])):
        write_table(tmp_path / "data" / "id" / f"test-{number:05d}-of-00002.parquet", "", shard)
    write_table(table_path(tmp_path / "data", "id", "-corpus", "test"), "-corpus", products)
    text = (write_samples(tmp_path / "data", tmp_path / "out") / "id.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.articles) == 4 and len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert not {"s", "i", "u", "em"} & {tag for tag, _ in page.tags}
    assert sum(data.strip() == evil for data in page.texts) >= 3 and "<b><" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: 0 is not allowed"),
        ({"count": True}, "count: True is not allowed"),
        ({"seed": "x"}, "seed: 'x' is not allowed"),
        ({"output": "."}, "output: .* exists; give a new or empty folder"),
        ({"folder": "nowhere"}, "folder: .*nowhere.* holds no language"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message, built, tmp_path):
    (tmp_path / "kept.txt").touch()
    arguments = {name: tmp_path / value if name in ("folder", "output") else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        write_samples(**{"folder": built, "output": tmp_path / "out", **arguments})
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path, read):
    write_table(table_path(tmp_path / "data", "id", "", "test"), "", read("id", "", "test"))
    with pytest.raises(ValueError, match="has no rows in id-corpus/test-"):
        write_samples(tmp_path / "data", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert pq.read_metadata(table_path(tmp_path / "data", "id", "", "test")).num_rows == 240


def test_there_is_a_dark_and_a_light_page(samples):
    style = re.search(r"<style>(.*?)</style>", (samples / "th.html").read_text(encoding="utf-8"), re.DOTALL)[1]
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    variables = [set(re.findall(r"(--\w+):", part)) for part in (light, dark)]
    assert variables[0] == variables[1] == set(re.findall(r"var\((--\w+)\)", style))
