"""Fixed texts and a model's embeddings of them: what anybody can compare with after a download, as `lira-hf verify` does."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

# A query and a product of each language, with candidate translations and the critic's scores of them; each is also embedded without.
TEXTS = [
    ("vi", "query", "nồi cơm điện 1.8 lít", ["1.8 litre rice cooker", "electric pot 1.8"], [[9, 8, 9], [6, 7, 5]]),
    ("vi", "document", "Áo thun nam cổ tròn màu đen, vải cotton", ["Black crew-neck cotton T-shirt for men"], None),
    ("th", "query", "ทีวี 55 นิ้ว", ["55 inch TV", "TV 55"], [[9, 8, 9], [6, 7, 6]]),
    ("th", "document", "ชุดเดรสผ้าฝ้ายสีแดง แขนสั้น", ["Red cotton dress, short sleeves"], [[10, 8, 9]]),
    ("id", "query", "sepatu lari pria ukuran 42", ["men's running shoes size 42"], None),
    ("id", "document", "Tas ransel laptop 15 inci anti air", ["Waterproof 15 inch laptop backpack", "laptop bag"], [[9, 9, 9], [5, 6, 5]]),
    ("ms", "query", "kasut sukan biru", ["blue sports shoes"], [[9, 9, 8]]),
    ("ms", "document", "Periuk nasi elektrik 1.8 liter, penutup kaca", ["Electric rice cooker 1.8 litre, glass lid"], None),
    ("ur", "query", "لال سوتی لباس", ["red cotton dress", "red clothes"], [[9, 9, 9], [6, 6, 6]]),
    ("ur", "document", "مردانہ چمڑے کا بٹوہ، بھورا", ["Men's leather wallet, brown"], [[10, 9, 9]]),
    ("bn", "query", "নীল জুতা", ["blue shoes"], None),
    ("bn", "document", "শিশুদের সুতির জামা, হলুদ", ["Children's cotton dress, yellow"], [[9, 8, 9]]),
    ("fil", "query", "sapatos na itim pambabae", ["black shoes for women", "black women shoe"], [[10, 9, 9], [8, 7, 7]]),
    ("fil", "document", "Bentilador na may remote, 16 pulgada", ["16 inch electric fan with remote"], None),
]


def rows() -> list[dict]:
    """The texts as keyword arguments of a processor's check, with `prompt_name`: each with its translations, and without."""
    given = [
        {"text": text, "translations": translations, "scores": scores, "language": language, "prompt_name": prompt}
        for language, prompt, text, translations, scores in TEXTS
    ]
    alone = [row | {"translations": None, "scores": None} for row in given]
    return [*given, *alone, {"text": "smart TV 55 inch", "translations": None, "scores": None, "language": "en", "prompt_name": "query"}]


def vectors(folder: str | Path) -> dict:
    """The content of vectors.json for the model in `folder`: {"versions", "rows", "embeddings"}, the last [rows, d_out] in float32 of
    LiraForRetrieval on the CPU, each row by itself. As one thread computes them, the same machine finds the same numbers again."""
    import torch

    from lira_hf.modeling import LiraForRetrieval, LiraProcessor

    model = LiraForRetrieval.from_pretrained(folder, dtype=torch.float32)
    processor = LiraProcessor.from_pretrained(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [embedding(model, processor, row) for row in rows()]
    finally:
        torch.set_num_threads(threads)
    versions = {name: version(name) for name in ("lira-hf", "torch", "transformers")}
    return {"versions": versions, "rows": rows(), "embeddings": found}


def embedding(model, processor, row: dict) -> list[float]:
    """The embedding of one row, each number with the nine digits that tell one float32 from any other."""
    lists = {name: value if name == "prompt_name" or value is None else [value] for name, value in row.items()}
    lists["texts"] = lists.pop("text")
    return [float(f"{value:.9g}") for value in model.encode(processor=processor, **lists)[0].tolist()]
