"""Speed of the parts, as ratios of two things measured side by side in one run; the spread is over repetitions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from transformers import BertConfig, XLMRobertaConfig

from lira_hf.modeling import LiraConfig, LiraForRetrieval
from lira_hf.modeling.arca_lira import temporal_pooling
from lira_hf.modeling.objectives_lira import soft_ndcg_loss

REPEATS = 7


def compare(name: str, slow: Callable[[], object], fast: Callable[[], object], note: str) -> None:
    """Prints how many times faster `fast` is, alternating the two so that a busy machine slows both."""
    ratios = []
    for repeat in range(REPEATS + 1):
        seconds = []
        for run in (slow, fast):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        if repeat:  # the first round warms up
            ratios.append(seconds[0] / seconds[1])
    low, high = min(ratios), max(ratios)
    print(f"{name:44s} {statistics.median(ratios):7.1f}x  ({low:.1f} to {high:.1f})  {note}")


def naive_pooling(states: torch.Tensor, mask: torch.Tensor, num_bins: int) -> torch.Tensor:
    rows = []
    for row, valid in zip(states, mask, strict=True):
        tokens = row[valid.bool()]
        count = len(tokens)
        rows.append(torch.stack([tokens[s * count // num_bins : -((s + 1) * count // -num_bins)].mean(0) for s in range(num_bins)]))
    return torch.stack(rows)


def main() -> None:
    torch.manual_seed(0)
    print(f"ratios over {REPEATS} repetitions: median (lowest to highest), torch {torch.__version__}, {torch.get_num_threads()} threads")
    states, mask = torch.randn(256, 64, 384), (torch.arange(64) < torch.randint(4, 65, (256, 1))).long()
    compare("temporal pooling, against a loop over rows", lambda: naive_pooling(states, mask, 8), lambda: temporal_pooling(states, mask, 8),
            f"floor: {states.numel() * 4 / 1e6:.0f} MB read")  # fmt: skip

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536, "vocab_size": 4000}
    config = LiraConfig(multilingual_config=XLMRobertaConfig(**sizes), english_config=BertConfig(**sizes), width=128)
    model = LiraForRetrieval(config).train()
    rows, length = 32, 32
    batch = {
        "multilingual_input_ids": torch.randint(5, 4000, (rows, length)), "multilingual_attention_mask": torch.ones(rows, length, dtype=torch.long),
        "english_input_ids": torch.randint(5, 4000, (rows, 4, length)), "english_attention_mask": torch.ones(rows, 4, length, dtype=torch.long),
        "candidate_mask": torch.ones(rows, 4, dtype=torch.bool), "language_ids": torch.ones(rows, dtype=torch.long),
    }  # fmt: skip
    cached = model.lira.encode_features(batch)
    step = lambda inputs: model(**inputs).embeddings.sum().backward()  # noqa: E731
    compare("forward and backward, features against text", lambda: step(batch), lambda: step(cached), "two 6-layer encoders, 4 candidates")

    scores, few = torch.randn(8, 2048), torch.zeros(8, 2048)
    few[:, :4] = 2.0
    valid, every = torch.ones_like(scores, dtype=torch.bool), few.clamp_min(1e-9)  # a rank for every candidate instead of four
    loss = lambda gains: soft_ndcg_loss(scores, gains, valid, 10, 0.05, 2.0)  # noqa: E731
    compare("soft nDCG, ranks of 4 against of all", lambda: loss(every), lambda: loss(few), "2,048 candidates")


if __name__ == "__main__":
    main()
