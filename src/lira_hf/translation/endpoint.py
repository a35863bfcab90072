"""An OpenAI-compatible server, asked with bounded concurrency: slow, busy and broken answers are asked for again, or fail by kind."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion
    from pydantic import BaseModel

T = TypeVar("T")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Reply(Generic[T]):
    """The parsed answer to one question, or None and the kind of failure.

    Kinds: timeout, rate_limit, server, cut, malformed (no chat completion came), refused (the server or the model would not),
    length (the answer hit max_tokens), unusable (an answer came, but not in the form asked for), too_long (the question).
    """

    value: T | None
    prompt_tokens: int = 0  # of all attempts
    completion_tokens: int = 0
    failure: str | None = None


class Chat(Protocol):
    """A model that answers chats, over HTTP (`Session`) or in this process (`local.LocalSession`)."""

    async def ask(
        self, messages: Messages, parse: Callable[[str], T], schema: type[BaseModel] | None = None, temperature: float = 0.0, seed: int = 0
    ) -> Reply[T]: ...


@dataclass(frozen=True)
class Endpoint:
    """Where the model is and how patiently it is asked. `url` is the base URL, such as http://localhost:8000/v1.

    The key is read from OPENAI_API_KEY; local servers take any. Example: `async with endpoint.open() as chat: await chat.ask(...)`.
    """

    url: str
    model: str
    concurrency: int = 8  # requests in flight
    timeout: float = 60.0  # seconds for a whole request
    retries: int = 5  # after the first attempt, where no answer came
    repeats: int = 2  # after the first answer, where it is unusable
    backoff: float = 1.0  # seconds before the first retry, doubled for each further one
    longest_wait: float = 120.0  # seconds; a server that asks for more gets no retry
    max_tokens: int = 1024  # of an answer

    def __post_init__(self):
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"endpoint: {self.url!r} is no address; give a base URL such as http://localhost:8000/v1")
        if not parts.path.strip("/"):
            object.__setattr__(self, "url", f"{parts.scheme}://{parts.netloc}/v1")
        for name, least in (("concurrency", 1), ("retries", 0), ("repeats", 0), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)!r} must be at least {least}")
        for name in ("timeout", "backoff", "longest_wait"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} must be more than 0 seconds")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """A session, which belongs to the running event loop."""
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ValueError("endpoint: the openai package is missing; pip install 'lira-hf[llm]'") from error

        key = os.environ.get("OPENAI_API_KEY") or "none"
        async with AsyncOpenAI(base_url=self.url, api_key=key, timeout=self.timeout, max_retries=0) as client:
            yield Session(self, client, asyncio.Semaphore(self.concurrency))


@dataclass
class Session:
    """An open connection to an endpoint. A failure of one question is a reply; what would fail for every question is raised as ValueError."""

    endpoint: Endpoint
    client: Any
    slots: asyncio.Semaphore
    resume_at: float = 0.0  # time.monotonic() before which the server wants no request
    bare: bool = False  # the server was seen to accept model and messages only

    async def ask(
        self, messages: Messages, parse: Callable[[str], T], schema: type[BaseModel] | None = None, temperature: float = 0.0, seed: int = 0
    ) -> Reply[T]:
        """Asks until `parse` takes the answer: it gets the model's text, and raises ValueError where that is unusable.

        `schema` is sent as response format to servers that know it; `parse` is what decides.
        """
        prompt_tokens = completion_tokens = 0
        failure = None
        for repeat in range(self.endpoint.repeats + 1):
            options: dict[str, Any] = {"temperature": temperature, "seed": seed + repeat, "max_tokens": self.endpoint.max_tokens}
            if repeat:  # the same words at temperature 0 would bring the same unusable answer
                options["temperature"] = max(temperature, 0.7)
            if schema is not None:
                form = {"name": schema.__name__.lower(), "schema": schema.model_json_schema(), "strict": True}
                options["response_format"] = {"type": "json_schema", "json_schema": form}
            completion, failure = await self._retried(lambda: self._complete(messages, options), _is_whole)  # noqa: B023 - awaited at once
            if completion is None:
                break
            prompt_tokens += _tokens(completion.usage, "prompt_tokens")
            completion_tokens += _tokens(completion.usage, "completion_tokens")
            content, failure = _content(completion)
            if failure == "refused":
                break
            if content is not None:
                try:
                    return Reply(parse(content), prompt_tokens, completion_tokens)
                except ValueError:
                    failure = "unusable"
        return Reply(None, prompt_tokens, completion_tokens, failure)

    async def decide(self, state: Any, questions: dict[str, Any], parse: Callable[[dict[str, Any]], T]) -> Reply[T]:
        """Typed decisions of `transformers serve` (/v1/systemone): the model chooses among given levels, and writes nothing.

        `questions` has at most 64; `parse` gets their answers by name, and raises where they are not what was asked for.
        """
        body = {"model": self.endpoint.model, "state": state, "questions": questions}
        send = lambda: self.client.post("/systemone", cast_to=object, body=body)  # noqa: E731
        decided, failure = await self._retried(send, lambda answer: isinstance(answer, dict) and isinstance(answer.get("answers"), dict))
        if decided is None:
            return Reply(None, failure=failure)
        tokens = _tokens(decided.get("usage"), "input_tokens")
        try:
            return Reply(parse(decided["answers"]), tokens)
        except (ValueError, LookupError, TypeError, AttributeError):
            return Reply(None, tokens, failure="unusable")

    async def _retried(self, send: Callable[[], Awaitable[Any]], is_whole: Callable[[Any], bool]) -> tuple[Any, str | None]:
        """What `send` brings once it is whole, or None and why there is nothing after all retries."""
        import openai

        failure = None
        for attempt in range(self.endpoint.retries + 1):
            wait = min(self.endpoint.backoff * 2**attempt, self.endpoint.longest_wait) * random.uniform(0.5, 1)
            unreachable = None
            try:
                async with self.slots:
                    while (pause := self.resume_at - time.monotonic()) > 0:
                        await asyncio.sleep(pause)
                    async with asyncio.timeout(self.endpoint.timeout):  # the client's own time-out starts anew with every byte
                        answer = await send()
                if is_whole(answer):
                    return answer, None
                failure = "malformed"
            except (TimeoutError, openai.APITimeoutError):
                failure = "timeout"
            except openai.APIConnectionError as error:
                failure = "cut"
                unreachable = error.__cause__ if type(error.__cause__).__name__ == "ConnectError" else None
            except openai.APIStatusError as error:
                failure = self._kind(error)
                if failure == "refused":
                    return None, failure
                if (asked := _retry_after(error.response.headers)) is not None:
                    if asked > self.endpoint.longest_wait:
                        return None, failure
                    wait = max(wait, asked)  # a server may well say 0
                    self.resume_at = max(self.resume_at, time.monotonic() + asked)
            except (openai.APIResponseValidationError, ValueError):  # ValueError: a body that is no JSON
                failure = "malformed"
            if attempt < self.endpoint.retries:
                await asyncio.sleep(wait)
        if unreachable is not None:
            raise ValueError(f"endpoint: {self.endpoint.url!r} does not answer ({unreachable}); is the server running?") from unreachable
        return None, failure

    async def _complete(self, messages: Messages, options: dict[str, Any]) -> Any:
        import openai

        create = self.client.chat.completions.create
        if not self.bare:
            try:
                return await create(model=self.endpoint.model, messages=messages, **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                pass  # some servers know no response format, seed or temperature
        completion = await create(model=self.endpoint.model, messages=messages)
        self.bare = True
        return completion

    def _kind(self, error: Any) -> str:
        status = error.status_code
        if status in (401, 403, 404) or error.code == "insufficient_quota":
            raise ValueError(f"endpoint: {self.endpoint.url!r} refuses model {self.endpoint.model!r}: {status} {_first_line(error)}") from error
        if status == 429:
            return "rate_limit"
        return "server" if status >= 500 or status in (408, 409) else "refused"


async def as_they_finish(jobs: Iterable[Coroutine[Any, Any, T]], limit: int) -> AsyncIterator[T]:
    """Results of the jobs in the order they come, with at most `limit` of them started at a time.

    An exception of a job is raised after the results that came with it, and ends the others."""
    waiting, running = iter(jobs), set()
    try:
        while running := running | {asyncio.ensure_future(job) for job in itertools.islice(waiting, limit - len(running))}:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task.exception() is not None):
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _is_whole(completion: Any) -> bool:
    """Whether it is what a chat completion must be: the client builds its classes from any JSON, and returns other bodies as text."""
    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice

    if not isinstance(completion, ChatCompletion) or not isinstance(completion.choices, list) or not completion.choices:
        return False
    choice = completion.choices[0]
    return isinstance(choice, Choice) and choice.message is not None and isinstance(choice.message.content, str | None)


def _tokens(usage: Any, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
    return count if isinstance(count, int) else 0


def _content(completion: ChatCompletion) -> tuple[str | None, str | None]:
    choice = completion.choices[0]
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        return None, "refused"
    if choice.finish_reason == "length":
        return None, "length"  # half an answer is none
    if choice.message.content is None:
        return None, "unusable"
    return choice.message.content, None


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait; it may say so in milliseconds, seconds or as a date."""
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(header)) is None:
            continue
        try:
            return max(float(value) * unit, 0.0)
        except ValueError:
            try:
                return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
            except ValueError:
                continue
    return None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
