"""The batches of stage 1, which reads any row that has a text and a translation."""

from __future__ import annotations

import torch

from lira_hf.modeling.processing_lira import Row


def can_be_anchored(row: Row) -> bool:
    return row.text is not None and bool(row.translations)


class AnchoringCollator:
    """Rows -> a batch of LiraForPreTraining."""

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        return dict(self.encoder.batch(rows))
