"""Python functions in processes of their own: several that train together, or one that is killed. They are forked from a server that
has imported the library once, so a process costs milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lira_hf.training", "lira_hf.evaluation.retrieval", "torch.distributed.fsdp", "torch.distributed.checkpoint"])


def together(count: int, function: Callable, *args: Any, env: dict[str, str] | None = None, timeout: float = 240) -> list[Any]:
    """What function(*args) returns in each of `count` gloo processes, in the order of their ranks. A failure in one is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **(env or {})}
    with tempfile.TemporaryDirectory() as folder:
        processes = [CONTEXT.Process(target=answer, args=(rank, env, folder, function, args)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout)
        files = [Path(folder) / str(rank) for rank in range(count)]
        answers = [pickle.loads(file.read_bytes()) if file.exists() else "no answer in time, or died" for file in files]
        for process in processes:
            process.kill()
            process.join()
    failures = [f"process {rank}: {found}" for rank, found in enumerate(answers) if isinstance(found, str)]
    assert not failures, "\n".join(failures)
    return [found[0] for found in answers]


def answer(rank: int, env: dict[str, str], folder: str, function: Callable, args: tuple) -> None:
    os.environ.update(env, RANK=str(rank), LOCAL_RANK=str(rank), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    torch.set_num_threads(1)
    try:
        found = (function(*args),)
    except BaseException:
        found = traceback.format_exc()
    part = Path(folder) / f"{rank}.part"
    part.write_bytes(pickle.dumps(found))
    os.replace(part, Path(folder) / str(rank))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
