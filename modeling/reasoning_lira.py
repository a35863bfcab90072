"""What a causal language model reads of LiRA: a soft prompt in its own embedding space (METHOD 2.6).

Letters in shape comments: B rows, S bins, d shared width, w width of the language model, T tokens of text.
"""

import torch
from torch import Tensor, nn

from .configuration_lira import LiraConfig

MEASURED_TOKENS = 4096  # as many, evenly spread over the vocabulary, stand for all in the mean norm of an embedding


class SoftPrompt(nn.Module):
    """Fused bin states -> vectors that the language model reads like embedded tokens, closed by a learned boundary.

    They begin as long as the model's own embeddings (ours): `scale` is set from them once and saved with the weights. Embeddings are
    often a hundred times shorter than layer-normalised states, and a prompt that long drowns the text."""

    def __init__(self, config: LiraConfig, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, width)
        self.boundary = nn.Parameter(torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def length(self) -> float:
        """The length that a vector of the prompt has before scaling, at the start."""
        return min(self.projection.weight.shape) ** 0.5  # layer-normalised states of length sqrt(d), through an orthogonal map

    def forward(self, states: Tensor) -> Tensor:
        """Bin states [B, 2S, d] -> soft prompt and boundary [B, 2S + 1, w]."""
        prompt = self.projection(self.norm(states))  # [B, 2S, w]
        return self.scale * torch.cat([prompt, self.boundary.expand(len(prompt), 1, -1)], 1)


@torch.no_grad()
def embedding_norm(embeddings: nn.Module) -> Tensor:
    """Mean length [] of a language model's token embeddings, as its layers read them."""
    count = embeddings.weight.shape[0]
    ids = torch.linspace(0, count - 1, min(count, MEASURED_TOKENS), device=embeddings.weight.device).long()
    return embeddings(ids).float().norm(dim=-1).mean()


def positions(mask: Tensor) -> Tensor:
    """Position ids [B, L] that count what the mask [B, L] holds: a gap moves nothing, so padding leaves no trace."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)
