"""The Hub: downloads that end whole or with one error, the code that came with them, and transformers' own uploads.

The Hub's own client does not look at what it has downloaded, only at its length, and gives up at a connection that is reset or a
file that is answered with 503. `fetch` compares every file with the hash that the Hub lists for it, removes one that differs and asks
again. A hash is computed once: what was found right is noted in the cache with its size and its time of change, so a file that
was written since is read again; small files, which configurations and code are, are read at every call.
"""

import functools
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import filter_repo_objects
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, logging

logger = logging.get_logger(__name__)

TRIES = 6  # of each request
PAUSE = 1.0  # seconds after the first failure, doubled after each further one
WORKERS = 8  # files at a time
SMALL = 2**23  # bytes; 8 MB are read in milliseconds
RECORD = "lira.json"  # in a repository's folder of the cache: its listings, and which files were found right
CHECKSUMS = "checksums.json"
STATEMENTS = (CHECKSUMS, "vectors.json")  # what `lira-hf push` says of all files of a repository
LOCATION = ("cache_dir", "token", "local_files_only", "force_download")  # how the Hub is reached
REMOTE = __name__.partition(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME  # whether this is the code beside the weights, not the installed package
CODE = ("*_lira.py",) if REMOTE else ()
BUSY = (408, 425, 429)  # answers that ask to come again, as 5xx do
ERRORS = (
    *HfHubHTTPError.__bases__,
    ValueError,
)  # what the client raises: the error of its HTTP library, OSError; ValueError when a download is forced


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
    patterns: list[str] | None = None,
) -> Path:
    """A model repository, or a part of it, in the Hub's cache, every file with the hash that the Hub lists for it.

    Args:
        revision: branch, tag or commit; None is main. All files are of the one commit that it names when the call begins.
        token, cache_dir, local_files_only, force_download: as in huggingface_hub; also HF_HUB_OFFLINE is obeyed. Without a network
            a cache that holds what is asked for serves it.
        subfolder: only what is below it. patterns: only what matches one of these, as paths in the subfolder.
    Returns the snapshot's folder, whose name is the commit (also with a subfolder). Raises OSError that names the file, or the repository,
    and the reason: nothing like it exists, no access, no network, or still wrong after TRIES attempts."""
    revision = getattr(revision, "resolved", revision)  # the commit, where transformers has looked it up
    home = Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / f"models--{repo_id.replace('/', '--')}"
    record = read_record(home)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    commit, listing = cached_listing(home, record, revision or "main")
    if not offline and not (commit == revision and commit in record["listings"]):  # what a commit lists never changes
        try:
            commit, listing = listed(repo_id, revision, token, tries=TRIES if listing is None else 2)
        except OSError as error:
            if listing is None or refused(error.__cause__):
                raise
            logger.warning(f"{error}; what the cache has of commit {commit} is used")
    if listing is None:
        raise OSError(f"{repo_id}: no revision {revision or 'main'!r} in the cache at {home}, and the Hub is not to be asked")
    wanted = list(
        filter_repo_objects((path for path in listing if path.startswith(subfolder and f"{subfolder}/")), allow_patterns=below(subfolder, patterns))
    )
    if not wanted:
        raise OSError(f"{repo_id}: no file in {subfolder or 'it'!r} matches {patterns or 'anything'!r} at commit {commit}")
    snapshot = home / "snapshots" / commit
    where = {"token": token, "cache_dir": home.parent, "local_files_only": offline, "revision": commit}
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(whole, repo_id, path, listing[path], snapshot / path, record["right"], force_download, where) for path in wanted]
        try:
            right = dict(job.result() for job in jobs)
        finally:
            for job in jobs:
                job.cancel()  # after the first error; those that run come to their end
    # The branch's name last: without a network it leads to a commit that was whole.
    ref = home / "refs" / (revision or "main")
    record["listings"][commit] = listing
    record["right"] |= right
    with suppress(OSError):  # notes for the next call, which a cache that cannot be written does without
        if commit != revision and not offline and not (ref.is_file() and ref.read_text(encoding="utf-8").strip() == commit):
            write(ref, commit)
        if record != read_record(home):
            write(home / RECORD, json.dumps(record))
    return snapshot


def listed(repo_id: str, revision: str | None, token, tries: int) -> tuple[str, dict[str, str]]:
    """The commit of a revision, and the hash of each of its files."""
    info = persistent(repo_id, tries, lambda _: HfApi(token=token).model_info(repo_id, revision=revision, files_metadata=True))
    return info.sha, hashes(info)


def hashes(info) -> dict[str, str]:
    """The hash of each file of a repository: sha256 (64 digits), or git's sha1 of small ones (40). info: model_info's, with files_metadata."""
    return {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings}


def whole(repo_id: str, path: str, expected: str, file: Path, right: dict, force: bool, where: dict) -> tuple[str, list[int]]:
    """Makes `file` the one that the Hub lists; what to note of it: its hash, and its state."""

    def attempt(_: int) -> tuple[str, list[int]]:
        hf_hub_download(repo_id, path, force_download=force, **where)
        state = state_of(file)
        if state[0] > SMALL and right.get(expected) == state and not force:
            return expected, state
        found = digest(str(file), *state, len(expected))
        if found != expected:
            if not where["local_files_only"]:  # else what is left of it cannot be had again
                discard(file)
            raise OSError(f"its content has the hash {found}, and the Hub lists {expected}")
        return expected, state

    return persistent(f"{repo_id}: {path}", 1 if where["local_files_only"] else TRIES, attempt)


def persistent(name: str, tries: int, attempt):
    """attempt(number), again while it fails for a passing reason; OSError that says what `name` is and what failed."""
    for number in range(tries):
        try:
            return attempt(number)
        except ERRORS as error:
            last = number == tries - 1
            if last or refused(error):
                raise OSError(f"{name}: {reason(error)}" + (f" (the last of {tries} attempts)" if last and tries > 1 else "")) from error
            logger.info(f"{name}: {reason(error)}; again in {PAUSE * 2**number} s")
            time.sleep(PAUSE * 2**number)


def refused(error: BaseException | None) -> bool:
    """Whether asking again is vain: the Hub says no, or the disk does."""
    if isinstance(error, ValueError) and error.__cause__ is not None:  # the client's wrapping of what has failed
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status < 500 and status not in BUSY
    return (
        isinstance(error, HFValidationError)
        or isinstance(error, OSError)
        and error.errno is not None
        and not isinstance(error, (ConnectionError, TimeoutError))
    )


def reason(error: BaseException) -> str:
    """The cause of an error in one line; the client wraps some."""
    cause = error if getattr(error, "response", None) is not None else error.__cause__ or error
    said = getattr(cause, "server_message", None) or str(cause) or type(cause).__name__
    status = getattr(getattr(cause, "response", None), "status_code", "")
    upload = f"{error} " if isinstance(error, RuntimeError) and cause is not error else ""  # it names the file
    return " ".join(f"{upload}{status} {said}".split())


# ---- the cache -----------------------------------------------------------------------------------------------------------


def read_record(home: Path) -> dict:
    """{"listings": {commit: {path: hash}}, "right": {hash: state}}; empty where it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads((home / RECORD).read_text(encoding="utf-8"))
        return {"listings": dict(found["listings"]), "right": dict(found["right"])}
    return {"listings": {}, "right": {}}


def cached_listing(home: Path, record: dict, revision: str) -> tuple[str, dict[str, str] | None]:
    """The commit that a revision was when it was last asked for, and the hashes of its files; None where it is not in the cache.

    Of a snapshot that other programs have downloaded the names of the blobs are the hashes, and what is there may be a part."""
    ref = home / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    if commit in record["listings"]:
        return commit, record["listings"][commit]
    snapshot = home / "snapshots" / commit
    links = [path for path in snapshot.rglob("*") if path.is_symlink()]
    return commit, {path.relative_to(snapshot).as_posix(): Path(os.readlink(path)).name for path in links} or None


def state_of(file: Path) -> list[int]:
    """Size, time of change and inode: another one for another content, as in git's index."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


@functools.lru_cache(maxsize=4096)
def digest(file: str, size: int, changed: int, inode: int, digits: int = 64) -> str:
    """sha256 of a file (64 digits), or git's sha1 of it as a blob (40). Its state, the other arguments, makes the memory of it honest."""
    with open(file, "rb") as stream:
        start = hashlib.sha1(b"blob %d\0" % size) if digits == 40 else hashlib.sha256()
        return hashlib.file_digest(stream, lambda: start).hexdigest()


def discard(file: Path) -> None:
    """Removes a file of the cache: its name in the snapshot and the blob that the name leads to."""
    while file.is_symlink():
        target = file.parent / os.readlink(file)
        file.unlink(missing_ok=True)
        file = target
    file.unlink(missing_ok=True)


def write(file: Path, text: str) -> None:
    """Writes a text file whole or not at all, as it is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        os.replace(part, file)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def below(subfolder: str, patterns: list[str] | None) -> list[str] | None:
    return patterns and [f"{subfolder}/{pattern}" if subfolder else pattern for pattern in patterns]


# ---- sending what transformers saved ------------------------------------------------------------------------------------------


def upload_modified_files(
    self, working_dir, repo_id, files_timestamps, commit_message=None, token=None, create_pr=False, revision=None, commit_description=None
):
    """PushToHubMixin's method of that name, for models and processors: push_to_hub and save_pretrained(push_to_hub=True) call it. Its commit
    also removes the STATEMENTS of an earlier `lira-hf push`, which are no longer true of the files there."""
    api, folder = HfApi(token=token), Path(working_dir)
    changed = [path for path in sorted(folder.iterdir()) if path.stat().st_mtime > files_timestamps.get(path.name, -1)]
    files = [file for path in changed for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()]
    if revision is not None and not revision.startswith("refs/pr"):
        with suppress(HfHubHTTPError) if create_pr else nullcontext():  # who may only propose a change may make no branch
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    sent = [file.relative_to(folder).as_posix() for file in files]
    untrue = [path for path in api.list_repo_files(repo_id, revision=revision) if path in STATEMENTS and path not in sent]
    return api.create_commit(
        repo_id,
        [*map(CommitOperationAdd, sent, files), *map(CommitOperationDelete, untrue)],
        commit_message=commit_message or f"Upload {type(self).__name__}",
        commit_description=commit_description,
        create_pr=create_pr,
        revision=revision,
    )


# ---- the code that runs -----------------------------------------------------------------------------------------------


def check_code(snapshot: Path) -> None:
    """Compares the code that runs, transformers' copy of a commit's, with the checked files of that commit.

    transformers has downloaded it unchecked, and never again looks at a copy. Each copy that differs is made right; where it was imported
    before, all modules beside it are forgotten, so that the next call reads them anew, and an OSError names it."""
    folder, package, spoiled = Path(__file__).parent, __name__.rpartition(".")[0], []
    if not REMOTE or folder.name != snapshot.name:  # transformers names the folder by the commit
        return
    for right in sorted(snapshot.glob(CODE[0])):
        copy = folder / right.name
        if not copy.is_file() or copy.read_bytes() == right.read_bytes():
            continue
        write(copy, right.read_bytes().decode("utf-8"))
        Path(importlib.util.cache_from_source(copy)).unlink(missing_ok=True)  # of the same length and second, it would pass for the right one's
        if f"{package}.{copy.stem}" in sys.modules:
            spoiled.append(copy)
    if spoiled:
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]
        raise OSError(f"{spoiled[0]}: not whole when it was imported; it is now, so open the model again")


# ---- a folder's own checksums -----------------------------------------------------------------------------------------------


def check_files(folder: str | os.PathLike, patterns: list[str] | None = None) -> None:
    """Compares a model folder with its checksums.json ({"sha256": {path: 64 digits}}), where it has one: the files that match one of the patterns,
    or all of them.

    A file is read once in a process, about a second per GB, and again when it was written since. Raises ValueError that names the first
    file that is missing or differs."""
    folder = Path(folder)
    if not (folder / CHECKSUMS).is_file():
        return
    try:
        checksums = dict(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / CHECKSUMS}: no checksums can be read; download or save the folder again") from None
    for path in filter_repo_objects(checksums, allow_patterns=patterns):
        if not (folder / path).is_file():
            raise ValueError(f"{folder / path}: missing, though {CHECKSUMS} lists it; download or save the folder again")
        found = digest(str(folder / path), *state_of(folder / path))
        if found != checksums[path]:
            raise ValueError(f"{folder / path}: its sha256 is {found}, and {CHECKSUMS} lists {checksums[path]}; download or save the folder again")
