"""Downloads over a faulty way: whole, or one error that names the file; and never a lock or a part left."""

import json
import os
from pathlib import Path

import pytest
from client_of_hub import client_of
from huggingface_hub import HfApi, __version__
from loopback_hub import LoopbackHub

from lira_hf.modeling import hub_lira
from lira_hf.modeling.hub_lira import check_files, fetch

REPO = "org/files"
OLD_CLIENT = __version__.startswith("1.")
FILES = {"config.json": b'{"a": 1}', "model.safetensors": os.urandom(200_000), "sub/tokenizer.json": b"[1, 2, 3]"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        with client_of(hub, tmp_path_factory.mktemp("publisher")):
            api.create_repo(REPO)
            for path, content in FILES.items():
                commit = api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=REPO)
        hub.commit = commit.oid
        yield hub


@pytest.fixture
def hub(server, tmp_path):
    server.reset()
    hub_lira.digest.cache_clear()
    with client_of(server, tmp_path):
        yield server


def assert_whole(snapshot: Path, paths=FILES) -> None:
    assert {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()} == {
        p: FILES[p] for p in paths
    }


def assert_tidy(home: Path) -> None:
    from filelock import FileLock

    for path in filter(Path.is_file, home.rglob("*")):
        # Older clients keep the part of a file that came, and go on from it the next time; nothing takes it for the file.
        assert not path.name.endswith((".part", ".tmp", *([] if OLD_CLIENT else [".incomplete"])))
        if path.suffix == ".lock":
            with FileLock(path, timeout=0):
                pass


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "fault",
    [{"kind": "status"}, {"kind": "status", "status": 500, "times": 3}, {"kind": "reset", "after_bytes": 5}, {"kind": "reset"}, {"kind": "corrupt", "times": 2},
     {"kind": "truncate", "after_bytes": 5}],
    ids=lambda fault: "-".join(map(str, fault.values())),
)  # fmt: skip
def test_a_fault_on_the_way_of_any_file_does_not_show(hub, tmp_path, path, fault):
    met = hub.add_fault(match=f"/resolve/.*{path}", method="GET", **fault)
    assert_whole(fetch(REPO))
    assert met.hits == fault.get("times", 1)
    assert_tidy(tmp_path)


def test_a_listing_that_is_cut_off_is_asked_for_again(hub):
    hub.add_fault("drop", match="/api/models", times=2)
    assert_whole(fetch(REPO))


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "fault, said",
    [({"kind": "corrupt"}, "its content has the hash"), ({"kind": "status", "status": 502}, "502"), ({"kind": "reset", "after_bytes": 3}, "reset"),
     ({"kind": "status", "status": 403}, "403")],
    ids=["corrupt", "status", "reset", "refused"],
)  # fmt: skip
def test_a_fault_that_stays_is_one_error_that_names_the_file_and_leaves_nothing_wrong_behind(hub, tmp_path, path, fault, said):
    met = hub.add_fault(match=f"/resolve/.*{path}", method="GET", times=-1, **fault)
    with pytest.raises(OSError, match=f"^{REPO}: {path}: .*{said}") as caught:
        fetch(REPO)
    assert "\n" not in str(caught.value) and met.hits == (1 if fault.get("status") == 403 else hub_lira.TRIES)
    assert_tidy(tmp_path)
    blobs = [blob.read_bytes() for blob in (tmp_path / "hub").rglob("blobs/*") if blob.suffix != ".incomplete"]
    assert FILES[path] not in blobs and set(blobs) <= set(FILES.values())
    with pytest.raises(OSError):
        fetch(REPO, local_files_only=True)
    hub.reset()
    assert_whole(fetch(REPO))


@pytest.mark.parametrize("call, said", [({"repo_id": "org/none"}, "404"), ({"revision": "nowhere"}, "404"), ({"patterns": ["*.bin"]}, "no file"),
    ({"token": "hf_wrong"}, "401"), ({"repo_id": "not a name"}, "alphanumeric"), ({"local_files_only": True}, "in the cache")])  # fmt: skip
def test_what_cannot_be_had_is_asked_for_once(hub, call, said):
    with pytest.raises(OSError, match=said):
        fetch(**{"repo_id": REPO} | call)
    assert sum(hub.requests.values()) <= 1


def test_a_part_and_then_the_rest_and_then_no_network(hub):
    snapshot = fetch(REPO, patterns=["*.json"], subfolder="sub")
    assert_whole(snapshot, ["sub/tokenizer.json"])
    with pytest.raises(OSError, match="config.json"):  # a part is not taken for the whole
        fetch(REPO, local_files_only=True)
    assert fetch(REPO) == snapshot and snapshot.name == hub.commit
    before = sum(hub.requests.values())
    assert_whole(fetch(REPO, local_files_only=True))
    assert_whole(fetch(REPO, revision=hub.commit))  # what a commit lists never changes, so nobody is asked
    assert sum(hub.requests.values()) == before
    hub.add_fault("drop", times=-1)
    assert_whole(fetch(REPO))


@pytest.mark.parametrize("small", [0, 2**23], ids=["as a large file", "as a small file"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_file_of_the_cache_that_was_changed_is_not_served(hub, monkeypatch, small, offline):
    monkeypatch.setattr(hub_lira, "SMALL", small)
    snapshot = fetch(REPO)
    with open(snapshot / "model.safetensors", "r+b") as file:
        file.write(b"other")
    if offline:
        with pytest.raises(OSError, match="model.safetensors: its content has the hash"):
            fetch(REPO, local_files_only=True)
        assert (snapshot / "model.safetensors").read_bytes()[:5] == b"other"  # it cannot be had again, so it is not thrown away
    assert_whole(fetch(REPO))


def test_a_cache_that_cannot_be_written_serves_what_it_holds(hub, tmp_path, monkeypatch):
    """Whether LiRA or another program has filled it, with a network and without; no permission stops root, so here the call fails itself."""
    from huggingface_hub import snapshot_download

    def refused(**where):
        raise PermissionError(13, "Permission denied", where["dir"])

    fetch(REPO, cache_dir=tmp_path / "ours")
    snapshot_download(REPO, cache_dir=tmp_path / "theirs")
    monkeypatch.setattr(hub_lira.tempfile, "mkstemp", refused)
    for cache in ("ours", "theirs"):
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / cache).rglob("*")}
        assert_whole(fetch(REPO, cache_dir=tmp_path / cache))
        assert_whole(fetch(REPO, cache_dir=tmp_path / cache, local_files_only=True))
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / cache).rglob("*")} == before


def test_notes_in_the_cache_are_written_when_they_are_new(hub, tmp_path):
    def notes() -> dict:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for name in ("lira.json", "main") for path in tmp_path.rglob(name)}

    fetch(REPO)
    before = notes()
    assert before.keys() == {"lira.json", "main"}
    fetch(REPO)
    assert notes() == before
    ref = next(tmp_path.rglob("refs/main"))
    ref.write_text("0" * 40)
    fetch(REPO)
    assert ref.read_text() == hub.commit


def test_a_large_file_is_read_once(hub, monkeypatch):
    monkeypatch.setattr(hub_lira, "SMALL", 1000)
    fetch(REPO)
    hub_lira.digest.cache_clear()  # as another process
    fetch(REPO)
    assert hub_lira.digest.cache_info().misses == 2  # the small ones
    os.utime(fetch(REPO) / "model.safetensors", (1, 1))
    fetch(REPO)
    assert hub_lira.digest.cache_info().misses == 3


def test_what_another_program_downloaded_wrongly_is_fetched_anew(hub):
    from huggingface_hub import snapshot_download

    hub.add_fault("corrupt", match="/resolve/.*safetensors", method="GET")
    wrong = Path(snapshot_download(REPO))
    assert (wrong / "model.safetensors").read_bytes() != FILES["model.safetensors"]  # the client does not see it
    with pytest.raises(OSError, match="model.safetensors"):
        fetch(REPO, local_files_only=True)
    assert_whole(fetch(REPO))


def test_force_download_asks_for_all_again_and_keeps_what_there_is_when_that_fails(hub):
    snapshot = fetch(REPO)
    hub.reset()
    fetch(REPO, force_download=True)
    assert sum(count for request, count in hub.requests.items() if request.startswith("GET /org")) == len(FILES)
    hub.add_fault("status", match="/resolve/", status=403, times=-1)
    with pytest.raises(OSError, match="403"):
        fetch(REPO, force_download=True)
    assert_whole(snapshot)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda folder: (folder / "sub" / "tokenizer.json").unlink(), "sub/tokenizer.json: missing"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "model.safetensors: its sha256 is"),
        (lambda folder: (folder / "config.json").write_bytes(b'{"a": 2}'), "config.json: its sha256 is"),
        (lambda folder: (folder / "checksums.json").write_text("[]"), "checksums.json: no checksums"),
    ],
)
def test_a_folder_is_compared_with_its_checksums(tmp_path, spoil, said):
    import hashlib

    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    check_files(tmp_path)  # it has none
    (tmp_path / "checksums.json").write_text(json.dumps({"sha256": {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}}))
    check_files(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=said):
        check_files(tmp_path)
    if "no checksums" not in said:
        spoiled = said.split(":")[0]
        check_files(tmp_path, [path for path in FILES if path != spoiled])
        with pytest.raises(ValueError, match=said):
            check_files(tmp_path, [f"*{Path(spoiled).name}"])
