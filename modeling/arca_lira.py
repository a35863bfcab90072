"""Arca, stage 1: token states pooled into bins, an adaptor into one English-anchored space, an actor that picks a candidate.

Letters in shape comments: B rows, K candidate translations, L tokens, S bins, d shared width, d_g and d_h widths of the
multilingual and the English backbone, N rows really encoded.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_lira import LiraConfig

MIDDLE_SCORE = 5.5  # an unscored candidate counts as the middle of the critic's scale 1..10


# ---- from token states to bins -------------------------------------------------------------------------------------


def temporal_pooling(states: Tensor, mask: Tensor, num_bins: int) -> Tensor:
    """Averages the valid token states [N, L, h] (mask [N, L]) of each row into [N, S, h] (METHOD 1.1).

    Bin s covers the valid tokens floor(s n / S) .. ceil((s + 1) n / S) - 1: bins overlap when n < S, none is empty, padding on
    either side never enters. One prefix sum serves all bins. A row without a token gives zeros."""
    mask = mask.bool()
    states = states.float().masked_fill(~mask[..., None], 0)
    prefix = F.pad(states.double().cumsum(1), (0, 0, 1, 0))  # [N, L + 1, h]; double: differences of long sums stay exact
    read = mask.cumsum(-1)  # [N, L]: valid tokens up to each place
    count = mask.sum(-1, keepdim=True)  # [N, 1]
    bins = torch.arange(num_bins, device=states.device)
    start = bins * count // num_bins  # [N, S]
    end = -((bins + 1) * count // -num_bins)  # ceiling division

    def sums(tokens: Tensor) -> Tensor:  # over the first `tokens` [N, S] valid tokens -> [N, S, h]
        place = (read[:, None] <= tokens[..., None]).sum(-1)
        return prefix.gather(1, place[..., None].expand(-1, -1, states.shape[-1]))

    return ((sums(end) - sums(start)) / (end - start).clamp_min(1)[..., None]).to(states.dtype)  # [N, S, h]


def sentence_pooling(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """A backbone's own sentence vector [N, h], normalised, from token states [N, L, h]: mean, cls (first valid), last (last valid)."""
    mask = mask.bool()
    if pooling == "mean":
        pooled = states.float().masked_fill(~mask[..., None], 0).sum(1) / mask.sum(-1, keepdim=True).clamp_min(1)
    else:
        place = mask.long().argmax(-1) if pooling == "cls" else mask.shape[1] - 1 - mask.long().flip(-1).argmax(-1)
        pooled = states[torch.arange(states.shape[0], device=states.device), place].float()
    return F.normalize(pooled, dim=-1)


# ---- one English-anchored space, and a choice among candidates -------------------------------------------------------


class Adaptor(nn.Module):
    """One linear map per path, then one shared residual MLP (METHOD 1.2). States are layer-normalised first (ours): backbones
    differ in scale by orders of magnitude."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.multilingual_norm = nn.LayerNorm(config.multilingual_config.hidden_size)
        self.english_norm = nn.LayerNorm(config.english_config.hidden_size)
        self.multilingual_projection = nn.Linear(config.multilingual_config.hidden_size, config.width)
        self.english_projection = nn.Linear(config.english_config.hidden_size, config.width)
        self.shared = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.width), nn.GELU(), nn.Linear(2 * config.width, config.width)
        )

    def forward(self, multilingual: Tensor, english: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, d_g] and [B, K, S, d_h] -> [B, S, d] and [B, K, S, d]."""
        source = self.multilingual_projection(self.multilingual_norm(multilingual))
        target = self.english_projection(self.english_norm(english))
        return source + self.shared(source), target + self.shared(target)


class Actor(nn.Module):
    """One logit per candidate from its three scores and its similarity (METHOD 1.5), weights shared over candidates.

    The logit is the critic's weighted mean plus a correction that starts at zero (ours): an untrained actor is the critic."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.weights = (config.reward_semantic, config.reward_emotional, config.reward_pragmatic)
        self.unscored = nn.Parameter(torch.zeros(3))
        self.correction = nn.Sequential(nn.Linear(4, config.actor_width), nn.GELU(), nn.Linear(config.actor_width, 1))

    def critic(self, scores: Tensor) -> Tensor:
        """0.1 (alpha s + beta e + gamma p) per candidate [B, K]; NaN scores count as the middle of the scale."""
        weights = torch.tensor(self.weights, device=scores.device)
        return 0.1 * (torch.nan_to_num(scores, nan=MIDDLE_SCORE) * weights).sum(-1)

    def prior(self, scores: Tensor, english_pooled: Tensor, mask: Tensor) -> Tensor:
        """The critic's logits [B, K]; ties go to the candidate nearest to the others in the frozen English space (ours), which no
        order of candidates can change. Two candidates are equally near to one another: a fixed direction then decides, else rounding
        would, and with it the order and the rest of the batch."""
        unit = english_pooled * mask[..., None]  # [B, K, d_h]
        agreement = (unit * unit.sum(1, keepdim=True)).sum(-1) / mask.sum(-1, keepdim=True).clamp_min(1)
        direction = F.normalize(torch.arange(unit.shape[-1], device=unit.device).cos(), dim=0)
        return self.critic(scores) + 1e-3 * (agreement + 0.1 * (unit * direction).sum(-1))

    def forward(self, scores: Tensor, similarity: Tensor, prior: Tensor) -> Tensor:
        """scores [B, K, 3] in 1..10, NaN where unscored; similarity [B, K] in [-1, 1]; prior [B, K] -> logits [B, K]."""
        features = torch.where(scores.isnan(), self.unscored.expand_as(scores), 0.1 * torch.nan_to_num(scores))
        return prior + self.correction(torch.cat([features, similarity[..., None]], -1).to(similarity.dtype))[..., 0]


class Arca(nn.Module):
    def __init__(self, config: LiraConfig):
        super().__init__()
        self.adaptor = Adaptor(config)
        self.actor = Actor(config)
