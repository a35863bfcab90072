"""A shop's own products, queries and judgements, from its files into the layout of a built data set.

Files: CSV, TSV, JSONL (each also as .gz) and Parquet; columns by name (Amazon ESCI, WANDS, BEIR, plain names) or named by the
caller. Read in this order: shop (the whole import), report (what was refused), reading (files), tidying (texts and tables), grading
(labels or clicks), splitting (queries and products), writing (the folder). Every rule stands at the top of the module that applies it.
"""

from lira_hf.catalogue.imports.report import Report
from lira_hf.catalogue.imports.shop import import_shop

__all__ = ["Report", "import_shop"]
