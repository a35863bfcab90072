"""`python -m lira_hf.reporting README.md docs/results` renders the places of a document anew."""

import sys
from pathlib import Path

from lira_hf.reporting.readme import render

document, folder = map(Path, sys.argv[1:3])
document.write_text(render(document, folder), encoding="utf-8")
