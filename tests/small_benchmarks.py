"""The public benchmarks' data sets in small: the same configurations, columns and types, with texts of our own."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "ทีวี นิ้ว ชุด แดง ดำ tivi áo đỏ nồi cơm ফোন জুতা লাল টেলিভিশন کپڑا سرخ جوتا sepatu merah baju hitam rice cooker tv red dress shoe".split()


def sentence(rng: random.Random, length: int = 6) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def write_folder(folder: Path, tables: dict[str, dict[str, list[dict]]], schemas: dict | None = None) -> Path:
    """Configuration -> split -> rows as Parquet, and the card that names them, as on the Hub."""
    configs = []
    for config, splits in tables.items():
        files = []
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=(schemas or {}).get(config)), path)
            files.append({"split": split, "path": f"{config}/{split}-*"})
        configs.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text("---\n" + json.dumps({"configs": configs}) + "\n---\n")
    return folder


def belebele(folder: Path, codes: list[str], passages: int = 12) -> Path:
    """mteb/belebele: a configuration for each FLORES code; two questions for each passage."""
    tables = {}
    for code in codes:
        rng = random.Random(code)
        texts = [sentence(rng, 12) for _ in range(passages)]
        rows = [
            {"link": f"https://example.org/{i}", "question_number": number, "flores_passage": text, "question": f"{sentence(rng, 2)} {' '.join(text.split()[:3])} {i}.{number}",
             "mc_answer1": "a", "correct_answer_num": "1", "dialect": code}
            for i, text in enumerate(texts) for number in (1, 2)
        ]  # fmt: skip
        tables[code] = {"test": rows}
    return write_folder(folder, tables)


def mlqa(folder: Path, pairs: tuple[str, ...] = ("vie-vie",), extra: bool = False) -> Path:
    """mteb/MLQARetrieval: three configurations for each pair; with extra, documents and queries carry their translations."""
    tables = {}
    for pair in pairs:
        rng = random.Random(pair)
        documents = [{"_id": f"d{i}", "title": "", "text": sentence(rng, 10)} for i in range(20)]
        queries = [{"_id": f"q{i}", "text": " ".join(documents[i]["text"].split()[:4])} for i in range(10)]
        if extra:
            for row in (*documents, *queries):
                row["translations"] = json.dumps([{"text": sentence(rng, 4), "semantic": 9, "emotional": 8, "pragmatic": 7}, sentence(rng, 3)])
        judged = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(10)]
        for name, rows in (("corpus", documents), ("queries", queries), ("qrels", judged)):
            tables[f"{pair}-{name}"] = {split: rows for split in ("validation", "test")}
    return write_folder(folder, tables)


def sts22(folder: Path, subsets: tuple[str, ...]) -> Path:
    """mteb/sts22-crosslingual-sts: one configuration, the subset in a column."""
    rng = random.Random(0)
    rows = []
    for subset in subsets:
        for _ in range(8):
            first = sentence(rng)
            kept = rng.randint(0, 6)
            rows.append(
                {
                    "lang": subset,
                    "score": 1 + kept / 2,
                    "sentence1": first,
                    "sentence2": " ".join(first.split()[:kept]) + " " + sentence(rng, 6 - kept),
                }
            )
    return write_folder(folder, {"default": {"test": rows}})


MGSM = pa.schema([("question", pa.string()), ("answer", pa.string()), ("answer_number", pa.int32()), ("equation_solution", pa.string())])


def mgsm(folder: Path, languages: tuple[str, ...] = ("bn", "th"), rows: int = 6) -> Path:
    """juletxara/mgsm: train and test of each language; test rows have a number and no written answer."""
    tables = {}
    for language in languages:
        rng = random.Random(language)
        test = [
            {"question": f"{sentence(rng)} {i} + {i + 1}?", "answer": None, "answer_number": 2 * i + 1, "equation_solution": None}
            for i in range(rows)
        ]
        train = [{"question": f"Q: {sentence(rng)}", "answer": "Step-by-Step Answer: 3", "answer_number": 3, "equation_solution": "1 + 2 = 3."}]
        tables[language] = {"train": train, "test": test}
    return write_folder(folder, tables, dict.fromkeys(tables, MGSM))


def xcsqa(folder: Path, languages: tuple[str, ...] = ("vi", "ur"), rows: int = 6, flat: bool = False) -> Path:
    """INK-USC/xcsr: validation with answers, a blind test; with flat, choices as other copies of the data have them."""
    tables = {}
    for language in languages:
        rng = random.Random(language)

        def row(number: int, answer: str, rng=rng, language=language) -> dict:
            labels, texts = list("ABCDE"), [sentence(rng, 1) + str(k) for k in range(5)]
            choices = [{"label": a, "text": b} for a, b in zip(labels, texts, strict=True)] if flat else {"label": labels, "text": texts}
            return {"id": f"{language}{number}", "lang": language, "question": {"stem": sentence(rng), "choices": choices}, "answerKey": answer}

        tables[f"X-CSQA-{language}"] = {"test": [row(i, "") for i in range(3)], "validation": [row(i, "ABCDE"[i % 5]) for i in range(rows)]}
    return write_folder(folder, tables)
