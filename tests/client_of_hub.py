"""This process as a client of a loopback Hub: what the client reads from the environment, once, is set for the length of a test."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback_hub import LoopbackHub

from lira_hf.modeling import hub_lira


@contextlib.contextmanager
def client_of(hub: LoopbackHub, home: Path):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ENDPOINT": hub.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}", "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            patch.setattr(constants, name, value)
        for name, value in (hub.env(home) | {"HF_HUB_OFFLINE": "0"}).items():  # for processes that the test starts
            patch.setenv(name, value)
        patch.setattr(hub_lira, "PAUSE", 0.01)
        yield hub
