"""Which trainings a study is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lira_hf.evaluation.retrieval import TRAINED_SYSTEMS
from lira_hf.evaluation.studies.rigs import Rig, anchor, anchoring_folder, arm_file, check_anchoring, check_identity, identity, train_arm
from lira_hf.evaluation.studies.settings import FewShot
from lira_hf.evaluation.studies.working import Job
from lira_hf.modeling import LiraForPreTraining, LiraForRetrieval

UNWATCHED = {"collapse_patience": 10**9}  # an arm whose space collapses is measured too, instead of being stopped


@dataclass(frozen=True)
class Arm:
    """One training of a study.

    Args:
        name: of its files. fields: of LiraConfig in stage 2, beside the recipe's.
        anchoring: fields in stage 1, beside the recipe's; None where stage 2 starts from Arca as initialised.
        anchored: name of the stage 1, which all arms share that start from it.
        percent: of the training rows, in both stages. retrieval: arguments of stage 2, beside the recipe's."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    anchoring: dict[str, Any] | None = field(default_factory=dict)
    anchored: str = ""
    percent: float = 100
    retrieval: dict[str, Any] = field(default_factory=dict)

    def jobs(self, rig: Rig, seed: int) -> list[Job]:
        """Stage 1, unless there is none, and stage 2. Raises ValueError where one is finished that was trained otherwise."""
        output, part = rig.recipe.output, rig.part(seed, self.percent, **self.retrieval)
        first, done = [], arm_file(output, seed, self.name)
        if self.anchoring is not None:
            folder = anchoring_folder(output, seed, self.anchored)
            check_anchoring(folder, identity(part, self.anchoring, "anchoring"))
            first = [Job(folder / "model", partial(self.anchor, part, seed))]
        check_identity(done, identity(part, self.fields, "retrieval", self.anchoring))
        return [*first, Job(done, partial(self.train, part, seed), tuple(job.done for job in first))]

    def anchor(self, part: Rig, seed: int) -> LiraForPreTraining | LiraForRetrieval:
        return part.base if self.anchoring is None else anchor(part, seed, self.anchoring, self.anchored)

    def train(self, part: Rig, seed: int) -> dict:
        """Stage 2 on the arm's part of the rows, from its stage 1, which is trained where it is not finished."""
        anchored = self.anchor(part, seed)
        return train_arm(part, seed, self.name, self.fields, anchored, self.anchoring, weights=self.name in KEPT)


CONTROLS = {name: Arm(name, fields) for name, fields in TRAINED_SYSTEMS.items()}  # lira, and the simpler systems it must beat
ABLATION = {
    **CONTROLS,
    "without_llm_critic": Arm("without_llm_critic", {"critics": "embedding"}, {"critics": "embedding"}, "embedding-critic"),
    # All that the cosine of both paths says in stage 1: the actor's feature, the reward's term, the anchor loss, and the contrastive term, which
    # is of the same cosine and would do the anchor's work alone. What is left of stage 1 is an actor that goes by the scores.
    "without_embedding_critic": Arm(
        "without_embedding_critic",
        {"critics": "translation"},
        {"critics": "translation", "anchor_weight": 0.0, "contrast_weight": 0.0, **UNWATCHED},
        "translation-critic",
    ),
    "without_queues": Arm("without_queues", {"queue": "none"}),
    "without_stage1": Arm("without_stage1", anchoring=None),
    "without_contrast": Arm("without_contrast", {}, {"contrast_weight": 0.0, **UNWATCHED}, "no-contrast"),
}
SAME = {"without_translation": "multilingual_trained", "without_multilingual_encoder": "english_trained"}  # one training each, under two names
KEPT = ("lira", "english_trained", "pooled_head")  # arms whose weights the noise study reads
FEW_SHOT = ("lira", "pooled_head", "english_trained", "multilingual_trained")


def few_shot_arms(settings: FewShot) -> dict[tuple[str, float], Arm]:
    """By system and percent of the training rows; those of all rows are those of the ablation."""
    arms = {}
    for percent, steps in settings.steps.items():
        every = max(1, steps // settings.evaluations)
        given = {"max_steps": steps, "warmup_steps": steps // 10, "eval_steps": every, "save_steps": every}
        for system in FEW_SHOT:
            name = f"{percent:g}-percent"
            arms[system, percent] = Arm(f"{system}-{name}", TRAINED_SYSTEMS[system], {}, name, percent, given)
    return arms | {(system, 100.0): CONTROLS[system] for system in FEW_SHOT}


def jobs_of(arms: list[Arm], rig: Rig, seeds: int) -> list[Job]:
    """Both stages of all arms, each stage 1 once and before what starts from it."""
    jobs = {job.done: job for seed in range(seeds) for arm in arms for job in arm.jobs(rig, seed)}
    return sorted(jobs.values(), key=lambda job: len(job.needs))
