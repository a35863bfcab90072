"""The frozen half of LiRA, computed once: token bins and sentence vectors of texts, in files that any run on the same backbones shares.

    FOLDER/english-3f2a9c.../key.json              what the features depend on beside the text; the folder's name is its hash
    FOLDER/english-3f2a9c.../shards/*.safetensors  keys [n]: hashes of the prefixed texts; rows [n, S + 1, h]: bins, then the sentence vector
    FOLDER/english-3f2a9c.../index-*.safetensors   all keys, sorted, with their places; named after the shards it covers

Another backbone, tokenizer, S, pooling, length or number format is another folder, so nothing stale is ever read. Shards are only added,
each whole or not at all: a killed fill goes on, new texts cost nothing but themselves, and shards made elsewhere may be copied in."""

from lira_hf.features.filling import fill
from lira_hf.features.store import FeatureStore

__all__ = ["FeatureStore", "fill"]
