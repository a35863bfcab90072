"""From the rows of a data set to what the stages read.

An `encoder` is whatever has `batch(rows, prompt_name=None)`: a LiraProcessor (text becomes ids) or a FeatureStore (text becomes
cached features). Everything after it is the same."""

from lira_hf.collation.anchoring import AnchoringCollator, can_be_anchored
from lira_hf.collation.folders import SPLITS, every_row, read, stream
from lira_hf.collation.mixture import Mixture
from lira_hf.collation.retrieval import Product, Query, RetrievalCollator, RetrievalData, candidates, id_number, padded, reference
from lira_hf.collation.streaming import LateCollator, RetrievalStream, Stream

__all__ = [
    "SPLITS", "AnchoringCollator", "LateCollator", "Mixture", "Product", "Query", "RetrievalCollator", "RetrievalData", "RetrievalStream", "Stream",
    "can_be_anchored", "candidates", "every_row", "id_number", "padded", "read", "reference", "stream",
]  # fmt: skip
