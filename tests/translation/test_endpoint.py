"""A server that is busy, slow or broken: what comes of it is counted, and every answer belongs to its text."""

import asyncio
import email.utils
import hashlib
import json
import socket
import time

import pytest
from loopback_llm import Said, completion, data_of, error, serving
from pydantic import BaseModel

from lira_hf.translation.endpoint import Endpoint, as_they_finish
from lira_hf.translation.records import Text, key_of
from lira_hf.translation.translators import PromptedTranslator

FAULTS = ("429", "500", "slow", "cut", "malformed")
PATIENT = {"timeout": 1.0, "backoff": 0.01, "longest_wait": 5.0}
MESSAGES = [{"role": "user", "content": "red shoes"}]


def text_of(text: str, language: str = "th") -> Text:
    return Text(key_of(language, text), text, language)


def number_of(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest(), 16)


def fault_of(body: dict, attempt: int) -> str | None:
    """One request in five is answered badly, which and how follows from its messages and the attempt."""
    number = number_of(body["messages"], attempt)
    return FAULTS[number // 5 % 5] if number % 5 == 0 else None


def faulty(body: dict, attempt: int) -> Said:
    good = completion(f"English of {data_of(body)['text']}")
    match fault_of(body, attempt):
        case "429":
            return error(429, {"Retry-After": "0.02"})
        case "500":
            return error(500)
        case "slow":
            return Said(good.body, after=1.5)
        case "cut":
            return Said(good.body, cut=True)
        case "malformed":
            return Said(good.body[: len(good.body) // 2])
    return good


async def answers(endpoint: Endpoint, texts: list[Text], k: int = 1) -> list:
    return [answer async for answer in PromptedTranslator(endpoint).translate(texts, k)]


def asked(url: str, parse=str, schema=None, **options):
    async def ask():
        async with Endpoint(url, "m", **{**PATIENT, **options}).open() as chat:
            return await chat.ask(MESSAGES, parse, schema=schema)

    return asyncio.run(ask())


def test_no_answer_is_lost_doubled_or_invented_where_one_request_in_five_goes_wrong():
    texts = [text_of(f"รองเท้า {i}") for i in range(1000)]
    with serving(faulty) as (url, loopback):
        got = asyncio.run(answers(Endpoint(url, "m", concurrency=16, retries=8, **PATIENT), texts))
    assert {answer.key: answer.candidates for answer in got} == {text.key: (f"English of {text.text}",) for text in texts}
    assert len(got) == 1000
    assert {answer.failure for answer in got} == {None}
    # The script was followed: about one first attempt in five, of every kind, and nothing asked again without a reason.
    first = [fault for body in loopback.bodies if (fault := fault_of(body, 0))]
    faults = sum(count for kind, count in loopback.statuses.items() if kind != 200)
    assert faults > 150 and set(first) == set(FAULTS)
    for body in {json.dumps(body["messages"]): body for body in loopback.bodies}.values():
        count = loopback.seen[hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()]
        needed = next(attempt for attempt in range(20) if fault_of(body, attempt) is None) + 1
        assert count >= needed
    assert sum(loopback.seen.values()) < 1000 * 1.5


def test_candidates_of_a_text_never_mix_with_those_of_another():
    def manners(body, attempt):
        said = faulty(body, attempt)
        return (
            said
            if said.status != 200 or said.cut or fault_of(body, attempt)
            else completion(f"{data_of(body)['text']} {number_of(body['messages'])}")
        )

    texts = [text_of(f"ทีวี {i}") for i in range(40)]
    with serving(manners) as (url, _):
        got = asyncio.run(answers(Endpoint(url, "m", retries=8, **PATIENT), texts, k=4))
    by_key = {text.key: text.text for text in texts}
    assert sorted(by_key) == sorted(answer.key for answer in got)
    for answer in got:
        assert len(set(answer.candidates)) == 4
        assert all(candidate.startswith(by_key[answer.key] + " ") for candidate in answer.candidates)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (error(429), "rate_limit"),
        (error(429, {"Retry-After": "3600"}), "rate_limit"),
        (error(503), "server"),
        (Said(completion("shoes").body, after=0.5), "timeout"),
        (Said(completion("shoes").body, cut=True), "cut"),
        (Said(b"<html>busy</html>", headers={"Content-Type": "text/html"}), "malformed"),
        (Said(b'{"choices": [{"mess'), "malformed"),
        (Said(b"[]"), "malformed"),
        (Said(b"null"), "malformed"),
        (Said(b'{"choices": []}'), "malformed"),
        (Said(b'{"choices": [{"message": {"content": 5}}]}'), "malformed"),
        (Said(b'{"choices": [{"message": null}]}'), "malformed"),
        (Said(b'{"choices": ["shoes"]}'), "malformed"),
        (error(400), "refused"),
        (completion(None, refusal="no"), "refused"),
        (completion("sho", finish_reason="length"), "length"),
        (completion("sho", finish_reason="content_filter"), "refused"),
        (completion(None), "unusable"),
        (completion("red\nshoes"), "unusable"),
        (completion("  "), "unusable"),
    ],
)
def test_what_never_gets_better_fails_by_kind_and_leaves_the_others_alone(said, kind):
    def answer(body, attempt):
        return said if data_of(body)["text"] == "เสีย" else completion("red shoes")

    texts = [text_of("เสีย"), text_of("รองเท้าสีแดง")]
    with serving(answer) as (url, _):
        got = asyncio.run(answers(Endpoint(url, "m", retries=2, **{**PATIENT, "timeout": 0.2 if kind == "timeout" else 2.0}), texts))
    outcome = {answer.key: (answer.candidates, answer.failure) for answer in got}
    assert outcome == {texts[0].key: ((), kind), texts[1].key: (("red shoes",), None)}


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
def test_waits_as_long_as_the_server_asks(form):
    def answer(body, attempt):
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        headers = {"seconds": {"Retry-After": "0.5"}, "milliseconds": {"Retry-After-Ms": "500"}, "date": {"Retry-After": date}}[form]
        return completion("shoes") if attempt else error(429, headers)

    with serving(answer) as (url, loopback):
        assert asked(url).value == "shoes"
    assert loopback.times[1] - loopback.times[0] >= 0.5


def test_a_pause_that_one_request_was_told_holds_for_all():
    def answer(body, attempt):
        return error(429, {"Retry-After": "0.6"}) if data_of(body)["text"] == "0" and not attempt else completion("shoes")

    with serving(answer) as (url, loopback):
        asyncio.run(answers(Endpoint(url, "m", concurrency=1, **PATIENT), [text_of(str(i)) for i in range(3)]))
    assert loopback.times[1] - loopback.times[0] >= 0.6


def test_never_more_requests_in_flight_than_allowed():
    with serving(lambda body, attempt: Said(completion("shoes").body, after=0.02)) as (url, loopback):
        asyncio.run(answers(Endpoint(url, "m", concurrency=3, **PATIENT), [text_of(str(i)) for i in range(20)], k=4))
    assert loopback.most_in_flight == 3


def test_an_unusable_answer_is_asked_again_warmer_and_all_its_tokens_are_counted():
    def parse(answer):
        if answer == "bad":
            raise ValueError
        return answer

    with serving(lambda body, attempt: completion("good" if attempt == 2 else "bad")) as (url, loopback):
        reply = asked(url, parse)
    assert (reply.value, reply.prompt_tokens, reply.completion_tokens) == ("good", 33, 9)
    assert [body["temperature"] for body in loopback.bodies] == [0.0, 0.7, 0.7]
    assert len({body["seed"] for body in loopback.bodies}) == 3
    with serving(lambda body, attempt: completion("bad")) as (url, loopback):
        reply = asked(url, parse, repeats=1)
    assert (reply.value, reply.failure, reply.prompt_tokens) == (None, "unusable", 22)


def test_a_server_that_knows_only_messages_is_asked_without_the_rest():
    class Shape(BaseModel):
        name: str

    def answer(body, attempt):
        return completion('{"name": "shoes"}') if set(body) == {"model", "messages"} else error(400)

    with serving(answer) as (url, loopback):
        assert asked(url, Shape.model_validate_json, Shape).value == Shape(name="shoes")
    assert loopback.bodies[0]["response_format"]["json_schema"]["schema"]["required"] == ["name"]


@pytest.mark.parametrize("said", [error(401), error(403), error(404), error(429, code="insufficient_quota")])
def test_what_would_fail_for_every_text_ends_the_run(said):
    with serving(lambda body, attempt: said) as (url, loopback), pytest.raises(ValueError, match="endpoint: .* refuses model 'm'"):
        asyncio.run(answers(Endpoint(url, "m", **PATIENT), [text_of(str(i)) for i in range(20)], k=3))
    assert len(loopback.bodies) <= 20


def test_a_server_that_is_not_there_ends_the_run():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=f"endpoint: 'http://127.0.0.1:{port}/v1' does not answer"):
        asked(f"http://127.0.0.1:{port}", retries=1)


def test_the_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    seen = []

    def answer(body, attempt):
        return completion("shoes")

    with serving(answer) as (url, loopback):
        handle = loopback.handle
        loopback.handle = lambda handler: (seen.append(handler.headers["Authorization"]), handle(handler))
        asked(url)
    assert seen == ["Bearer sk-of-a-test"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("url", "localhost:8000"), ("concurrency", 0), ("retries", -1), ("repeats", -1), ("timeout", 0), ("backoff", -1.0), ("max_tokens", 0)],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{'endpoint' if name == 'url' else name}: .*{value}"):
        Endpoint(**{"url": "http://localhost:8000/v1", "model": "m", name: value})


def test_as_they_finish_starts_no_more_than_the_limit_and_ends_the_others_on_an_exception():
    started, ended = [], []

    async def job(number):
        started.append(number)
        try:
            await asyncio.sleep(0.01 if number < 3 else 10)
            if number == 2:
                raise ValueError("job 2")
            return number
        finally:
            ended.append(number)

    async def run():
        return [number async for number in as_they_finish((job(number) for number in range(100)), 4)]

    with pytest.raises(ValueError, match="job 2"):
        asyncio.run(run())
    assert len(started) < 12 and sorted(started) == sorted(ended)
