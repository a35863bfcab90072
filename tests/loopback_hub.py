"""A Hugging Face Hub on the loopback interface, backed by a folder; the unmodified clients work against it.

    with LoopbackHub(tmp_path) as hub:
        hub.client("import huggingface_hub as h; answer(h.HfApi().whoami())", tmp_path / "home")  # a process: clients read the environment once
        hub.add_fault("status", match="/resolve/", status=503, times=2)
        hub.requests["GET /org/toy/resolve/main/config.json"]

Models and datasets: create, delete, commit, branches, tags, LFS upload, private repositories behind one token, download by
ranges. Not there: Xet (`env` turns it off in the client), pull requests, multipart uploads, checks of a card's YAML.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import datetime as dt
import hashlib
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit

TYPES = ("models", "datasets")
LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".bin", ".pt", ".gz", ".zip", ".npy", ".onnx", ".model", ".zst")
LFS_THRESHOLD = 10 * 1024 * 1024
PAGE = 1000
CHUNK = 1 << 20
REPO_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


class HubError(Exception):
    """An HTTP error in the shape that the client parses (X-Error-Code, X-Error-Message, {"error"})."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclass
class Fault:
    """kind: status (answer `status`), delay (`seconds`), and for a GET of a file:
    drop (full Content-Length, orderly close after `after_bytes`), reset (the same with a TCP RST),
    truncate (a shorter but self-consistent body), corrupt (right length, one byte flipped; also of a PUT's body, and of a commit's file).
    mute does what is asked and hangs up without an answer.
    drop and reset with after_bytes=0 work on every path and send nothing at all."""

    kind: str
    match: str = ".*"  # regex searched in the path
    method: str | None = None
    times: int = 1  # how many matching requests it hits; -1: always
    skip: int = 0  # let so many matching requests pass first
    status: int = 503
    after_bytes: int = 0
    seconds: float = 1.0
    hits: int = field(default=0)

    def takes(self, method: str, path: str) -> bool:
        if self.times == 0 or (self.method and self.method != method) or not re.search(self.match, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= self.times > 0
        self.hits += 1
        return True


class Store:
    """objects/<sha256> blobs; <type>/<org>/<name>/{repo.json, refs.json, commits/<oid>.json}."""

    def __init__(self, root: os.PathLike | str):
        self.root = Path(root)
        (self.root / "objects").mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self._cache: dict[Path, dict] = {}

    # -- blobs ---------------------------------------------------------------------------------
    def blob_path(self, sha256: str) -> Path:
        return self.root / "objects" / sha256

    def put_blob(self, stream, expect: str | None = None) -> tuple[str, int]:
        """Stream to disk; returns (sha256, size)."""
        fd, tmp = tempfile.mkstemp(dir=self.root / "objects", prefix=".tmp")
        sha, size = hashlib.sha256(), 0
        try:
            with os.fdopen(fd, "wb") as out:
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
            digest = sha.hexdigest()
            if expect and digest != expect:
                raise HubError(400, f"uploaded content does not match (sha256 {digest}, size {size})")
            os.replace(tmp, self.blob_path(digest))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(tmp)
        return digest, size

    # -- repos ---------------------------------------------------------------------------------
    def dir(self, kind: str, repo_id: str) -> Path:
        if not REPO_ID.match(repo_id) or ".." in repo_id:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.root / kind / repo_id

    def _load(self, path: Path) -> dict:
        return json.loads(path.read_text())

    @staticmethod
    def _save(path: Path, data: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_suffix(".tmp")
        tmp.write_text(json.dumps(data, indent=1))
        os.replace(tmp, path)

    def create(self, kind: str, repo_id: str, private: bool) -> None:
        with self.lock:
            d = self.dir(kind, repo_id)
            if (d / "repo.json").exists():
                raise HubError(409, f"You already created this {kind[:-1]} repo")
            self._save(d / "repo.json", {"private": private, "created": now()})
            self._save(d / "refs.json", {"heads": {}, "tags": {}})
            self.commit(kind, repo_id, "main", "initial commit", {}, [], first=True)

    def delete(self, kind: str, repo_id: str) -> None:
        with self.lock:
            self.meta(kind, repo_id)
            shutil.rmtree(self.dir(kind, repo_id))

    def meta(self, kind: str, repo_id: str) -> dict:
        path = self.dir(kind, repo_id) / "repo.json"
        if not path.exists():
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self._load(path)

    def refs(self, kind: str, repo_id: str) -> dict:
        self.meta(kind, repo_id)
        return self._load(self.dir(kind, repo_id) / "refs.json")

    def resolve(self, kind: str, repo_id: str, revision: str) -> str:
        refs = self.refs(kind, repo_id)
        name = re.sub(r"^refs/(heads|tags)/", "", revision)
        oid = refs["heads"].get(name) or refs["tags"].get(name)
        if oid is None and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = list((self.dir(kind, repo_id) / "commits").glob(revision + "*.json"))
            oid = found[0].stem if len(found) == 1 else None
        if oid is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def manifest(self, kind: str, repo_id: str, oid: str) -> dict:
        path = self.dir(kind, repo_id) / "commits" / f"{oid}.json"
        if path not in self._cache:
            self._cache[path] = self._load(path)  # immutable
        return self._cache[path]

    def commit(self, kind, repo_id, branch, title, put: dict, delete: list, parent=None, body="", first=False) -> str:
        """put: path -> file entry; delete: [(path, is_folder)]."""
        with self.lock:
            refs = self.refs(kind, repo_id)
            head = refs["heads"].get(branch)
            if head is None and not first:
                code = "Cannot commit to a tag or a commit" if branch in refs["tags"] else f"Invalid rev id: {branch}"
                raise HubError(404, code, "RevisionNotFound")
            if parent and not (head or "").startswith(parent):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(self.manifest(kind, repo_id, head)["files"]) if head else {}
            for path, is_folder in delete:
                gone = [p for p in files if (p.startswith(path.rstrip("/") + "/") if is_folder else p == path)]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for p in gone:
                    del files[p]
            files.update(put)
            data = {"parent": head, "title": title, "body": body, "date": now(), "files": dict(sorted(files.items()))}
            oid = hashlib.sha1(json.dumps([data, repo_id, time.time_ns()]).encode()).hexdigest()
            self._save(self.dir(kind, repo_id) / "commits" / f"{oid}.json", data)
            refs["heads"][branch] = oid
            self._save(self.dir(kind, repo_id) / "refs.json", refs)
            return oid


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0xFF]) + data[1:]


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def file_info(path: str, f: dict) -> dict:
    info = {"type": "file", "path": path, "size": f["size"], "oid": f["oid"]}
    if f["lfs"]:
        info["lfs"] = {"oid": f["sha256"], "size": f["size"], "pointerSize": len(lfs_pointer(f["sha256"], f["size"]))}
    return info


def folder_info(path: str) -> dict:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


class _Chunked:
    """Reader of a request body sent with Transfer-Encoding: chunked (the client's LFS PUT)."""

    def __init__(self, raw):
        self.raw, self.left, self.done = raw, 0, False

    def read(self, n: int) -> bytes:
        if self.done:
            return b""
        if self.left == 0:
            self.left = int(self.raw.readline().split(b";")[0], 16)
            if self.left == 0:
                while self.raw.readline().strip():
                    pass
                self.done = True
                return b""
        data = self.raw.read(min(n, self.left))
        self.left -= len(data)
        if self.left == 0:
            self.raw.readline()
        return data


class _Sized:
    def __init__(self, raw, length):
        self.raw, self.left = raw, length

    def read(self, n: int) -> bytes:
        data = self.raw.read(min(n, self.left))
        self.left -= len(data)
        return data


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub
    fault: Fault | None = None
    timeout = 60

    def log_message(self, *args):
        """Says nothing: pytest shows what matters."""

    def do(self):
        url = urlsplit(self.path)
        self.url_path, self.query = unquote(url.path), dict(parse_qsl(url.query))
        self.raw_path = url.path
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        self.body = _Chunked(self.rfile) if chunked else _Sized(self.rfile, int(self.headers.get("Content-Length") or 0))
        self.fault = None
        try:
            self.fault = self.hub.count(self.command, self.raw_path)
            if self.fault and self.fault.kind == "delay":
                time.sleep(self.fault.seconds)
            if self.fault and self.fault.kind == "status":
                raise HubError(self.fault.status, f"injected {self.fault.status}")
            if self.fault and self.fault.kind in ("drop", "reset") and self.fault.after_bytes == 0:
                return self.hang_up(rst=self.fault.kind == "reset")
            self.route()
        except HubError as e:
            self.send_error_json(e)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

    # -- answers -------------------------------------------------------------------------------
    def hang_up(self, rst: bool):
        """Close in the middle: FIN (client: RemoteProtocolError) or RST (client: ReadError, errno 104)."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if rst:
                time.sleep(0.05)  # let the client read what was sent: an RST discards what it has not read
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.rfile.close()
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_WR)

    def drain(self):
        while self.body.read(CHUNK):
            pass

    def answer(self, status: int, payload, headers: dict | None = None):
        self.drain()
        if self.fault and self.fault.kind == "mute":
            return self.hang_up(rst=False)
        data = json.dumps(payload).encode()
        self.send_response(status)
        for k, v in {"Content-Type": "application/json; charset=utf-8", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(k, str(v))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error_json(self, e: HubError):
        headers = {"X-Error-Message": e.message.replace("\n", " "), "X-Request-Id": "loopback", **e.headers}
        if e.code:
            headers["X-Error-Code"] = e.code
        self.answer(e.status, {"error": e.message}, headers)

    def json(self) -> dict:
        raw = b"".join(iter(lambda: self.body.read(CHUNK), b""))
        return json.loads(raw or b"{}")

    def authed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if given and given != f"Bearer {self.hub.token}":
            raise HubError(401, "Invalid credentials in Authorization header")
        return bool(given)

    def need_token(self):
        if not self.authed():
            raise HubError(401, "Invalid username or password.")

    def need_read(self, kind, repo_id) -> dict:
        meta = self.hub.store.meta(kind, repo_id)
        if not self.authed() and meta["private"]:
            raise HubError(401, "Repository not found", "RepoNotFound")  # as the Hub: do not tell it exists
        return meta

    # -- routes --------------------------------------------------------------------------------
    def route(self):
        p, m = self.url_path, self.command
        if p == "/api/whoami-v2":
            self.need_token()
            return self.answer(
                200,
                {
                    "type": "user",
                    "id": "loopback",
                    "name": self.hub.user,
                    "fullname": self.hub.user,
                    "email": None,
                    "canPay": False,
                    "isPro": False,
                    "periodEnd": None,
                    "orgs": [{"name": o, "type": "org", "roleInOrg": "admin"} for o in self.hub.orgs],
                    "auth": {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}},
                },
            )
        if p == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if p.startswith("/api/telemetry"):
            return self.answer(200, {})
        if p == "/api/repos/create" and m == "POST":
            return self.create()
        if p == "/api/repos/delete" and m == "DELETE":
            self.need_token()
            d = self.json()
            self.hub.store.delete((d.get("type") or "model") + "s", f"{d.get('organization') or self.hub.user}/{d['name']}")
            return self.answer(200, {})
        if x := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)(?:/(.*))?)?", p):
            kind, repo_id, verb = x[1], x[2], x[3]
            # the revision is one URL-quoted segment: split the raw path, not the unquoted one
            rest = [unquote(s) for s in self.raw_path.split("/")[6:]]
            call = getattr(self, f"api_{(verb or 'info').replace('-', '_')}", None)
            if call is None:
                raise HubError(404, f"not implemented in the loopback Hub: {verb}")
            return call(kind, repo_id, *rest)
        if x := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", p):
            return self.lfs_batch()
        if x := re.fullmatch(r"/_lfs/([0-9a-f]{64})", p):
            return self.lfs_object(x[1])
        if x := re.match(r"/(?:(datasets)/)?([^/]+/[^/]+)/(?:resolve|raw)/", p):
            tail = self.raw_path.split("/")[5 if x[1] else 4 :]
            return self.resolve(x[1] or "models", x[2], unquote(tail[0]), unquote("/".join(tail[1:])))
        raise HubError(404, f"not a path of the loopback Hub: {m} {p}", "RepoNotFound")

    def create(self):
        self.need_token()
        d = self.json()
        org, kind = d.get("organization") or self.hub.user, (d.get("type") or "model") + "s"
        if kind not in TYPES:
            raise HubError(400, f"unknown repo type {d.get('type')}")
        if org != self.hub.user and org not in self.hub.orgs:
            raise HubError(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{org}"')
        repo_id = f"{org}/{d['name']}"
        if not REPO_ID.match(repo_id):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        try:
            private = d.get("visibility") == "private" or bool(d.get("private"))
            self.hub.store.create(kind, repo_id, private)
        except HubError as e:
            return self.answer(e.status, {"error": e.message, "url": url}, {"X-Error-Message": e.message})
        self.answer(200, {"url": url, "name": repo_id, "id": repo_id})

    def info(self, kind, repo_id, revision) -> dict:
        store = self.hub.store
        meta, oid = store.meta(kind, repo_id), store.resolve(kind, repo_id, revision)
        man = store.manifest(kind, repo_id, oid)
        blobs = self.query.get("blobs", "").lower() in ("1", "true")
        sib = []
        for path, f in man["files"].items():
            s = {"rfilename": path}
            if blobs:
                s |= {"size": f["size"], "blobId": f["oid"]} | (
                    {"lfs": {"sha256": f["sha256"], "size": f["size"], "pointerSize": 130}} if f["lfs"] else {}
                )
            sib.append(s)
        return {
            "_id": hashlib.md5(repo_id.encode()).hexdigest()[:24],
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.split("/")[0],
            "sha": oid,
            "lastModified": man["date"],
            "createdAt": meta["created"],
            "private": meta["private"],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": sib,
            "usedStorage": sum(f["size"] for f in man["files"].values()),
        }

    def api_info(self, kind, repo_id, *_):
        if self.command == "DELETE":
            raise HubError(405, "use /api/repos/delete")
        self.need_read(kind, repo_id)
        self.answer(200, self.info(kind, repo_id, "main"))

    def api_revision(self, kind, repo_id, revision):
        self.need_read(kind, repo_id)
        self.answer(200, self.info(kind, repo_id, revision))

    def api_refs(self, kind, repo_id):
        self.need_read(kind, repo_id)
        refs = self.hub.store.refs(kind, repo_id)
        named = {group: [{"name": n, "ref": f"refs/{group}/{n}", "targetCommit": o} for n, o in refs[group].items()] for group in refs}
        self.answer(200, {"branches": named["heads"], "tags": named["tags"], "converts": [], "pullRequests": []})

    def api_commits(self, kind, repo_id, revision="main"):
        self.need_read(kind, repo_id)
        out, oid = [], self.hub.store.resolve(kind, repo_id, revision)
        while oid:
            c = self.hub.store.manifest(kind, repo_id, oid)
            out.append({"id": oid, "title": c["title"], "message": c["body"], "date": c["date"], "authors": [{"user": self.hub.user}]})
            oid = c["parent"]
        self.answer(200, out)

    def _ref(self, group, kind, repo_id, name, target):
        self.need_token()
        store = self.hub.store
        with store.lock:
            refs = store.refs(kind, repo_id)
            if self.command == "DELETE":
                if name not in refs[group]:
                    raise HubError(404, f"no such ref: {name}", "RevisionNotFound")
                del refs[group][name]
            elif name in refs[group]:
                raise HubError(409, f"Reference already exists: {name}")
            else:
                refs[group][name] = store.resolve(kind, repo_id, target)
            store._save(store.dir(kind, repo_id) / "refs.json", refs)
        self.answer(200, {})

    def api_branch(self, kind, repo_id, *name):
        self._ref("heads", kind, repo_id, "/".join(name), self.json().get("startingPoint") or "main")

    def api_tag(self, kind, repo_id, *name):
        if self.command == "DELETE":
            return self._ref("tags", kind, repo_id, "/".join(name), None)
        self._ref("tags", kind, repo_id, self.json()["tag"], "/".join(name))  # the path holds the tagged revision

    def api_tree(self, kind, repo_id, revision, *path):
        self.need_read(kind, repo_id)
        oid = self.hub.store.resolve(kind, repo_id, revision)
        files = self.hub.store.manifest(kind, repo_id, oid)["files"]
        base, recursive = "/".join(path).strip("/"), self.query.get("recursive", "").lower() in ("1", "true")
        pre, out, seen = base + "/" if base else "", [], set()
        for name, f in files.items():
            if not name.startswith(pre):
                continue
            parts = name[len(pre) :].split("/")
            for d in ["/".join(parts[:i]) for i in range(1, len(parts))] if recursive else ["/".join(parts[:1])] * (len(parts) > 1):
                if d not in seen:
                    seen.add(d)
                    out.append(folder_info(pre + d))
            if recursive or len(parts) == 1:
                out.append(file_info(name, f))
        if base and not out:
            raise HubError(404, f'{base} does not exist on "{revision}"', "EntryNotFound", {"X-Repo-Commit": oid})
        start, limit = int(self.query.get("cursor", 0)), int(self.query.get("limit", PAGE))
        headers = {}
        if start + limit < len(out):
            query = {**self.query, "cursor": start + limit}
            headers["Link"] = f'<{self.hub.endpoint}{self.raw_path}?{"&".join(f"{k}={quote(str(v))}" for k, v in query.items())}>; rel="next"'
        self.answer(200, out[start : start + limit], headers)

    def api_paths_info(self, kind, repo_id, revision):
        self.need_read(kind, repo_id)
        raw = b"".join(iter(lambda: self.body.read(CHUNK), b"")).decode()
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(raw)["paths"] if is_json else parse_qs(raw).get("paths", [])
        files = self.hub.store.manifest(kind, repo_id, self.hub.store.resolve(kind, repo_id, revision))["files"]
        out = []
        for path in (p.strip("/") for p in paths):
            if path in files:
                out.append(file_info(path, files[path]))
            elif any(n.startswith(path + "/") for n in files):
                out.append(folder_info(path))
        self.answer(200, out)

    # -- writes --------------------------------------------------------------------------------
    def api_preupload(self, kind, repo_id, revision):
        self.need_token()
        store = self.hub.store
        files = store.manifest(kind, repo_id, store.resolve(kind, repo_id, revision))["files"]
        out = []
        for f in self.json()["files"]:
            lfs = f["size"] >= LFS_THRESHOLD or f["path"].endswith(LFS_SUFFIXES)
            old = files.get(f["path"])
            # oid as the client computes it for the no-op check: sha256 for LFS, git sha1 for a regular file
            oid = (old["sha256"] if lfs else old["oid"]) if old and old["lfs"] == lfs else None
            out.append({"path": f["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False} | ({"oid": oid} if oid else {}))
        self.answer(200, {"files": out, "commitOid": store.resolve(kind, repo_id, revision)})

    def api_commit(self, kind, repo_id, revision):
        self.need_token()
        if self.query.get("create_pr"):
            raise HubError(400, "pull requests are not implemented in the loopback Hub")
        self.hub.store.resolve(kind, repo_id, revision)
        raw = b"".join(iter(lambda: self.body.read(CHUNK), b""))
        put, delete, head = {}, [], {}
        for line in filter(None, raw.split(b"\n")):
            item = json.loads(line)
            key, v = item["key"], item["value"]
            path = v.get("path", "")
            if key != "header" and (path.startswith("/") or ".." in path.split("/") or not path):
                raise HubError(400, f"invalid path: {path!r}")
            if key == "header":
                head = v
            elif key == "file":
                data = base64.b64decode(v["content"]) if v.get("encoding") == "base64" else v["content"].encode()
                if self.fault and self.fault.kind == "corrupt" and not put:
                    data = flipped(data)
                sha256, size = self.hub.store.put_blob(io.BytesIO(data))
                put[path] = {"size": size, "oid": git_oid(data), "sha256": sha256, "lfs": False}
            elif key == "lfsFile":
                blob = self.hub.store.blob_path(v["oid"])
                if not blob.exists():
                    raise HubError(400, f"LFS object {v['oid']} of {path} was never uploaded")
                size = blob.stat().st_size
                put[path] = {"size": size, "oid": git_oid(lfs_pointer(v["oid"], size)), "sha256": v["oid"], "lfs": True}
            elif key in ("deletedFile", "deletedFolder"):
                delete.append((path, key == "deletedFolder"))
            else:
                raise HubError(400, f"unknown commit operation {key}")
        oid = self.hub.store.commit(
            kind, repo_id, revision, head.get("summary", ""), put, delete, head.get("parentCommit"), head.get("description", "")
        )
        prefix = "" if kind == "models" else kind + "/"
        self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{prefix}{repo_id}/commit/{oid}", "hookOutput": ""})

    def lfs_batch(self):
        self.need_token()
        out = []
        for o in self.json()["objects"]:
            item = {"oid": o["oid"], "size": o["size"], "authenticated": True}
            if not self.hub.store.blob_path(o["oid"]).exists():
                item["actions"] = {"upload": {"href": f"{self.hub.endpoint}/_lfs/{o['oid']}"}}
            out.append(item)
        self.answer(200, {"transfer": "basic", "objects": out})

    def lfs_object(self, sha256):
        # as on the Hub the upload address itself carries the permission: the client's PUT sends no token
        if self.command != "PUT":
            raise HubError(405, "PUT only")
        if self.fault and self.fault.kind == "corrupt":
            self.body = io.BytesIO(flipped(b"".join(iter(lambda: self.body.read(CHUNK), b""))))
        self.hub.store.put_blob(self.body, expect=sha256)
        self.answer(200, {})

    # -- download ------------------------------------------------------------------------------
    def resolve(self, kind, repo_id, revision, path):
        self.need_read(kind, repo_id)
        oid = self.hub.store.resolve(kind, repo_id, revision)
        f = self.hub.store.manifest(kind, repo_id, oid)["files"].get(path)
        if f is None:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": oid})
        size, status, start, end = f["size"], 200, 0, f["size"]
        headers = {
            "ETag": f'"{f["sha256"] if f["lfs"] else f["oid"]}"',
            "X-Repo-Commit": oid,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'inline; filename="{quote(path.rsplit("/", 1)[-1])}"',
        }
        if f["lfs"]:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": size}
        if x := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            if x[1]:
                start, end = int(x[1]), min(int(x[2]) + 1 if x[2] else size, size)
            else:
                start = max(size - int(x[2] or 0), 0)
            if start >= size or start >= end:
                raise HubError(416, "Requested range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
        length, fault = end - start, self.fault if self.command == "GET" else None
        send = length
        if fault and fault.kind in ("drop", "reset", "truncate"):
            send = min(fault.after_bytes, length)
        if fault and fault.kind == "truncate":
            length = send
        self.drain()
        self.send_response(status)
        for k, v in {**headers, "Content-Length": length}.items():
            self.send_header(k, str(v))
        self.end_headers()
        if self.command == "HEAD":
            return
        with open(self.hub.store.blob_path(f["sha256"]), "rb") as src:
            src.seek(start)
            while send > 0 and (chunk := src.read(min(CHUNK, send))):
                if fault and fault.kind == "corrupt":
                    chunk, fault = flipped(chunk), None
                self.wfile.write(chunk)
                self.hub.bytes_sent += len(chunk)
                send -= len(chunk)
        if fault and fault.kind in ("drop", "reset"):
            self.hang_up(rst=fault.kind == "reset")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):  # a reset client is not news
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class LoopbackHub:
    def __init__(self, root, token: str = "hf_loopback", user: str = "tester", orgs=("org",)):
        self.store, self.token, self.user, self.orgs = Store(root), token, user, tuple(orgs)
        self.faults: list[Fault] = []
        self.met: list[Fault] = []  # for a test to note those that were met
        self._lock = threading.Lock()
        self.reset()
        self.server = _Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def env(self, home, token: bool = True) -> dict[str, str]:
        """What a client process needs in its environment: this Hub, caches of its own under `home`, the token or none."""
        caches = {name: f"{home}/{name.lower()}" for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_XET_CACHE")}
        switches = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {
            "HF_ENDPOINT": self.endpoint,
            "NO_PROXY": "127.0.0.1",
            "HF_HOME": str(home),
            "HF_TOKEN": self.token if token else "",
            **caches,
            **switches,
        }

    def client(self, code: str, home, *, python=sys.executable, token: bool = True, **variables: str):
        """What `code` passes to `answer` (JSON), run as a process with `env(home, token)` and `variables`."""
        head = "import json, sys\ndef answer(value): print('ANSWER' + json.dumps(value))\n"
        env = os.environ | self.env(home, token) | {"TQDM_DISABLE": "1"} | variables
        done = subprocess.run(
            [str(python), "-c", head + code], env=env, cwd=self.store.root, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.split("ANSWER")[-1])

    def reset(self):
        self.requests: collections.Counter = collections.Counter()
        self.faults.clear()
        self.bytes_sent = 0

    def add_fault(self, kind: str, **kw) -> Fault:
        if kind not in ("status", "drop", "reset", "truncate", "corrupt", "delay", "mute"):
            raise ValueError(kind)
        self.faults.append(Fault(kind, **kw))
        return self.faults[-1]

    def count(self, method, path) -> Fault | None:
        """Count the request; the fault that it meets, if any."""
        with self._lock:
            self.requests[f"{method} {path}"] += 1
            return next((f for f in self.faults if f.takes(method, path)), None)

    def start(self):
        threading.Thread(target=self.server.serve_forever, name="loopback-hub", daemon=True).start()
        return self

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.close()
