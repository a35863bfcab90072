"""Word problems about prices and quantities in seven languages and English, made from the words of the catalogue.

Read in this order: arithmetic (what is asked), words and wording/*.yaml (how each language says it), composition (one
problem in two languages), candidates (its translations, some wrong), rows and builder (the data set on disk). backbone_text is other text,
for the tiny backbones.
"""

from lira_hf.catalogue.problems.builder import build_problems

__all__ = ["build_problems"]
