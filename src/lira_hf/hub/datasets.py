"""Data sets on the Hub: a built data set becomes a repository of the Hub in one commit."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from lira_hf.catalogue.validation import validate
from lira_hf.hub.access import check_repo_id, hub_progress_bars, refusals_as_value_errors

# Never in the root: `datasets` refuses a repository whose root holds a script of the repository's name, whatever else is there.
SCRIPT = "scripts/laz_retrieval.py"


def publish_dataset(folder: str | Path, repo_id: str, private: bool = False, token: str | None = None, progress: bool = True) -> str:
    """Push the data set in `folder` to the dataset repository `repo_id`; returns the address of the commit.

    The repository is created where it is missing, with `private` for its owners' eyes only. Shards, card, checksums
    and loading script become visible in one commit, which also removes the shards of an earlier build: a reader sees
    the old data set or the new one. After a failure the repository is as it was (or new and empty), and the next call
    does not send again what has arrived. `token`: None takes what `hf auth login` or HF_TOKEN left.
    Raises ValueError for a folder that is no whole data set or is damaged, and when the Hub says no.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_repo_id(repo_id)
    paths = check_folder(Path(folder), progress)
    damages = validate(folder, progress)
    if damages:
        raise ValueError(f"folder: {str(folder)!r} is damaged ({damages[0].kind}: {damages[0].detail}); see `lira-hf data validate`")
    imported = json.loads((Path(folder) / "build.json").read_text(encoding="utf-8")).get("size") == "imported"
    script = (files("lira_hf.dataset_cards") / "laz-retrieval" / "laz_retrieval.py").read_bytes()
    with refusals_as_value_errors(repo_id, token), hub_progress_bars(progress):
        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)
        head = api.dataset_info(repo_id)
        if private and not head.private:
            raise ValueError(f"repo_id: {repo_id!r} exists and everyone can read it; make it private on the Hub, or give another name")
        published = api.list_repo_files(repo_id, repo_type="dataset", revision=head.sha)
        # create_commit and not upload_folder, which may split a large folder into several commits. It takes 25,000 files.
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path, Path(folder) / path) for path in paths),
                *([] if imported else [CommitOperationAdd(SCRIPT, script)]),  # it says whose data it is
                *(CommitOperationDelete(path) for path in published if path.endswith(".parquet") and path not in paths),
            ],
            commit_message="Publish an imported data set" if imported else "Publish LazRetrieval",
            repo_type="dataset",
            parent_commit=head.sha,  # a push by somebody else in between is an error, not a mixture
        )
    return commit.commit_url


def check_folder(folder: Path, progress: bool) -> list[str]:
    """The files to publish, as paths in `folder`. Raises ValueError unless they are a whole data set, byte for byte as built."""
    from huggingface_hub import DatasetCard

    if not folder.is_dir():
        raise ValueError(f"folder: {str(folder)!r} is no folder; give one that `lira-hf data build` made")
    try:
        hashes = dict(json.loads((folder / "build.json").read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"folder: {str(folder)!r} holds no data set (build.json with checksums); give one that `lira-hf data build` made") from None
    for path, expected in tqdm(hashes.items(), desc="checking", unit="file", disable=not progress):
        if not (folder / path).is_file():
            raise ValueError(f"folder: {str(folder)!r} lacks {path}, which build.json lists; build it again")
        with open(folder / path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"folder: {path} in {str(folder)!r} has changed since it was built (sha256 {found}, not {expected}); build it again")
    if not (folder / "README.md").is_file():
        raise ValueError(f"folder: {str(folder)!r} has no README.md; build it again")
    # What no config of the card names, nobody can load; and a config without files breaks every other.
    configs = DatasetCard.load(folder / "README.md").data.to_dict().get("configs") or []
    patterns = [entry["path"] for config in configs for entry in config["data_files"]]
    shards = [path for path in hashes if path.endswith(".parquet")]
    unnamed = [path for path in shards if not any(fnmatch(path, pattern) for pattern in patterns)]
    empty = [pattern for pattern in patterns if not any(fnmatch(path, pattern) for path in shards)]
    if unnamed or empty or not shards:
        raise ValueError(
            f"folder: the configs in README.md of {str(folder)!r} and its shards differ at {(unnamed + empty + ['(none)'])[0]}; build it again"
        )
    return sorted({*hashes, "README.md", "build.json"})
