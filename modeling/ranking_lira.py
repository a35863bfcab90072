"""What a score or classes are read from: one embedding, or two compared (METHOD 2.4).

Letters in shape comments: B rows, d_out width of an embedding.
"""

import torch
from torch import Tensor, nn

from .configuration_lira import LiraConfig
from .objectives_lira import least_squares_line


class Comparison(nn.Module):
    """Logits [B, num_labels] from one embedding u or two, u and v, by an MLP on [u, v, |u - v|, u v] (ours), zeros where there is no v.

    Its last layer starts at zero. In regression a pair's logit starts as cos(u, v), at step 0 that of the frozen concatenation. `line` is the
    slope and intercept fitted from such predictions to labels; `affine` those that `mse` learns on top of it."""

    def __init__(self, config: LiraConfig, regression: bool):
        super().__init__()
        self.cosine, width = regression and config.num_labels == 1, 4 * config.hidden_size
        self.correction = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * config.width, config.num_labels),
        )
        self.register_buffer("line", torch.tensor([1.0, 0.0]))
        self.affine = nn.Parameter(torch.tensor([1.0, 0.0])) if regression and config.regression == "mse" else None

    def forward(self, first: Tensor, second: Tensor | None) -> Tensor:
        """u and v [B, d_out], L2-normalised."""
        other, apart = (torch.zeros_like(first),) * 2 if second is None else (second, (first - second).abs())
        logits = self.correction(torch.cat([first, other, apart, first * other], -1))
        return logits + (first * other).sum(-1, keepdim=True) if self.cosine else logits

    def scaled(self, predictions: Tensor) -> Tensor:
        """Predictions of a regression on the scale of the labels."""
        values = self.line[0] * predictions + self.line[1]
        return values if self.affine is None else self.affine[0] * values + self.affine[1]

    @torch.no_grad()
    def fit(self, predictions: Tensor, labels: Tensor) -> None:
        """Fits the line to predictions and labels [n]; where the scale is learned only once, so that learning starts on the right scale."""
        line = least_squares_line(predictions, labels)
        unfitted = (self.line == torch.tensor([1.0, 0.0], device=line.device)).all()
        self.line.copy_(line if self.affine is None else torch.where(unfitted, line, self.line))
