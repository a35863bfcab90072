"""Damage in a data set folder: what is missing, what does not fit together, what leaks, what the card says wrongly.

Read in this order: findings (the kinds of damage, the report), tables (files and schemas), sheets (a batch of rows),
language (twelve tables, alone and against each other), record (build.json), card (README.md), folder (all of it).
It imports pyarrow, so import it where it is needed.
"""

from lira_hf.catalogue.validation.findings import KINDS, Damage, render_report
from lira_hf.catalogue.validation.folder import validate

__all__ = ["KINDS", "Damage", "render_report", "validate"]
