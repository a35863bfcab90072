"""Publishing: a built data set becomes a repository of the Hub in one commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from lira_hf.catalogue.validation import validate

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


def check_repo_id(repo_id: str) -> None:
    """Raises ValueError unless `repo_id` reads ORG/NAME with characters that the Hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        valid = "/" in repo_id
    except HFValidationError:
        valid = False
    if not valid:
        raise ValueError(f"repo_id: {repo_id!r} is not allowed; give ORG/NAME of letters, digits, '-', '_' and '.', such as org/laz-retrieval")


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


@contextlib.contextmanager
def refusals_as_value_errors(repo_id: str, token: str | None) -> Iterator[None]:
    """Turns what the Hub or the way to it refuses into one ValueError that says what to do."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not (token or get_token()):
        raise ValueError("token: none was given or found; run `hf auth login` or set HF_TOKEN to a token that may write")
    try:
        yield
    except HfHubHTTPError.__bases__ as error:  # the HTTP client's own error, whichever client that is, and OSError
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = getattr(error, "server_message", None) or str(error) or type(error).__name__
        reasons = {
            401: "token: the Hub does not know it; run `hf auth login` or set HF_TOKEN to a token that may write",
            403: f"repo_id: the token may not write to {repo_id!r}",
            412: f"repo_id: somebody pushed to {repo_id!r} at the same time; look at it, then publish again",
        }
        reason = reasons.get(status, f"repo_id: publishing to {repo_id!r} failed, and can be tried again")
        raise ValueError(f"{reason} ({' '.join(said.split())})") from error


@contextlib.contextmanager
def hub_progress_bars(shown: bool) -> Iterator[None]:
    """Keeps the Hub client's own bars silent where they are not to be `shown`."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silence = not shown and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()
