"""LaSR, stage 2: both paths fused into one embedding, and into the bin states that a language model reads.

Letters in shape comments: B rows, S bins, d shared width, d_g and d_h widths of the multilingual and the English backbone,
D = d_g + d_h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_lira import LiraConfig


class Lasr(nn.Module):
    """normalise([w_g g; w_h h_a] + correction), the correction's last layer starting at zero (METHOD 2.1): at step 0 the embedding
    is the frozen concatenation. Beside the read-out and z, the correction reads the concatenation itself (ours). `fusion="pooled"`
    replaces the fused sequence by a residual MLP on the two sentence vectors."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.config = config
        d, total = config.width, config.concat_dim
        self.path_weight = nn.Parameter(torch.ones(2))
        self.absent_multilingual = nn.Parameter(torch.zeros(config.multilingual_config.hidden_size))
        self.absent_english = nn.Parameter(torch.zeros(config.english_config.hidden_size))
        if config.fusion == "pooled":
            self.correction = nn.Sequential(nn.LayerNorm(total), nn.Linear(total, 4 * d), nn.GELU(), nn.Linear(4 * d, total))
        else:
            self.language = nn.Embedding(len(config.languages) + 1, d)  # row 0 is `und`
            self.position = nn.Embedding(2 * config.num_bins, d)  # a path embedding for each of its bins
            self.absent = nn.Embedding(2, d)  # stands in for E of an absent path
            layer = nn.TransformerEncoderLayer(d, config.fusion_heads, 4 * d, config.dropout, activation="gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, config.fusion_layers, nn.LayerNorm(d), enable_nested_tensor=False)
            self.base_norm, self.fused_norm = nn.LayerNorm(total), nn.LayerNorm(3 * d)
            self.correction = nn.Sequential(nn.Linear(total + 3 * d, 4 * d), nn.GELU(), nn.Linear(4 * d, total))
        self.projection = nn.Linear(total, config.embedding_dim, bias=False) if config.embedding_dim else None

    def states(self, source: Tensor, target: Tensor, present: Tensor, language_ids: Tensor) -> Tensor:
        """The fused sequence [B, 2S + 1, d] of language token, text bins and candidate bins (arguments as of forward). Those of an absent
        path are there, but no other position reads them."""
        bins = torch.cat([source, target], 1) + self.position.weight  # [B, 2S, d]
        sequence = torch.cat([self.language(language_ids)[:, None], bins], 1)  # [B, 2S + 1, d]
        masked = F.pad(~present.repeat_interleave(self.config.num_bins, dim=1), (1, 0))  # the language token is always there
        return self.encoder(sequence, src_key_padding_mask=masked)

    def forward(self, source: Tensor, target: Tensor, source_pooled: Tensor, target_pooled: Tensor, present: Tensor, language_ids: Tensor) -> Tensor:
        """source, target [B, S, d]: bin streams; *_pooled [B, d_g], [B, d_h]: sentence vectors; present [B, 2]: which path is there;
        language_ids [B], 0 for `und` -> embeddings [B, d_out], L2-normalised; zero at step 0 for a row with neither path."""
        base = torch.cat(
            [
                torch.where(present[:, :1], self.path_weight[0] * source_pooled, self.absent_multilingual),
                torch.where(present[:, 1:], self.path_weight[1] * target_pooled, self.absent_english),
            ],
            -1,
        )  # [B, D]
        if self.config.fusion == "pooled":
            correction = self.correction(base)
        else:
            fused = self.states(source, target, present, language_ids)[:, 0]  # [B, d]
            means = torch.where(present[..., None], torch.stack([source.mean(1), target.mean(1)], 1), self.absent.weight)  # [B, 2, d]
            read_out = self.fused_norm(torch.cat([fused, means.flatten(1)], -1))  # [B, 3d]
            correction = self.correction(torch.cat([self.base_norm(base), read_out], -1))
        vector = base + self.config.correction_scale * correction
        vector = torch.where(present.any(-1, keepdim=True), vector, vector.detach())  # normalising a zero row: a gradient of 1e12
        embedding = F.normalize(vector, dim=-1)
        return embedding if self.projection is None else F.normalize(self.projection(embedding), dim=-1)
