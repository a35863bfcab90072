"""LazRetrieval, synthetic: product search in seven languages, composed from hand-written words.

Read in this order: templates and lexicon (words), splits (who belongs where), composition (products, queries), letters
and noise (queries as typed), relevance (grades by rule), candidates (translations with errors), rows, tables, card and
builder (the data set on disk); similarity and similarity_builder (pairs of queries with a score, LazSimilarity); problems (word
problems, for the reasoning stage); backbone_text (other text, for the tiny backbones). lexicon/FORMAT.md says how words are written.
"""

from lira_hf.catalogue.backbone_text import pairs
from lira_hf.catalogue.builder import build
from lira_hf.catalogue.relevance import grade
from lira_hf.catalogue.rows import SIZES
from lira_hf.catalogue.similarity_builder import build_similarity

__all__ = ["SIZES", "build", "build_similarity", "grade", "pairs"]
