"""The readings of stage 1: `expected` against `reinforce`, with and without the contrastive term, over three seeds.

    python benchmarks/anchoring.py [--output DIR] [--seeds 3]

Every arm has the same data, backbones, steps and batches in both stages. Measured on the validation split after stage 1: how good the chosen
candidate is, E's distance and collapse; after stage 2: nDCG@10. Writes docs/results/anchoring.json; finished arms are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lira_hf.collation import every_row
from lira_hf.environment import environment
from lira_hf.evaluation.studies import Rig, anchor, build_data, find_backbones, set_up, train_arm
from lira_hf.languages import LANGUAGES
from lira_hf.modeling import LiraForPreTraining
from lira_hf.modeling.objectives_lira import collapse_figures
from lira_hf.reporting import write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "anchoring.json"
NEVER = {"collapse_patience": 10**6}  # an arm that collapses is measured too, instead of being stopped
ARMS = {
    "expected": {},
    "reinforce": {"policy": "reinforce"},
    "expected, no contrast": {"contrast_weight": 0.0, **NEVER},
    "reinforce, no contrast": {"policy": "reinforce", "contrast_weight": 0.0, **NEVER},
}


@torch.no_grad()
def measure(rig: Rig, model: LiraForPreTraining) -> dict[str, float]:
    """Stage 1 on validation rows with at least two candidates: the mean critic's score of the chosen candidate and of the best one, how near the
    chosen one is to the perfect translation in the frozen English space, and what E looks like."""
    rows = [row for row in every_row(rig.data["validation"]) if row.text is not None and len(row.translations) > 1]
    scores, best, agreement, sources, targets = [], [], [], [], []
    model.eval()
    for start in range(0, len(rows), 256):
        batch = rig.store.batch(rows[start : start + 256])
        output = model(**batch, return_loss=False)
        critic = batch["translation_scores"].mean(-1)  # [B, K], NaN where there is no candidate
        place = torch.arange(len(critic)), output.choice
        scores.append(critic[place])
        best.append(critic.nan_to_num(-1).amax(-1))
        agreement.append(output.similarity[place])
        sources.append(output.multilingual_embeds)
        targets.append(output.english_embeds[place])
    source, target = (torch.nn.functional.normalize(torch.cat(part), dim=-1) for part in (sources, targets))
    cosine, rank = collapse_figures(torch.cat([source, target])[:4096])
    distance = (source - target).norm(dim=-1)
    nearest = (source @ target[:1024].T).argmax(-1)[:1024]
    return {
        "chosen_score": torch.cat(scores).nanmean().item(), "best_score": torch.cat(best).mean().item(),
        "epsilon1_p50": distance.median().item(), "epsilon1_p95": distance.quantile(0.95).item(),
        "collapse_cosine": cosine.item(), "collapse_rank": rank.item(),
        "own_translation_first": 100 * (nearest == torch.arange(len(nearest))).float().mean().item(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("lira-anchoring"), help="data, backbones, features and finished arms")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    codes = list(LANGUAGES)
    rig = set_up(given.output, codes, build_data(given.output, codes), *find_backbones(given.output, codes))
    found: dict[str, list[dict]] = {}
    for seed in range(given.seeds):
        for arm, fields in ARMS.items():
            name = arm.replace(", ", "-").replace(" ", "-")
            anchored = anchor(rig, seed, fields, name)
            one = measure(rig, anchored)
            after = train_arm(rig, seed, f"after-{name}", {}, anchored, fields)
            one |= {"validation": after["validation"]["average"], "test": after["test"]["average"], "unseen": after["test"]["slices"]["unseen"]}
            found.setdefault(arm, []).append(one)
            print(f"seed {seed} {arm:48s}" + "  ".join(f"{figure} {value:.2f}" for figure, value in one.items()), flush=True)
    write_json(RESULTS, {"seeds": given.seeds, "arms": found, "environment": environment()})


if __name__ == "__main__":
    main()
