"""From the rows of a data set to what the stages read.

An `encoder` is whatever has `batch(rows, prompt_name=None)`: a LiraProcessor (text becomes ids) or a FeatureStore (text becomes
cached features). Everything after it is the same."""

from lira_hf.collation.anchoring import AnchoringCollator, can_be_anchored
from lira_hf.collation.folders import SPLITS, Data, every_row, read, stream
from lira_hf.collation.mixture import Mixture
from lira_hf.collation.ranking import Pair, PairData, RankingCollator, pair_data
from lira_hf.collation.reasoning import Problem, ProblemData, ReasoningCollator, problem_data
from lira_hf.collation.retrieval import Product, Query, RetrievalCollator, RetrievalData, candidates, id_number, padded, reference
from lira_hf.collation.streaming import LateCollator, RetrievalStream, Stream

__all__ = [
    "SPLITS", "AnchoringCollator", "Data", "LateCollator", "Mixture", "Pair", "PairData", "Problem", "ProblemData", "Product", "Query",
    "RankingCollator", "ReasoningCollator", "RetrievalCollator", "RetrievalData", "RetrievalStream", "Stream", "can_be_anchored", "candidates",
    "every_row", "id_number", "padded", "pair_data", "problem_data", "read", "reference", "stream",
]  # fmt: skip
