"""Beyond one machine: translation, judgement and features as datatrove tasks on this machine, on Slurm or on Ray.

A recipe (configs/cluster.yaml) says what to run and where. Task I of N does the texts whose hash falls to it, in a folder that no other task
touches: the machines need a folder that all of them see, but no locks between them. A last step takes in what the tasks made and writes
what one process would have written.

    OUTPUT/tasks/translate-00003-of-00064/   a task's own store, or features; gone once the last step has taken them in
    OUTPUT/logs/translate-1f3a.../tasks/     logs, stats and completions of datatrove: a task that is complete is skipped when started again
    OUTPUT/logs/translate-1f3a.../result/    those of the last step, which runs at every start; another recipe or input has another name

Start one recipe for an OUTPUT at a time, and again only when its jobs are gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

try:
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ValueError("cluster: the datatrove package is missing; pip install 'lira-hf[cluster]'") from error

# ---- where it runs -----------------------------------------------------------------------------------------------------------


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Local(Part):
    """Processes on this machine."""

    kind: Literal["local"]
    workers: int = Field(1, ge=1)

    def executor(self, steps: list[PipelineStep], tasks: int, logs: Path, name: str, skip: bool) -> LocalPipelineExecutor:
        return LocalPipelineExecutor(steps, tasks, min(self.workers, tasks), logging_dir=str(logs), skip_completed=skip)


class Slurm(Part):
    """Job arrays. The fields are sbatch's; the jobs find the Python environment of whoever submits them, unless `env_command` makes another."""

    kind: Literal["slurm"]
    partition: str
    time: str = Field(pattern=r"^(\d+-)?\d+(:\d{1,2}){0,2}$")
    workers: int | None = Field(None, ge=1)
    cpus_per_task: int = Field(1, ge=1)
    mem_per_cpu_gb: int = Field(4, ge=1)
    gpus_per_task: int = Field(0, ge=0)
    qos: str | None = None
    env_command: str | None = None
    sbatch_args: dict[str, str | int | None] = {}

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, int):  # what YAML makes of 12:00:00
            raise ValueError("put it in quotes, such as '12:00:00'; YAML reads it as a number without them")
        return value

    def executor(self, steps: list[PipelineStep], tasks: int, logs: Path, name: str, skip: bool) -> SlurmPipelineExecutor:
        options = self.model_dump(exclude={"kind", "workers"})
        activate = Path(sys.prefix) / "bin" / "activate"
        if self.env_command is None and activate.is_file():
            options["venv_path"] = str(activate)
        return SlurmPipelineExecutor(steps, tasks, workers=self.workers or -1, job_name=name, logging_dir=str(logs), skip_completed=skip, **options)


class Ray(Part):
    """Tasks of a Ray cluster that runs already; `address` null starts one on this machine."""

    kind: Literal["ray"]
    address: str | None = "auto"
    workers: int | None = Field(None, ge=1)
    cpus_per_task: int = Field(1, ge=1)
    mem_per_cpu_gb: float = Field(4, gt=0)
    gpus_per_task: int = Field(0, ge=0)

    def executor(self, steps: list[PipelineStep], tasks: int, logs: Path, name: str, skip: bool) -> RayPipelineExecutor:
        options = self.model_dump(exclude={"kind", "workers", "address"})
        return RayPipelineExecutor(steps, tasks, self.workers or -1, logging_dir=str(logs), skip_completed=skip, log_first=True, **options)


# ---- what is run -------------------------------------------------------------------------------------------------------------


class Work(Part):
    tasks: int = Field(ge=1, le=99_999)
    executor: Annotated[Local | Slurm | Ray, Field(discriminator="kind")]


class Asking(Work):
    """What translation and judgement have in common; the fields are the options of `lira-hf translate` and `judge`."""

    input: str
    output: str
    languages: list[str] | None = None
    model: str
    endpoint: str | None = None
    concurrency: int = Field(8, ge=1)
    timeout: float = Field(60.0, gt=0)
    retry_failed: bool = False
    price_in: float | None = Field(None, ge=0)
    price_out: float | None = Field(None, ge=0)

    @property
    def folder(self) -> Path:
        return Path(self.output)

    def check(self) -> str:
        """Finds mistakes before anything is started, mends the store after a kill, and returns a digest of what decides on the tasks' work."""
        from lira_hf.translation.requests import DataFolder, open_input
        from lira_hf.translation.store import Store

        if self.endpoint:
            self._endpoint()
        source = open_input(self.input, self.languages)
        with Store(self.folder / "store"):  # takes in journals of killed processes
            if any((self.folder / "store").glob("journal-*.jsonl")):
                raise ValueError(f"output: {self.output!r} is in use by another process; wait for it")
        recipe = self.model_dump(mode="json", exclude={"executor", "concurrency", "timeout", "retry_failed", "price_in", "price_out"})
        return digest(recipe, source.folder if isinstance(source, DataFolder) else source.path)

    def share(self, folder: Path, shard: tuple[int, int], unfinished: int) -> dict[str, int]:
        """Asks for the texts of a shard that neither OUTPUT nor the task's own folder holds."""
        store = self.folder / "store"
        (folder / "store").mkdir(parents=True, exist_ok=True)
        for path in store.glob("*.parquet"):
            with contextlib.suppress(OSError):  # it is there, or this file system has no links: then `merge` copies it
                os.link(path, folder / "store" / path.name)
        return self._ask(folder, shard, [self.folder] if any(store.glob("*.parquet")) else [], self.retry_failed)

    def finish(self, folders: list[Path]) -> dict[str, int]:
        """Merges the tasks' stores into that of OUTPUT, and writes the result."""
        return self._ask(self.folder, (0, 1), [folder for folder in folders if any(folder.glob("store/*.parquet"))], retry_failed=False)

    def describe(self) -> str:
        from lira_hf.translation.summary import render_summary

        return "\n".join(render_summary(json.loads((self.folder / f"{self.run}.json").read_text(encoding="utf-8"))))

    def _endpoint(self):
        from lira_hf.translation.endpoint import Endpoint

        return Endpoint(self.endpoint, self.model, concurrency=self.concurrency, timeout=self.timeout)

    def _options(self, shard: tuple[int, int], merge: list[Path], retry_failed: bool) -> dict[str, Any]:
        price = None if self.price_in is None and self.price_out is None else (self.price_in or 0.0, self.price_out or 0.0)
        alone = isinstance(self.executor, Local) and self.executor.workers == 1  # several bars would write over each other
        return {"languages": self.languages, "shard": shard, "merge": merge, "retry_failed": retry_failed, "price": price, "progress": alone}


class Translate(Asking):
    run: Literal["translate"]
    candidates: int = Field(4, ge=1, le=64)
    decoding: Literal["beams", "sampling"] = "beams"
    brands: list[str] = []

    def _ask(self, output: Path, shard: tuple[int, int], merge: list[Path], retry_failed: bool) -> dict[str, int]:
        from lira_hf.translation.running import translate
        from lira_hf.translation.translators import LocalTranslator, PromptedTranslator

        local = self.endpoint is None
        translator = LocalTranslator.from_pretrained(self.model, decoding=self.decoding) if local else PromptedTranslator(self._endpoint())
        return translate(self.input, output, translator, self.candidates, brands=self.brands, **self._options(shard, merge, retry_failed))


class Judge(Asking):
    run: Literal["judge"]
    rounds: int = Field(1, ge=1)

    def _ask(self, output: Path, shard: tuple[int, int], merge: list[Path], retry_failed: bool) -> dict[str, int]:
        from lira_hf.translation.critic import PromptedCritic
        from lira_hf.translation.local import LocalChat
        from lira_hf.translation.running import judge

        chat = LocalChat.from_pretrained(self.model) if self.endpoint is None else self._endpoint()
        return judge(self.input, output, PromptedCritic(chat), self.rounds, **self._options(shard, merge, retry_failed))


class Features(Work):
    """The feature cache of a training recipe. OUTPUT is the folder of the cache, and whatever the tasks leave out, the last step fills."""

    run: Literal["features"]
    recipe: str

    @property
    def folder(self) -> Path:
        training = self._training()
        return Path(training.features or Path(training.output) / "features").absolute()

    def check(self) -> str:
        training = self._training()
        deciding = {"data", "backbones", "languages", "seed", "max_length", "prompts", "features", "features_dtype", "model"}
        return digest({**self.model_dump(mode="json", exclude={"executor"}), **training.model_dump(include=deciding)}, Path(training.data))

    def share(self, folder: Path, shard: tuple[int, int], unfinished: int) -> dict[str, int]:
        """Fills the task's folder with the features of its texts that the cache does not hold."""
        import numpy as np

        from lira_hf.features import fill
        from lira_hf.features.filling import texts_of
        from lira_hf.features.keys import PATHS, cache_key, key_folder, text_key
        from lira_hf.features.store import shard_files, shard_keys
        from lira_hf.modeling.processing_lira import Row

        training = self._training()
        model, processor, rows = self._rows(training)
        wanted = {}
        for path in PATHS:
            cache = key_folder(self.folder, cache_key(model, processor, path, training.features_dtype))
            held = [shard_keys(file) for file in shard_files(cache)]
            keys = np.fromiter(map(text_key, texts_of(path, rows, processor)), np.int64)
            mine = (keys % shard[1] == shard[0]) & ~np.isin(keys, np.concatenate([np.empty(0, np.int64), *held]))
            wanted[path] = iter(mine.tolist())
        parts = [
            Row(
                row.text if row.text is not None and next(wanted["multilingual"]) else None,
                [text for text in row.translations if next(wanted["english"])],
                language=row.language,
                prompt=row.prompt,
            )
            for row in rows
        ]
        parts = [row for row in parts if row.text is not None or row.translations]
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free // unfinished  # the other tasks predict their size at the same moment
        fill(folder, model, processor, parts, training.features_dtype, limit=room, show_progress_bar=self._alone())
        return {"rows": len(parts)}

    def finish(self, folders: list[Path]) -> dict[str, int]:
        """Moves the tasks' shards into the cache and makes its index."""
        from lira_hf.features import fill

        for key in (path for folder in folders for path in folder.glob("*/key.json")):
            target = self.folder / key.parent.name
            (target / "shards").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(key, target / "key.json.part")
            os.replace(target / "key.json.part", target / "key.json")
            for shard in (key.parent / "shards").glob("*.safetensors"):
                os.replace(shard, target / "shards" / shard.name)
        training = self._training()
        store = fill(self.folder, *self._rows(training), training.features_dtype, show_progress_bar=self._alone())
        return {f"{path} texts": len(shards) for path, shards in store.shards.items()}

    def describe(self) -> str:
        return f"features in {self.folder}"

    def _alone(self) -> bool:
        return isinstance(self.executor, Local) and self.executor.workers == 1

    def _training(self):
        from lira_hf.training import load_recipe

        return load_recipe(self.recipe)

    def _rows(self, training):
        """Frozen model, processor, and all rows that training will read."""
        from lira_hf.collation import every_row
        from lira_hf.training import load_parts

        model, processor, train, validation = load_parts(training)
        return model.lira, processor, every_row([*train, *validation], references=bool(model.config.consistency_weight))


Recipe = Annotated[Translate | Judge | Features, Field(discriminator="run")]


def load_recipe(path: str | Path) -> Recipe:
    """Reads a YAML recipe. Raises ValueError in one line: the file, the field, what is wrong."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in KINDS)  # pydantic names the chosen kind, too
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") or isinstance(first["input"], dict) else f", not {first['input']!r}"
        raise ValueError(f"{path}: {name}{name and ': '}{message}{given}") from None


KINDS = ("translate", "judge", "features", "local", "slurm", "ray")


def digest(recipe: dict[str, Any], data: Path) -> str:
    """A name for work: the same for the same recipe and the same bytes of data."""
    record = data / "build.json"  # has the checksums of all the others
    files = [record] if record.is_file() else sorted(path for path in (data, *data.rglob("*")) if path.is_file())
    found = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()[:12]


# ---- the two steps -----------------------------------------------------------------------------------------------------------


class Step(PipelineStep):
    """A step of a pipeline that has no other; `counts` of the work go to datatrove's statistics."""

    type = "LiRA"

    def __init__(self, recipe: Recipe, logs: Path):
        self.name = f"{recipe.run}, {type(self).__name__.lower()}"
        super().__init__()
        self.recipe, self.logs = recipe, logs
        self.home = Path.cwd()  # relative paths of a recipe start here, also on another machine

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        with self.track_time("task"), contextlib.chdir(self.home):
            counts = self.work(rank, world_size)
        for name, count in counts.items():
            if isinstance(count, int):
                self.stat_update(name, value=count, unit="task")


class Share(Step):
    """A task: its share of the texts, in its own folder."""

    def work(self, rank: int, world_size: int) -> dict[str, int]:
        unfinished = world_size - len(list((self.logs / "tasks" / "completions").glob("*")))
        return self.recipe.share(folder_of(self.recipe, rank), (rank, world_size), unfinished)


class Result(Step):
    """The last step: takes the shares together, writes the result, and removes what it took in."""

    def work(self, rank: int, world_size: int) -> dict[str, int]:
        folders = [folder for each in range(self.recipe.tasks) if (folder := folder_of(self.recipe, each)).is_dir()]
        counts = self.recipe.finish(folders)
        for folder in folders:
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # it is missing, or another recipe's tasks are in it
            (self.recipe.folder / "tasks").rmdir()
        return counts


def folder_of(recipe: Recipe, rank: int) -> Path:
    return recipe.folder / "tasks" / f"{recipe.run}-{rank:05d}-of-{recipe.tasks:05d}"


# ---- starting ----------------------------------------------------------------------------------------------------------------


def executors(recipe: Recipe) -> tuple[PipelineExecutor, PipelineExecutor]:
    """That of the tasks and that of the last step. Raises ValueError where the input or an earlier start does not fit the recipe."""
    name = f"{recipe.run}-{recipe.check()}"
    counts = {int(folder.name.rpartition("-")[2]) for folder in (recipe.folder / "tasks").glob(f"{recipe.run}-*-of-*")}
    if counts - {recipe.tasks}:
        raise ValueError(f"tasks: {recipe.tasks} is not allowed, because an earlier start of {min(counts)} is unfinished; give {min(counts)}")
    logs = recipe.folder.absolute() / "logs" / name
    place, steps = recipe.executor, (Share(recipe, logs), Result(recipe, logs))
    tasks = place.executor([steps[0]], recipe.tasks, logs / "tasks", name, skip=True)
    return tasks, place.executor([steps[1]], 1, logs / "result", f"{name}-result", skip=False)


def launch(recipe: Recipe) -> str:
    """Runs a recipe to its end, or, on Slurm, submits it. Returns what there is to say; started again it does what is left.

    Raises ValueError for mistakes, and what a task raised."""
    if isinstance(recipe.executor, Slurm) and not shutil.which("sbatch"):
        raise ValueError("executor: there is no sbatch here; start the recipe on a login node of the Slurm cluster")
    if isinstance(recipe.executor, Ray):
        _join_ray(recipe.executor.address)
    tasks, result = executors(recipe)
    if isinstance(recipe, Asking) and recipe.retry_failed:  # no task is finished, then
        shutil.rmtree(Path(tasks.logging_dir.path) / "completions", ignore_errors=True)
    if isinstance(recipe.executor, Slurm):
        result.depends = tasks
        result.run()
        return f"submitted as job {result.job_id}, which waits for the {recipe.tasks} tasks; logs in {tasks.logging_dir.path}"
    tasks.run()
    if left := tasks.get_incomplete_ranks(skip_completed=True):
        raise RuntimeError(f"{len(left)} of {recipe.tasks} tasks failed, such as {left[0]}; see {tasks.logging_dir.path}/logs, and start again")
    result.run()
    return recipe.describe()


def _join_ray(address: str | None) -> None:
    if not importlib.util.find_spec("ray"):
        raise ValueError("executor: the ray package is missing; pip install ray")
    import ray

    try:
        ray.init(address=address, ignore_reinit_error=True)
    except ConnectionError as error:
        raise ValueError(f"executor.address: there is no Ray cluster at {address!r}; start one, or give null for this machine") from error
