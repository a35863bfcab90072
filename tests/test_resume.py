"""A run that is killed again and again ends in the weights of one that nobody disturbed, bit by bit."""

import json
import random
import signal
from pathlib import Path

import pytest
import torch
from processes import CONTEXT
from safetensors.torch import load_file
from trainings import Death, doomed, small_recipe

from lira_hf.modeling import LiraForPreTraining
from lira_hf.training import run

# Where a kill has to be survived, however seldom a random moment falls there.
PLACES = [
    Death(event="open", path="trainer_state.json"),  # a checkpoint has its weights, not yet the rest
    Death(event="os.rename", path="lira_state.safetensors"),  # it has everything but what marks it as whole
    Death(event="os.remove", count=3),  # an old one is half removed, and the new one not yet whole
    Death(step=0, event="open", path="model.part/training_log.json"),  # the trained model is half written
    Death(step=0, event="os.rename", path="/model"),  # it is written, but not yet in its place
]
KILLS, AT_THE_END = 20, 2  # of PLACES the last ones

STAGES = {
    "anchoring": {"policy": "reinforce", "collapse_rank": 1.0},
    "retrieval": {"queue": "ema", "queue_size": 100},
    "ranking": {"corr_queue_size": 100},
    "reasoning": {},
}


def end(process) -> int:
    process.start()
    process.join(120)
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_twenty_times_ends_in_the_weights_of_an_undisturbed_one(stage, stage_data, backbones, llms, tmp_path):
    best = {} if stage == "anchoring" else {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True}

    def recipe(name: str):
        steps = {"max_steps": 80, "save_steps": 3, "logging_steps": 3, "per_device_train_batch_size": 24, "lr_scheduler_type": "cosine"}
        model = {"dropout": 0.2, "path_dropout": 0.2, **STAGES[stage]}
        return small_recipe(stage, stage_data(stage), {**backbones, **llms}, str(tmp_path / name), model, weight_decay=0.01, **steps, **best)

    assert end(CONTEXT.Process(target=run, args=(recipe("whole"),))) == 0
    rng = random.Random(0)
    # Delays of a step or two on a fast machine: all lives together must not reach the last step.
    deaths = [Death(step=rng.randint(1, 4), delay=rng.uniform(0, 0.01)) for _ in range(KILLS - len(PLACES))]
    deaths = [*deaths[:5], *PLACES[:-AT_THE_END], *deaths[5:], *PLACES[-AT_THE_END:]]
    cut_off = 0
    for number, death in enumerate(deaths):
        code = end(CONTEXT.Process(target=doomed, args=(recipe("killed"), death)))
        assert code == -signal.SIGKILL, f"life {number} was to end by {death}, and ended with exit code {code}"
        assert not (tmp_path / "killed" / "model").exists()
        cut_off += sum(not (folder / "lira_state.safetensors").exists() for folder in (tmp_path / "killed" / stage).glob("checkpoint-*"))
    assert cut_off >= 2  # the first two of PLACES
    assert end(CONTEXT.Process(target=run, args=(recipe("killed"), True))) == 0

    folder = Path("anchoring/model" if stage == "anchoring" else "model")
    whole, killed = (load_file(tmp_path / name / folder / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
    configs = [json.loads((tmp_path / name / folder / "config.json").read_text()) for name in ("whole", "killed")]
    assert configs[0] == configs[1]  # correction_scale, chosen after training
    assert not list(tmp_path.glob("killed/**/*.part"))


def test_the_collapse_alarm_goes_on_counting_after_a_resume(backbones):
    model, again = (LiraForPreTraining.from_backbones(backbones["xlm-r"], backbones["bert"], num_bins=2, width=16) for _ in range(2))
    model._collapsed_steps = 7
    again.load_queue_state(model.queue_state())
    assert again._collapsed_steps == 7
