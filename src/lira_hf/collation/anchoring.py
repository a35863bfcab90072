"""The batches of stage 1, which reads any row that has a text and a translation."""

from __future__ import annotations

import torch

from lira_hf.modeling.processing_lira import Row


class AnchoringCollator:
    """Rows -> a batch of LiraForPreTraining."""

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        return dict(self.encoder.batch(rows))
