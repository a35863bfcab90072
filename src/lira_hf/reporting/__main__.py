"""`python -m lira_hf.reporting README.md docs/comparisons.md docs/results`: renders the places of documents from a folder of results."""

import sys
from pathlib import Path

from lira_hf.reporting.readme import render

*documents, folder = map(Path, sys.argv[1:])
for document in documents:
    document.write_text(render(document, folder), encoding="utf-8")
