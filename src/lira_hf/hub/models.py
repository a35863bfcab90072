"""Models on the Hub: a model folder becomes a repository in one commit, or in none."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lira_hf.hub.access import check_repo_id, hub_progress_bars, refusals_as_value_errors
from lira_hf.hub.vectors import vectors
from lira_hf.modeling import AUTO_MAP, hub_lira
from lira_hf.modeling.configuration_lira import CHOICES
from lira_hf.modeling.hub_lira import CHECKSUMS, digest, state_of
from lira_hf.reporting.results import weights_of

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".msgpack", ".h5", ".npz", ".npy")  # what runs code, or may
# What a Trainer leaves beside a model for itself; Trainer.push_to_hub leaves out the same folders.
TRAINERS = re.compile(r"(training_args\.bin|trainer_state\.json|(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|checkpoint-\d+/.*)")
CODE = sorted(path for path in Path(hub_lira.__file__).parent.glob("*_lira.py"))
SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
TOKENIZERS = {"multilingual": "", "english": "english_tokenizer/", "llm": "llm_tokenizer/"}
RESULTS = re.compile(r"results/[^/]+\.json")
GRAPHS = "onnx/export.json"  # of which weights the graphs beside it are
# Not among the checksums: people correct a card on the Hub's own pages, and a repository is not damaged by that.
UNCHECKED = ("README.md", CHECKSUMS)


@dataclass(frozen=True)
class Publication:
    """What a push led to. `changed` is False where the Hub had it all, and nothing was committed."""

    commit: str
    url: str
    changed: bool


def publish_model(
    folder: str | Path, repo_id: str, *, backbones: str | None = None, private: bool = False, token: str | None = None, progress: bool = True
) -> Publication:
    """Push the model in `folder` to the model repository `repo_id`, which is created where it is missing.

    All files become visible in one commit: weights, code, processor, results, and what is written for the occasion: a card rendered from the
    results, vectors.json (see lira_hf.hub.vectors) and checksums.json. The same commit removes what an earlier push left and this one
    does not have. The folder itself stays as it is. Afterwards the Hub is asked for the hash of each file; what was damaged on the way is
    sent again. After a failure the repository is as it was (or new and empty), and the next call does not send again what has arrived.

    Args:
        folder: what save_pretrained of model and processor wrote, with results/*.json, recipe.yaml, onnx/*.onnx where there are some; what a
            Trainer left there for itself (training_args.bin, optimizer.pt, checkpoint-100/ and the like) is not published.
        backbones: "embedded", the weights of the backbones inside, or "reference", only their repositories and commits; None as saved.
        private: for its owners' eyes only. token: None takes what `hf auth login` or HF_TOKEN left.
    Raises ValueError that names what is wrong with the folder, or what the Hub refused."""
    check_repo_id(repo_id)
    if backbones not in (None, *CHOICES["backbones"]):
        raise ValueError(f"backbones: {backbones!r} is not allowed; choose one of {', '.join(CHOICES['backbones'])}")
    folder = Path(folder)
    check_model_folder(folder)
    check_measured(folder)
    with tempfile.TemporaryDirectory(prefix="lira-push-") as workplace:
        try:
            staged = stage(folder, Path(workplace) / folder.resolve().name, repo_id, backbones)
        except OSError as error:  # such as of a backbone that is referred to
            raise ValueError(f"folder: {str(folder)!r} cannot be made ready to publish ({' '.join(str(error).split())})") from error
        with refusals_as_value_errors(repo_id, token), hub_progress_bars(progress):
            return send(staged, repo_id, private=private, token=token)


# ---- what is published --------------------------------------------------------------------------------------------------------


def check_model_folder(folder: Path) -> None:
    """Raises ValueError, which names the part, unless a folder holds a whole LiRA model that opens without a pickle."""
    config = read_json(folder, "config.json")
    if config.get("model_type") != "lira":
        raise ValueError(f"folder: config.json in {str(folder)!r} is of no LiRA model (model_type {config.get('model_type')!r})")
    for path in paths(folder):
        if path.endswith(PICKLES):
            raise ValueError(f"folder: {path} in {str(folder)!r} may run code where it is opened, and is not published; remove it")
    weights = ["model.safetensors"]
    if not (folder / weights[0]).is_file() and (folder / "model.safetensors.index.json").is_file():
        weights = sorted(set(read_json(folder, "model.safetensors.index.json").get("weight_map", {}).values()))
    tokenizers = [TOKENIZERS[path] for path in ("multilingual", "english", *(["llm"] if config.get("llm_config") else []))]
    needed = [*weights, "processor_config.json", *(f"{subfolder}tokenizer_config.json" for subfolder in tokenizers)]
    for path in [*needed, *(path.name for path in CODE), *SENTENCE_TRANSFORMERS]:
        if not (folder / path).is_file():
            raise ValueError(f"folder: {str(folder)!r} lacks {path}; write it with save_pretrained of model and processor")
    for path in weights:
        check_safetensors(folder, path)
    for path in CODE:
        if (folder / path.name).read_bytes() != path.read_bytes():
            raise ValueError(
                f"folder: {path.name} in {str(folder)!r} is not that of this version of lira-hf, with which its vectors would be computed; "
                "open the model and save it again"
            )
    found = config.get("auto_map", {}) | read_json(folder, "processor_config.json").get("auto_map", {})
    for name, entry in AUTO_MAP.items():
        if found.get(name) != entry:
            raise ValueError(f"folder: the auto_map in {str(folder)!r} names {found.get(name)!r} for {name}, not {entry!r}; save the model again")


def measured(folder: Path) -> dict[str, str]:
    """The files that say of which weights they, or the graphs beside them, are, with what they say; older ones do not."""
    there = [path for path in paths(folder) if path == GRAPHS or RESULTS.fullmatch(path)]
    said = {path: read_json(folder, path).get("weights") for path in there}
    return {path: weights for path, weights in said.items() if weights is not None}


def check_measured(folder: Path) -> None:
    """Raises ValueError, which names the file, where a folder holds results or graphs of other weights than its own."""
    for path, weights in measured(folder).items():
        if weights == weights_of(folder):
            continue
        if path == GRAPHS:
            raise ValueError(f"folder: onnx/model.onnx in {str(folder)!r} is of other weights; `lira-hf export` again, or remove onnx")
        raise ValueError(f"folder: {path} in {str(folder)!r} was measured with other weights; measure again, or remove it")


def paths(folder: Path) -> list[str]:
    """The files of a folder, as the Hub writes them, without hidden ones, Python's own cache, and what a Trainer keeps there for itself."""
    every = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = (path for path in every if not any(part.startswith(".") or part == "__pycache__" for part in path.parts))
    return sorted(path.as_posix() for path in shown if not TRAINERS.fullmatch(path.as_posix()))


def read_json(folder: Path, path: str) -> dict:
    try:
        return dict(json.loads((folder / path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"folder: {str(folder)!r} lacks {path}; give the folder of a trained model") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"folder: {path} in {str(folder)!r} cannot be read ({error})") from None


def check_safetensors(folder: Path, path: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / path, "pt") as file:  # compares its length with its header
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"folder: {path} in {str(folder)!r} is no whole safetensors file ({error})") from None


def stage(folder: Path, staged: Path, repo_id: str, backbones: str | None = None) -> Path:
    """Makes `staged`: links to the files of a model folder, and in their places those that differ, which are made here."""
    from lira_hf.reporting.card import model_card

    staged.mkdir(parents=True)
    if backbones not in (None, read_json(folder, "config.json").get("backbones", "embedded")):
        save_with(folder, staged, backbones)
    made = paths(staged)
    for path in paths(folder):
        replaced = bool(made) and path.startswith("model") and path.endswith((".safetensors", ".safetensors.index.json"))
        own = path not in made or path == SENTENCE_TRANSFORMERS[1]  # whose settings may have been changed
        if own and not replaced and path not in UNCHECKED:
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).unlink(missing_ok=True)
            os.symlink((folder / path).resolve(), staged / path)
    if made:  # the same weights in another file
        for path in measured(staged):
            write_json(staged, path, read_json(staged, path) | {"weights": weights_of(staged)})
    card = model_card(staged, repo_id)
    conceal_places(staged)
    write_json(staged, "vectors.json", vectors(staged))
    (staged / "README.md").write_text(card, encoding="utf-8")
    hashes = {path: digest(str(staged / path), *state_of(staged / path)) for path in paths(staged) if path not in UNCHECKED}
    write_json(staged, CHECKSUMS, {"sha256": hashes})
    return staged


def conceal_places(staged: Path) -> None:
    """Writes the files again that say where on somebody's disk a folder lay, with its last name alone."""
    from lira_hf.reporting.card import public_config, public_recipe, without_places

    for path in ["config.json", *(path for path in paths(staged) if RESULTS.fullmatch(path))]:
        content = read_json(staged, path)
        public = public_config(staged / path) if path == "config.json" else without_places(content)
        if public != content:
            write_json(staged, path, public)
    if (staged / "recipe.yaml").is_file():
        write_text(staged, "recipe.yaml", public_recipe(staged / "recipe.yaml"))


def save_with(folder: Path, staged: Path, backbones: str) -> None:
    """Saves the model of a folder again, with its backbones embedded or by reference."""
    from lira_hf import modeling

    named = (read_json(folder, "config.json").get("architectures") or [""])[0]
    head = getattr(modeling, named, modeling.LiraForRetrieval)
    head.from_pretrained(folder, backbones=backbones).save_pretrained(staged)


def write_json(folder: Path, path: str, content: dict) -> None:
    write_text(folder, path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_text(folder: Path, path: str, text: str) -> None:
    (folder / path).unlink(missing_ok=True)  # a link would lead to the original
    (folder / path).write_text(text, encoding="utf-8")


# ---- sending ------------------------------------------------------------------------------------------------------------------


def send(staged: Path, repo_id: str, *, private: bool = False, token: str | None = None) -> Publication:
    """Makes the repository hold the files of a staged folder, in one commit on what is there when the call begins.

    It ends when the hashes that the Hub lists are those of the folder, or with an error: what is missing or damaged after a commit is sent
    again; somebody else's commit in between is an error, not a mixture."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)

    def look(revision: str | None = None):
        return hub_lira.persistent(repo_id, hub_lira.TRIES, lambda _: api.model_info(repo_id, revision=revision, files_metadata=True))

    hub_lira.persistent(repo_id, hub_lira.TRIES, lambda _: api.create_repo(repo_id, private=private or None, exist_ok=True))
    first = head = look()
    if private and not head.private:
        raise ValueError(f"repo_id: {repo_id!r} exists and everyone can read it; make it private on the Hub, or give another name")
    published, ours, failure = earlier(first, repo_id, token), {first.sha}, None
    for number in range(hub_lira.TRIES + 1):
        listed = hub_lira.hashes(head)
        changed = [path for path in paths(staged) if not same(staged / path, listed.get(path))]
        stale = [path for path in listed if (path in published or is_weights(path)) and not (staged / path).exists()]
        if not changed and not stale:
            return Publication(head.sha, f"{api.endpoint}/{repo_id}/commit/{head.sha}", head.sha != first.sha)
        if head.sha not in ours:
            raise ValueError(f"repo_id: somebody pushed to {repo_id!r} at the same time; look at it, then publish again")
        if number == hub_lira.TRIES:
            break
        if number:
            time.sleep(hub_lira.PAUSE * 2 ** (number - 1))
        operations = [CommitOperationAdd(path, staged / path) for path in changed] + [CommitOperationDelete(path) for path in stale]
        revision = None
        try:
            revision = api.create_commit(repo_id, operations, commit_message="Publish a LiRA model", parent_commit=head.sha).oid
            ours.add(revision)
            failure = OSError(f"{(changed + stale)[0]}: the Hub has other bytes at {revision} than were sent")
        except (*hub_lira.ERRORS, RuntimeError) as error:  # a file that does not arrive as it was sent is a RuntimeError of the client
            if hub_lira.refused(error):
                raise
            failure = error  # the commit may be there all the same
        head = look(revision)
    raise OSError(f"{hub_lira.reason(failure)} (the last of {hub_lira.TRIES} attempts)") from failure


def earlier(info, repo_id: str, token: str | None) -> set[str]:
    """The files that the checksums of an earlier push list; none where they cannot be read."""
    if CHECKSUMS not in hub_lira.hashes(info):
        return set()
    with tempfile.TemporaryDirectory(prefix="lira-push-") as cache:
        snapshot = hub_lira.fetch(repo_id, revision=info.sha, token=token, cache_dir=cache, patterns=[CHECKSUMS])
        try:
            return set(read_json(snapshot, CHECKSUMS)["sha256"])
        except (ValueError, KeyError, TypeError):  # spoilt by hand
            return set()


def is_weights(path: str) -> bool:
    """Whether an opening model may take a file for its weights; one of another push would be the wrong ones."""
    return "/" not in path and path.endswith((*PICKLES, ".safetensors", ".safetensors.index.json"))


def same(file: Path, listed: str | None) -> bool:
    return listed is not None and digest(str(file), *state_of(file), len(listed)) == listed
