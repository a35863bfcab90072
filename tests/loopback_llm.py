"""An OpenAI-compatible server on the loopback, with real sockets: a function of the request decides what it answers, and how badly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Said:
    """What the server does with one request: a status and a body, after a while, or only half of it."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0  # seconds
    cut: bool = False  # close the connection in the midst of the body


def completion(content: str | None, finish_reason: str = "stop", **message) -> Said:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    return Said(json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}).encode())


def error(status: int, headers: dict[str, str] | None = None, code: str | None = None) -> Said:
    return Said(json.dumps({"error": {"message": f"scripted {status}", "type": "t", "code": code}}).encode(), status, headers or {})


class Loopback:
    """`answer(body, attempt)` gets the request and how often these messages came before."""

    def __init__(self, answer: Callable[[dict, int], Said]):
        self.answer, self.lock = answer, threading.Lock()
        self.seen: Counter[str] = Counter()  # by digest of the messages
        self.bodies: list[dict] = []
        self.times: list[float] = []
        self.statuses: Counter[object] = Counter()
        self.in_flight = self.most_in_flight = 0

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        digest = hashlib.sha256(json.dumps(body.get("messages")).encode()).hexdigest()
        with self.lock:
            attempt = self.seen[digest]
            self.seen[digest] += 1
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        said = self.answer(body, attempt)
        time.sleep(said.after)
        with self.lock:
            self.in_flight -= 1
            self.statuses["cut" if said.cut else "slow" if said.after else said.status] += 1
        try:
            handler.send_response(said.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(said.body)), **said.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if said.cut:
                handler.wfile.write(said.body[: len(said.body) // 2])
                handler.wfile.flush()
                handler.connection.shutdown(socket.SHUT_RDWR)
                handler.close_connection = True
            else:
                handler.wfile.write(said.body)
        except OSError:  # the client went away first
            handler.close_connection = True


@contextlib.contextmanager
def serving(answer: Callable[[dict, int], Said]) -> Iterator[tuple[str, Loopback]]:
    """Base URL and record of a running server."""
    loopback = Loopback(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        do_POST = lambda self: loopback.handle(self)  # noqa: E731
        log_message = lambda *_: None  # noqa: E731

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 256

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", loopback
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def data_of(body: dict) -> dict:
    """The data of a prompt, found as a reader would: between the only two marks of the user's message."""
    content = body["messages"][-1]["content"]
    assert content.count("<data>") == content.count("</data>") == 1
    return json.loads(content.partition("<data>\n")[2].partition("\n</data>")[0])
