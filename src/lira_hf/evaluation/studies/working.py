"""Jobs, shared by several processes: each is done once, by whichever comes first, and not at all where its file is there."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

POLL = 0.5  # seconds between two looks at what the others have finished


@dataclass(frozen=True)
class Job:
    """done: what is there when it is done, and not before. needs: what must be there before it can begin; other jobs make it."""

    done: Path
    do: Callable[[], Any]
    needs: tuple[Path, ...] = ()


def work(jobs: Sequence[Job]) -> None:
    """Does jobs until all are done, here or elsewhere. A claim is a lock of the system: a process that dies gives it back."""
    parent = multiprocessing.parent_process()
    while left := [job for job in jobs if not job.done.exists()]:
        if not any(attempt(job) for job in left):
            time.sleep(POLL)
        if parent is not None and not parent.is_alive():
            return  # whoever wanted the results is gone


def attempt(job: Job) -> bool:
    """Does a job that can begin and that nobody else has claimed; whether it did."""
    if not all(need.exists() for need in job.needs):
        return False
    job.done.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.done.with_name(f".{job.done.name}.lock"), timeout=0):
            if job.done.exists():
                return False
            job.do()
            return True
    except Timeout:
        return False


def work_together(workers: int, make_jobs: Callable[..., Sequence[Job]], *arguments: Any, title: str = "jobs") -> None:
    """make_jobs(*arguments) in so many processes, which do the jobs between them, each with its part of the cores.

    make_jobs is called in each process, as what jobs share cannot be sent; it must be found by its name. Raises RuntimeError where jobs are
    left over: their failure stands above."""
    jobs = make_jobs(*arguments)
    left = sum(not job.done.exists() for job in jobs)
    if min(workers, left) <= 1:
        for job in tqdm(jobs, desc=title, unit="job"):
            work([job])
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_begin, args=(threads, make_jobs, arguments), daemon=True) for _ in range(workers)]
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")  # read when a process starts, and never again
    try:
        for process in processes:
            process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    with tqdm(total=len(jobs), desc=title, unit="job") as bar:
        running = True
        while running:
            running = any(process.is_alive() for process in processes)
            if finished := sum(job.done.exists() for job in jobs) - bar.n:
                bar.update(finished)
            time.sleep(POLL)
    missing = [str(job.done) for job in jobs if not job.done.exists()]
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(jobs)} jobs are left over, {missing[0]} among them; what stopped them stands above")


def _begin(threads: int, make_jobs: Callable[..., Sequence[Job]], arguments: tuple) -> None:
    torch.set_num_threads(threads)
    work(make_jobs(*arguments))
