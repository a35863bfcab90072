"""Translation and judgement by a real server, `transformers serve`, on a small chat model that knows two texts by heart."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from small_translators import causal, texts

from lira_hf.translation.critic import DecidingCritic, PromptedCritic, judging_messages, labelled
from lira_hf.translation.endpoint import Endpoint
from lira_hf.translation.records import Item, Marks
from lira_hf.translation.running import judge, translate
from lira_hf.translation.translators import MANNERS, PromptedTranslator, translation_messages

pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")

TAUGHT = {
    ("th", "ทีวี 55 นิ้ว"): ("55 inch TV", "TV, 55 inches", "55 inch television"),
    ("vi", "áo thun nam"): ("T-shirt for men", "Men's T-shirt", "mens tshirt"),
}
JUDGED = ("th", "ทีวี 55 นิ้ว")  # the other text is left for a judge that never learned it
MARKS = {"55 inch TV": Marks(10, 9, 8), "TV, 55 inches": Marks(9, 9, 6), "55 inch television": Marks(8, 7, 10)}


def item_of(pair: tuple[str, str], round: int = 0) -> Item:
    (text,) = texts(pair)
    return Item(text.key, text.text, text.language, TAUGHT[pair], round)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Base URL and model name."""
    torch.set_num_threads(1)
    chats = [
        (translation_messages(text, manner), english)
        for text in texts(*TAUGHT)
        for manner, english in zip(MANNERS, TAUGHT[text.language, text.text], strict=False)
    ]
    for round in (0, 1):
        shown = labelled(item_of(JUDGED, round), seed=0)
        verdict = {"scores": [{"candidate": label, **MARKS[text]._asdict()} for label, text in shown.items()]}
        chats.append((judging_messages(item_of(JUDGED, round), shown), json.dumps(verdict)))
    folder = tmp_path_factory.mktemp("server") / "chat"
    causal(folder, chats)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder.with_name("log")
    with log.open("w") as out, subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as health:
                    assert health.status == 200
                    break
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", str(folder)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def endpoint(server) -> Endpoint:
    return Endpoint(*server, concurrency=2, timeout=120, retries=1, repeats=1, max_tokens=150)


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "language": language}) + "\n" for language, text in TAUGHT))
    return path


def scores_of(folder: Path) -> dict[str, list]:
    rows = pq.read_table(folder / "translations.parquet").to_pylist()
    return {row["text"]: [(one["text"], one["semantic"], one["emotional"], one["pragmatic"]) for one in row["translations"]] for row in rows}


def test_translation_then_judgement_end_to_end(endpoint, table, tmp_path):
    translated = translate(table, tmp_path / "translated", PromptedTranslator(endpoint), candidates=3, progress=False)
    assert scores_of(tmp_path / "translated") == {text: [(one, None, None, None) for one in TAUGHT[language, text]] for language, text in TAUGHT}
    (source,) = translated["sources"].values()
    assert source["candidates"] == 6 and source["prompt_tokens"] > 100 and source["completion_tokens"] > 10

    critic = PromptedCritic(endpoint)
    judged = judge(tmp_path / "translated", tmp_path / "judged", critic, rounds=2, progress=False)
    assert scores_of(tmp_path / "judged") == {
        JUDGED[1]: [(one, *MARKS[one]) for one in TAUGHT[JUDGED]],
        "áo thun nam": [(one, None, None, None) for one in TAUGHT["vi", "áo thun nam"]],  # no valid JSON came for it, and nothing was guessed
    }
    of = judged["judges"][critic.name]
    assert (of["scored"], of["unscored"]) == (6, 6) and sum(of["failures"].values()) == 6
    assert of["agreement"] == {"pairs": 3, "equal": dict.fromkeys(Marks._fields, 1.0), "difference": dict.fromkeys(Marks._fields, 0.0)}

    # All is stored: the same call asks the server for nothing.
    assert translate(table, tmp_path / "translated", PromptedTranslator(endpoint), candidates=3, progress=False)["asked"] == 0
    assert judge(tmp_path / "translated", tmp_path / "judged", critic, rounds=2, progress=False)["asked"] == 0


def test_typed_decisions_of_the_server_give_every_candidate_marks(endpoint, table, tmp_path):
    """This server takes no notice of a response format; its own structured output are decisions, which any chat model can make."""
    translate(table, tmp_path / "translated", PromptedTranslator(endpoint), candidates=3, progress=False)
    summary = judge(tmp_path / "translated", tmp_path / "judged", DecidingCritic(endpoint), progress=False)
    (of,) = summary["judges"].values()
    assert (of["scored"], of["unscored"], of["failures"]) == (6, 0, {})
    for candidates in scores_of(tmp_path / "judged").values():
        assert len(candidates) == 3 and all(1 <= mark <= 10 for _, *marks in candidates for mark in marks)


def test_a_model_that_the_server_does_not_have_ends_in_no_answer(server, table, tmp_path):
    endpoint = Endpoint(server[0], "another/model", retries=0, timeout=60)
    summary = translate(table, tmp_path / "translated", PromptedTranslator(endpoint), candidates=1, progress=False)
    (source,) = summary["sources"].values()
    assert source["candidates"] == 0 and source["failures"] == {"refused": 2}
