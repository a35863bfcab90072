"""Language models in this process: what they write after token ids, and chat models that are asked as an endpoint is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lira_hf.translation.endpoint import Messages, Reply

if TYPE_CHECKING:
    from pydantic import BaseModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """What a model wrote after one prompt."""

    text: str
    tokens: int
    ended: bool  # by its own end mark, not by the limit of tokens


class Writer:
    """A model and tokenizer that write after token ids. Blocking; one call at a time."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, max_new_tokens: int):
        self.model, self.tokenizer = model.eval(), tokenizer
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        room = max_new_tokens if not model.config.is_encoder_decoder else 0
        self.max_length = max_length if positions is None else min(max_length, positions - room)
        self.max_new_tokens = max_new_tokens
        if self.max_length < 1:
            raise ValueError(f"max_new_tokens: {max_new_tokens!r} must be less than the model's {positions} positions")
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self.ends = {ends} if isinstance(ends, int) else set(ends or ())

    def write(self, prompts: list[list[int]], seed: int, **options: Any) -> list[list[Draft]]:
        """`num_return_sequences` drafts (1 by default) for each prompt, best first where beams are given."""
        import torch

        causal = not self.model.config.is_encoder_decoder
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else next(iter(self.ends), 0)
        width = max(map(len, prompts))
        sides = [([pad] * (width - len(ids)), [0] * (width - len(ids))) for ids in prompts]  # a causal model writes on at the right
        ids = [side + ids if causal else ids + side for ids, (side, _) in zip(prompts, sides, strict=True)]
        mask = [side + [1] * len(ids) if causal else [1] * len(ids) + side for ids, (_, side) in zip(prompts, sides, strict=True)]
        device = self.model.device
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            written = self.model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=self.max_new_tokens,
                pad_token_id=pad,
                **options,
            )
        # A decoder's first token is its start mark, which often is the end mark too; then comes the code of the target language, if any.
        start = width if causal else 1 + ("forced_bos_token_id" in options)
        drafts = [self._draft(row) for row in written[:, start:].tolist()]
        each = len(drafts) // len(prompts)
        return [drafts[i : i + each] for i in range(0, len(drafts), each)]

    def _draft(self, ids: list[int]) -> Draft:
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        ids = ids if end is None else ids[: end + 1]
        return Draft(self.tokenizer.decode(ids, skip_special_tokens=True), len(ids), end is not None)


class LocalChat:
    """A chat model in this process, asked as an endpoint is: questions that wait are answered in batches."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        batch_size: int = 8,
        max_length: int = 4096,
        max_tokens: int = 512,
        repeats: int = 2,
    ):
        if not tokenizer.chat_template:
            raise ValueError(f"model: {name!r} has no chat template; give a model that was taught to chat")
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size!r} must be at least 1")
        self.writer = Writer(model, tokenizer, max_length, max_tokens)
        self.model, self.max_tokens, self.batch_size, self.repeats = name, max_tokens, batch_size, repeats
        self.concurrency = 2 * batch_size  # the next batch waits while one is written

    @classmethod
    def from_pretrained(cls, model_id: str, revision: str | None = None, **options: Any) -> Self:
        """Opens a Hub id or folder; on the GPU where there is one. Raises ValueError where there is no such chat model."""
        return cls(*open_model(model_id, revision), **options)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LocalSession]:
        """A session, which belongs to the running event loop."""
        session = LocalSession(self, asyncio.Queue())
        worker = asyncio.create_task(session.work())
        try:
            yield session
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


@dataclass
class LocalSession:
    """A chat model at work."""

    chat: LocalChat
    waiting: asyncio.Queue[tuple[list[int], float, int, asyncio.Future[Draft]]]

    async def ask(
        self, messages: Messages, parse: Callable[[str], T], schema: type[BaseModel] | None = None, temperature: float = 0.0, seed: int = 0
    ) -> Reply[T]:
        """As `endpoint.Session.ask`; `schema` is not enforced while writing, `parse` decides."""
        writer, failure = self.chat.writer, "too_long"
        prompt = chat_ids(writer.tokenizer, messages)
        prompt_tokens = completion_tokens = 0
        for repeat in range(self.chat.repeats + 1 if len(prompt) <= writer.max_length else 0):
            future: asyncio.Future[Draft] = asyncio.get_running_loop().create_future()
            await self.waiting.put((prompt, max(temperature, 0.7) if repeat else temperature, seed + repeat, future))
            draft = await future
            prompt_tokens, completion_tokens = prompt_tokens + len(prompt), completion_tokens + draft.tokens
            failure = "length"
            if draft.ended:
                try:
                    return Reply(parse(draft.text), prompt_tokens, completion_tokens)
                except ValueError:
                    failure = "unusable"
        return Reply(None, prompt_tokens, completion_tokens, failure)

    async def work(self) -> None:
        """Answers what waits, in batches of one temperature, until it is cancelled."""
        held = None  # the first question of another temperature
        while True:
            batch = [held or await self.waiting.get()]
            held = None
            while len(batch) < self.chat.batch_size and held is None and not self.waiting.empty():
                question = self.waiting.get_nowait()
                if question[1] == batch[0][1]:
                    batch.append(question)
                else:
                    held = question
            _, temperature, seed, _ = batch[0]
            sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
            try:
                written = await asyncio.to_thread(self.chat.writer.write, [ids for ids, *_ in batch], seed, **sampling)
            except Exception as error:  # whoever asked raises it
                for *_, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (*_, future), (draft,) in zip(batch, written, strict=True):
                if not future.done():  # the asker may have been cancelled
                    future.set_result(draft)


def open_model(model_id: str, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Model, tokenizer and a name that changes with the weights: the commit of a Hub repository, the digest of a folder's files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(model_id, revision=revision)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, loading = kind.from_pretrained(model_id, revision=revision, dtype="auto", output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(model_id, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"model: {model_id!r} cannot be opened: {str(error).splitlines()[0]}") from error
    if missing := sorted(loading["missing_keys"]):  # transformers fills them with random numbers, and what they write is noise
        raise ValueError(f"model: {model_id!r} has no trained weights to write text with ({missing[0]} and {len(missing) - 1} more are missing)")
    if torch.cuda.is_available():
        model = model.to("cuda")
    if Path(model_id).is_dir():
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(model_id).iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".model", ".jinja")):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return model, tokenizer, f"{Path(model_id).name}@{digest.hexdigest()[:12]}"
    return model, tokenizer, f"{model_id}@{(config._commit_hash or revision or 'main')[:12]}"


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Token ids of a chat up to the model's turn. Control tokens in the messages are encoded as text."""
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, sanitize_control_tokens=True)
    return list(ids["input_ids"])
