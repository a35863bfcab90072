"""A safe upper limit of how far LaSR's embedding moves when its inputs do, from the spectral norms of its weights.

LaSR reads more than z: the frozen sentence vectors (the base) and a sequence of language token and bins, of which z is a summary. So no
constant limits |f - f'| by |z - z'|: two inputs with one z can differ. The limit is over what the head reads:
    |f - f'| <= base_constant |base - base'|_2 + sequence_constant max_i |token_i - token_i'|_2.

Neither dot-product attention nor a layer norm nor a normalisation has a useful constant on all inputs (of attention there is none at all),
so it holds on a bounded domain, which is recorded. All three steps need no convex domain:
- normalise(a) - normalise(b) is at most |a - b| / min(|a|, |b|). A layer norm is such a normalisation: of the centred vector with one more
  coordinate, sqrt(n eps); so its constant is sqrt(n) / r, where r is the smallest such length in the domain.
- a layer-normed token has norm sqrt(n) at most before gain and bias. On that ball attention has a constant: softmax from the largest change of
  a logit to the sum of changes of the weights is 1-Lipschitz (a mean absolute deviation of something in [-1, 1] is at most 1), and
  the bilinear logits' gradients are bounded.
- GELU's steepest slope is Phi(sqrt 2) + sqrt 2 phi(sqrt 2), 1.129."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lira_hf.modeling.lasr_lira import Lasr

GELU_SLOPE = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)


class Domain(dict[str, float]):
    """The smallest lengths, over the rows that passed through a head: of each layer norm's input (see above), of the vector before it is
    normalised, and of the projection's output where there is one."""

    def take(self, name: str, lengths: Tensor | float) -> None:
        self[name] = min(self.get(name, math.inf), torch.as_tensor(lengths).min().item())


@dataclass(frozen=True)
class SpectralBound:
    """The two constants; on the rows that its domain was observed on, and any whose lengths are no smaller, they are certain."""

    base: float
    sequence: float
    domain: dict[str, float]

    def limit(self, base: Tensor, sequence: Tensor) -> Tensor:
        """The embedding's largest move [N] for moves of the base [N] and of the sequence's furthest token [N]."""
        return self.base * base.double() + self.sequence * sequence.double()


@contextmanager
def observed(lasr: Lasr, domain: Domain) -> Iterator[dict[str, Tensor]]:
    """Records into domain what passes through the head; the dictionary holds the last call's base [B, D], and sequence [B, 2S + 1, d] where
    the head reads one."""
    seen: dict[str, Tensor] = {}

    def norm_hook(name: str):
        def hook(module: nn.LayerNorm, inputs: tuple[Tensor, ...]) -> None:
            centred = inputs[0].double() - inputs[0].double().mean(-1, keepdim=True)
            domain.take(name, (centred.square().sum(-1) + centred.shape[-1] * module.eps).sqrt())
            if name in ("base_norm", "correction.0"):  # with fusion, and pooled: what reads the base
                seen["base"] = inputs[0]

        return hook

    def vector_hook(module: nn.Module, inputs: tuple[Tensor, ...], correction: Tensor) -> None:
        domain.take("vector", (seen["base"] + lasr.config.correction_scale * correction).double().norm(dim=-1))

    hooks = [module.register_forward_pre_hook(norm_hook(name)) for name, module in lasr.named_modules() if isinstance(module, nn.LayerNorm)]
    hooks.append(lasr.correction.register_forward_hook(vector_hook))
    if lasr.config.fusion != "pooled":
        hooks.append(lasr.encoder.register_forward_pre_hook(lambda module, inputs: seen.update(sequence=inputs[0])))
    if lasr.projection is not None:
        hooks.append(lasr.projection.register_forward_hook(lambda module, inputs, output: domain.take("projection", output.double().norm(dim=-1))))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def norm(matrix: Tensor) -> float:
    """The largest singular value."""
    return torch.linalg.matrix_norm(matrix.detach().double(), 2).item()


def layer_norm_slope(module: nn.LayerNorm, length: float) -> float:
    """Constant of a layer norm before its gain."""
    return math.sqrt(module.normalized_shape[0]) / length


def attention_slope(attention: nn.MultiheadAttention, entry: nn.LayerNorm) -> float:
    """Constant of gain, bias and self-attention on tokens that a layer norm has normalised, in the largest norm of a token: for each head
    |W_o W_v| (1 + R (2 |W_q' W_k| R + |W_k' b_q|) / sqrt(d_h)), R = sqrt(n); the gain is part of the matrices, the bias of b_q."""
    gain, bias = entry.weight.detach().double(), entry.bias.detach().double()
    weights = attention.in_proj_weight.detach().double().chunk(3)
    query_bias = (weights[0] @ bias + attention.in_proj_bias.detach().double().chunk(3)[0]).chunk(attention.num_heads)
    query, key, value = ((weight * gain).chunk(attention.num_heads) for weight in weights)  # H times [d_h, n]
    out = attention.out_proj.weight.detach().double().chunk(attention.num_heads, dim=1)  # H times [n, d_h]
    radius, total = math.sqrt(len(gain)), 0.0
    for q, k, v, o, b in zip(query, key, value, out, query_bias, strict=True):
        logits = (2 * norm(q.T @ k) * radius + (k.T @ b).norm().item()) / math.sqrt(attention.head_dim)
        total += norm(o @ v) * (1 + radius * logits)
    return total


def mlp_slope(first: nn.Linear, last: nn.Linear, gain: Tensor) -> float:
    """Constant of gain, linear map, GELU, linear map."""
    return norm(first.weight * gain) * GELU_SLOPE * norm(last.weight)


def spectral_bound(lasr: Lasr, domain: Domain) -> SpectralBound:
    """The constants of a head, on a domain (see `observed`). Raises ValueError for an empty domain."""
    if not domain:
        raise ValueError("domain: nothing was observed; let rows pass through the head first")
    slope = {name: layer_norm_slope(module, domain[name]) for name, module in lasr.named_modules() if isinstance(module, nn.LayerNorm)}
    if lasr.config.fusion == "pooled":
        entry, first, _, last = lasr.correction
        base, sequence = slope["correction.0"] * mlp_slope(first, last, entry.weight), 0.0
    else:
        sequence = 1.0
        for i, layer in enumerate(lasr.encoder.layers):
            sequence *= 1 + slope[f"encoder.layers.{i}.norm1"] * attention_slope(layer.self_attn, layer.norm1)
            sequence *= 1 + slope[f"encoder.layers.{i}.norm2"] * mlp_slope(layer.linear1, layer.linear2, layer.norm2.weight)
        fused = sequence * slope["encoder.norm"] * lasr.encoder.norm.weight.abs().max().item()
        first, _, last = lasr.correction
        total = lasr.config.concat_dim
        after = GELU_SLOPE * norm(last.weight)
        base = slope["base_norm"] * norm(first.weight[:, :total] * lasr.base_norm.weight) * after
        # the read-out is the fused language token and the means of both paths, each of which moves no further than the furthest bin
        sequence = math.sqrt(fused**2 + 2) * slope["fused_norm"] * norm(first.weight[:, total:] * lasr.fused_norm.weight) * after
    out = 1 / domain["vector"]
    if lasr.projection is not None:
        out *= norm(lasr.projection.weight) / domain["projection"]
    scale = lasr.config.correction_scale
    return SpectralBound((1 + scale * base) * out, scale * sequence * out, dict(domain))
