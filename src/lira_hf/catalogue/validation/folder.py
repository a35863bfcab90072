"""A whole folder: its record, its files, each language, then what its card and its record say of them."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from lira_hf.catalogue.splits import SPLITS
from lira_hf.catalogue.tables import COLUMNS
from lira_hf.catalogue.validation.card import check_card
from lira_hf.catalogue.validation.findings import Damage, Findings
from lira_hf.catalogue.validation.language import Language
from lira_hf.catalogue.validation.record import check_counts, check_files, read_record
from lira_hf.catalogue.validation.tables import survey
from lira_hf.languages import LANGUAGES


def validate(folder: str | Path, progress: bool = True) -> list[Damage]:
    """Every damage of the data set in `folder`, in the order of `KINDS`; an empty list for a sound one.

    Built and imported sets of any size; an imported one may lack a split that its build.json does not count, and what only
    the builder knows. A table that is missing, unreadable or without a column is reported as that, and not compared with
    the others. Raises ValueError for a folder that is no data set: one without a single config folder of a known language.
    """
    folder, found = Path(folder), Findings()
    there = {code for code in LANGUAGES if any((folder / f"{code}{suffix}").is_dir() for suffix in COLUMNS)}
    if not there:
        raise ValueError(f"folder: {str(folder)!r} is no data set; give one with folders such as th, th-corpus, th-queries and th-qrels")
    record = read_record(folder, found)
    tables, counts = {}, {}
    for code in LANGUAGES:
        if code in there or code in record.languages:
            recorded = record.recorded(code)
            splits = SPLITS if record.built or not recorded else tuple(recorded)
            tables[code] = survey(folder, code, splits, record.built, found)
    everything = [table for of_language in tables.values() for table in of_language.values()]
    with tqdm(total=sum(table.rows for table in everything), unit="row", unit_scale=True, disable=not progress) as bar:
        for code, of_language in tables.items():
            bar.set_description(code)
            counts[code] = Language(code, of_language, record.built, record.shared_products, record.recorded(code), found, bar).check()
    check_card(folder, everything, counts, found)
    check_counts(record, counts, found)
    check_files(folder, record, progress, found)
    return found.damages()
