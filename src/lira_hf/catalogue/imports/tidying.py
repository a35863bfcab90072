"""Texts without what shops leave in them, and tables that name each other by id.

HTML entities and tags, control, invisible and replacement characters are removed, white space is collapsed, the rest is NFC.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata

import pandas as pd
from tqdm import tqdm

from lira_hf.catalogue.imports.reading import as_text
from lira_hf.catalogue.imports.report import Report
from lira_hf.catalogue.splits import digest

# Named ones only, so that "size <XL>" stays.
INLINE = "a|b|i|u|s|em|strong|span|font|small|big|sub|sup|mark"
BLOCK = "o:p|abbr|acronym|address|article|aside|audio|blockquote|body|br|button|caption|center|cite|code|col|colgroup|dd|del|details|div|dl|dt"
BLOCK += "|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|ins|label|li|link|main|meta|nav|ol|option|p|picture|pre"
BLOCK += "|section|select|source|summary|svg|table|tbody|td|template|tfoot|th|thead|title|tr|ul|video"
HIDDEN_HTML = re.compile(r"<!--.*?-->|<!doctype[^>]*>|<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
INLINE_HTML, BLOCK_HTML = (re.compile(rf"</?(?:{tags})(?:\s[^<>]*)?/?>", re.IGNORECASE) for tags in (INLINE, BLOCK))
# Controls but white space, soft hyphen, zero-width space, direction marks, byte order mark, and what stands for a lost letter.
# The joiners stay: Bengali and Urdu need them.
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]")


def tidy(text: str) -> str:
    """`text` by the rules of this module."""
    text = html.unescape(text)
    if "<" in text:
        text = BLOCK_HTML.sub(" ", INLINE_HTML.sub("", HIDDEN_HTML.sub(" ", text)))
    text = html.unescape(text)  # shops escape twice: &amp;nbsp;
    return unicodedata.normalize("NFC", " ".join(INVISIBLE.sub("", text).split()))


def tidied(frame: pd.DataFrame, name: str, progress: bool) -> pd.Series:
    """The column `name` tidied, or empty texts where it is missing; equal texts are tidied once."""
    if name not in frame:
        return pd.Series("", index=frame.index, dtype=object)
    texts = tqdm(frame[name].unique(), desc=f"tidying {name}", unit="text", leave=False, disable=not progress)
    return frame[name].map({text: tidy(text) for text in texts}).astype(object)


def attributes(features: str, colour: str) -> str:
    """JSON {axis: value} of features, either JSON or "axis:value|axis:value", and of a colour; values of one axis are joined."""
    found: dict[str, str] = {}
    try:
        pairs = list(json.loads(features).items())
    except (ValueError, AttributeError):  # no JSON, or no object
        pairs = [part.partition(":")[::2] for part in features.strip("{}").split("|")]
    for axis, value in pairs:
        axis, value = tidy(axis), tidy(as_text(value))
        if axis and value:
            found[axis] = f"{found[axis]}, {value}" if axis in found else value
    if colour:
        found.setdefault("colour", colour)
    return json.dumps(found, ensure_ascii=False)


def products_of(frame: pd.DataFrame, shared: bool, report: Report, progress: bool) -> pd.DataFrame:
    """Columns id, title, text, brand, category_path, family_id and attributes. A file `shared` with the judgements may repeat a product."""
    frame = frame.assign(title=tidied(frame, "title", progress))
    frame = report.without("products", frame, frame["id"] == "", "no id")
    frame = report.without("products", frame, frame["title"] == "", "empty title")
    twice = frame.duplicated("id")
    frame = frame[~twice] if shared else report.without("products", frame, twice, "id used before (the first is kept)")
    blank = pd.Series("", index=frame.index, dtype=object)
    family = frame.get("family", blank)
    pairs = zip(frame.get("features", blank), tidied(frame, "colour", progress), strict=True)
    return pd.DataFrame(
        {
            "id": frame["id"],
            "title": frame["title"],
            "text": (tidied(frame, "description", progress) + " " + tidied(frame, "bullets", progress)).str.strip(),
            "brand": tidied(frame, "brand", progress),
            "category_path": tidied(frame, "category", progress).str.replace(r"\s*>\s*|\s+/\s+", "/", regex=True),
            "family_id": family.where(family != "", frame["id"]),
            "attributes": pd.Series([attributes(*pair) for pair in pairs], index=frame.index, dtype=object),
        }
    )


def queries_of(asked: pd.DataFrame | None, judged: pd.DataFrame, report: Report, progress: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries (id, text, and split if given) and judgements that name them by id (query).

    `asked`: None where the judgements hold the queries. Raises ValueError where the two cannot be joined.
    """
    if "text" in judged:
        judged = judged.assign(text=tidied(judged, "text", progress))
    if asked is None:
        if "text" not in judged:
            raise ValueError("queries: the judgements hold no text of queries; give the file that does")
        if "query" not in judged:
            judged = judged.assign(query=judged["text"].map(_text_id))
        asked = judged.drop_duplicates("query").assign(id=lambda first: first["query"])
        first = judged["query"].map(asked.set_index("id")["text"])
        judged = report.without("judgements", judged, judged["text"] != first, "its query id has another text before")
    else:
        asked = asked.assign(text=tidied(asked, "text", progress))
        by_text = "id" not in asked or "query" not in judged
        if by_text and "text" not in judged:
            raise ValueError("judgements: no column names the query in a way that the queries do; both need a query_id, or both the text")
        if "id" not in asked:
            asked = asked.assign(id=asked["text"].map(_text_id))
        if by_text:
            judged = judged.assign(query=judged["text"].map(asked.drop_duplicates("text").set_index("text")["id"]).fillna(""))
    asked = report.without("queries", asked, asked["id"] == "", "no id")
    asked = report.without("queries", asked, asked["text"] == "", "empty query")
    asked = report.without("queries", asked, asked.duplicated("id"), "id used before (the first is kept)")
    if "split" not in asked and "split" in judged:
        asked = asked.assign(split=asked["id"].map(judged.drop_duplicates("query").set_index("query")["split"]).fillna(""))
    return asked[[name for name in ("id", "text", "split") if name in asked]], judged


def _text_id(text: str) -> str:
    return f"q-{digest(text):016x}"
