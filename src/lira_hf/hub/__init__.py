"""The Hub: data sets and models published in one commit, and published models verified."""

from lira_hf.hub.datasets import publish_dataset
from lira_hf.hub.models import Publication, publish_model
from lira_hf.hub.verification import Verification, verify

__all__ = ["Publication", "Verification", "publish_dataset", "publish_model", "verify"]
