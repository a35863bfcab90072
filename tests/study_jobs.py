"""Jobs for processes of their own, which find them by the name of this module."""

import os
import time
from pathlib import Path

import torch

from lira_hf.evaluation.studies.working import Job


def jobs_of_processes(folder: Path, failing: int | None) -> list[Job]:
    """Each writes which process did it."""

    def do(number):
        if number == failing:
            raise ArithmeticError("this job cannot be done")
        time.sleep(0.2)
        (folder / f"{number}-{os.getpid()}-{torch.get_num_threads()}").touch()
        (folder / str(number)).touch()

    return [Job(folder / str(number), lambda number=number: do(number)) for number in range(8)]
