"""From the rows of a data set to what the stages read.

An `encoder` is whatever has `batch(rows, prompt_name=None)`: a LiraProcessor (text becomes ids) or a FeatureStore (text becomes
cached features). Everything after it is the same."""

from lira_hf.collation.anchoring import AnchoringCollator
from lira_hf.collation.folders import SPLITS, every_row, read
from lira_hf.collation.mixture import Mixture
from lira_hf.collation.ranking import Pair, PairData, RankingCollator, pair_data
from lira_hf.collation.retrieval import Product, Query, RetrievalCollator, RetrievalData, candidates, id_number, padded, reference

__all__ = [
    "SPLITS", "AnchoringCollator", "Mixture", "Pair", "PairData", "Product", "Query", "RankingCollator", "RetrievalCollator", "RetrievalData",
    "candidates", "every_row", "id_number", "padded", "pair_data", "read", "reference",
]  # fmt: skip
