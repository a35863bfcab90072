"""`lira-hf certify`: how far a model's vectors can be from those of a perfect translation (METHOD "Theory"), measured.

OUTPUT/certificate.json
  version, model, data, split, seed, environment
  word            "certified" or "empirical": of the bound on ‖z - z*‖
  options         anchors, temperature, q, delta, edits, k, resamples
  constants       c (largest norm of the anchors), l_at_q, l_spectral {base, sequence, sum, over_l_at_q, domain}
  figures         for each entry of a group: [kind, how it came about]
  constant_figures  the same for the constants
  overall, languages {code: group}, slices {name: group}      the groups; see lira_hf.certificate.figures
  assumptions     name, statement, holds, violated, of, worst
  violations, verdicts    lines of text
  card            title, header, rows (strings), notes: a table for a model card
  temperatures    epsilon2 and the blind bound by temperature
OUTPUT/certificate.png
OUTPUT/measured         languages that are done, of a certificate that is not: it goes on with the next one"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch

from lira_hf.certificate import theory
from lira_hf.certificate.figures import FIGURES, Rows, anchored_rows, assumptions, bounds, by_temperature, group, temperatures, verdicts, violations
from lira_hf.certificate.measuring import Measured, anchor_sentences, bank, fingerprint, kept, measure
from lira_hf.certificate.rendering import card, plot, print_certificate
from lira_hf.certificate.spectral import Domain, SpectralBound, spectral_bound
from lira_hf.collation import SPLITS, RetrievalData, read
from lira_hf.evaluation.systems import open_lira
from lira_hf.languages import check_languages
from lira_hf.modeling import LiraForRetrieval, LiraProcessor
from lira_hf.reporting import keep, results, write_json

VERSION = 1
CONSTANTS = {
    "c": ("observed", "largest norm of the anchors' feature vectors, which are normalised as z is"),
    "l_at_q": ("estimated", "quantile q of ‖f(z) - f(z')‖ / ‖z - z'‖ over all edits; no limit for inputs further apart than those"),
    "l_spectral": (
        "certified",
        "from the spectral norms of LaSR, on the domain given: ‖f - f'‖ <= base ‖base - base'‖ + sequence max_i ‖token_i - token_i'‖."
        " Over what the head reads, frozen sentence vectors and bins, not over z, of which they are no function",
    ),
}


def certify(
    model_folder: str | Path,
    data_folder: str | Path,
    output: str | Path,
    *,
    split: str = "test",
    languages: list[str] | None = None,
    anchors: int = 512,
    temperature: float | None = None,
    q: float = 0.95,
    delta: int = 1,
    edits: int = 4,
    k: int = 10,
    resamples: int = 200,
    seed: int = 0,
    batch_size: int = 256,
    show_progress_bar: bool = True,
) -> dict:
    """Writes OUTPUT/certificate.json and certificate.png, prints the table, and returns the content of the first.

    Args:
        model_folder: of a trained LiraForRetrieval that reads both paths. data_folder: with perfect translations, as `lira-hf data build` makes it.
        anchors: English sentences in the bank at most; of the validation split, or of the test split where the validation split is measured.
        temperature: of the softmax over the anchors; None for the config's contrast_temperature.
        q: quantile of L, 0 to 1. delta: token edits, `edits` such edits of each row. k: of the top-k order; the first product alone is measured too.
        resamples: of the bootstrap. seed: the same one gives the same figures.
    Raises ValueError for bad input, naming it."""
    for name, value in {"anchors": anchors - 1, "delta": delta, "edits": edits, "k": k, "resamples": resamples, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{name}: {value + (name == 'anchors')} is not allowed; a whole number of at least {1 + (name == 'anchors')} is")
    if not 0 < q <= 1:
        raise ValueError(f"q: {q!r} is not allowed; a number above 0, up to 1, is")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature: {temperature!r} is not allowed; a number above 0 is")
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not known; allowed: {', '.join(SPLITS)}")
    codes = check_languages(languages)
    model, processor = opened(model_folder)
    temperature = model.config.contrast_temperature if temperature is None else temperature
    held_out = "test" if split == "validation" else "validation"
    data, others = ([retrieval(data_folder, code, each) for code in codes] for each in (split, held_out))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    sentences = anchor_sentences(others, data, anchors, seed)
    vectors = bank(model, processor, sentences, batch_size, show_progress_bar)
    options = {"edits": edits, "delta": delta, "seed": seed}
    key, more = fingerprint(model, processor, **options), {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    folder = Path(output) / "measured"
    parts = [kept(folder, key, part, lambda part=part: measure(model, processor, part, **options, **more)) for part in data]
    domain = Domain()
    for part in parts:
        for name, length in part.domain.items():
            domain.take(name, length)
    spectral = spectral_bound(model.lira.lasr.cpu(), domain)
    generator = torch.Generator().manual_seed(seed)
    rows = rows_of(parts, vectors, spectral, temperature, sorted({1, k}), resamples, generator)
    codes_of_rows = [part.language for part in parts for _ in part.slices]
    head = results({}, benchmark=data_name(data_folder), model=str(model_folder), seeds=[seed])
    found = {
        "version": VERSION, "model": head["model"], "revision": head["revision"], "data": head["benchmark"], "split": split, "seed": seed,
        "options": {"anchors": len(sentences), "anchor_split": held_out, "temperature": temperature, "q": q, "delta": delta, "edits": edits, "k": k,
                    "resamples": resamples},
        **certificate(rows, codes_of_rows, [names for part in parts for names in part.slices], vectors, spectral, q, generator),
        "temperatures": by_temperature(*(torch.cat([getattr(part, name) for part in parts]) for name in ("source", "target", "perfect")), vectors,
                                       [temperature * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)]),
        "environment": head["environment"],
    }  # fmt: skip
    found["verdicts"].append(temperatures(found["temperatures"]))
    found = finite(found)
    found["card"] = card(found)
    write_json(Path(output) / "certificate.json", found)
    whole = split == "test" and languages is None  # a part of it must not take the place of the whole in the card
    if whole and (Path(model_folder) / "config.json").is_file():  # a Hub id is no folder, and must not become one
        keep(found, model_folder, "certificate")
    limit = bounds(rows, found["constants"]["c"])["bound_blind"].value
    points, start = {}, 0
    for part in parts:
        here = slice(start, start := start + len(part.slices))
        points[part.language] = list(zip(limit[here].tolist(), rows.deviation[here].tolist(), strict=True))
    plot(found, points, Path(output) / "certificate.png")
    shutil.rmtree(folder)
    print_certificate(found)
    return found


def opened(name: str | Path) -> tuple[LiraForRetrieval, LiraProcessor]:
    """Model and processor of a folder or Hub id. Raises ValueError where it is no LiRA model that reads both paths."""
    model, processor = open_lira(name)
    if model.config.paths != "both":
        raise ValueError(f"model: {str(name)!r} reads the {model.config.paths} path only; a certificate compares both")
    return model, processor


def data_name(folder: str | Path) -> str:
    """What the data set is called: a built one says so itself, any other is known by its folder."""
    record = Path(folder) / "build.json"
    size = json.loads(record.read_text(encoding="utf-8")).get("size") if record.exists() else None
    return Path(folder).name if size in (None, "imported") else f"LazRetrieval {size} (synthetic)"


def retrieval(folder: str | Path, language: str, split: str) -> RetrievalData:
    """A language's split. Raises ValueError where it is not for retrieval."""
    part = read(folder, language, split)
    if not isinstance(part, RetrievalData):
        raise ValueError(f"data: {str(folder)!r} is not for retrieval; a certificate needs queries, products and perfect translations")
    return part


def rows_of(
    parts: list[Measured],
    vectors: torch.Tensor,
    spectral: SpectralBound,
    temperature: float,
    ks: list[int],
    resamples: int,
    generator: torch.Generator,
) -> Rows:
    """The figures of each row of all languages, language after language."""
    join = lambda name: torch.cat([getattr(part, name) for part in parts])  # noqa: E731
    embeddings, perfect = join("embeddings"), join("perfect_embeddings")
    radius = {k: torch.cat([theory.stability_radius(part.embeddings, part.products, k) for part in parts]) for k in ks}
    scores = torch.cat([theory.score_deviation(part.embeddings, part.perfect_embeddings, part.products) for part in parts])
    unchanged = {k: torch.cat([theory.same_order(part.embeddings, part.perfect_embeddings, part.products, k) for part in parts]) for k in ks}
    return Rows(
        **anchored_rows(join("source"), join("target"), join("perfect"), vectors, temperature, resamples, generator),
        slopes=theory.local_lipschitz(embeddings, join("edited_embeddings"), join("z"), join("edited_inputs")),
        embedding_deviation=theory.distance(embeddings, perfect),
        score_deviation=scores,
        limit=torch.cat([spectral.limit(*part.moved) for part in parts]),
        radii=radius,
        unchanged=unchanged,
    )


def certificate(
    rows: Rows, languages: list[str], slices: list[list[str]], vectors: torch.Tensor, spectral: SpectralBound, q: float, generator: torch.Generator
) -> dict:
    """All that a certificate says about rows of these languages and slices, by the bank `vectors`."""
    c, slope = theory.largest_norm(vectors), theory.quantile(rows.slopes, q)
    if math.isnan(slope):
        slope = math.inf  # no edit was found, and nothing is known of L
    figures = lambda chosen: group(rows, torch.tensor(chosen), c, slope, q, generator)  # noqa: E731
    by_language = {code: [i for i, own in enumerate(languages) if own == code] for code in dict.fromkeys(languages)}
    by_slice = {name: [i for i, own in enumerate(slices) if name in own] for name in sorted({name for names in slices for name in names})}
    overall, assumed = figures(range(len(languages))), assumptions(rows, vectors, c, slope)
    total = spectral.base + spectral.sequence
    limit = {"base": spectral.base, "sequence": spectral.sequence, "sum": total, "over_l_at_q": total / slope, "domain": spectral.domain}
    return {
        "word": bounds(rows, c)["bound_blind"].word,
        "constants": {"c": c, "l_at_q": slope, "l_spectral": limit},
        "constant_figures": CONSTANTS,
        "figures": FIGURES,
        "overall": overall,
        "languages": {code: figures(chosen) for code, chosen in by_language.items()},
        "slices": {name: figures(chosen) for name, chosen in by_slice.items()},
        "assumptions": assumed,
        "violations": violations(assumed),
        "verdicts": verdicts(overall, slope, q),
    }


def finite(value):
    """The same with None for what is no finite number: JSON has no others."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
