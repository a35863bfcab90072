"""LiraProcessor: tokenizers, prompts, language ids, candidate translations and their scores -> the batch that LiRA reads."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoTokenizer, BatchEncoding, PreTrainedConfig, ProcessorMixin
from transformers.utils import logging

from .arca_lira import MIDDLE_SCORE
from .folders_lira import located
from .hub_lira import CHECKSUMS, LOCATION, upload_modified_files
from .tokenizers_lira import FILES, FOLDERS, check_readable, check_same, check_there, check_vocabularies, fingerprint

logger = logging.get_logger(__name__)

DEFAULT_LANGUAGES = ("vi", "th", "id", "ms", "ur", "bn", "fil", "en")
PATHS = ("multilingual", "english")
NAMES = ("text", "translations", "scores", "language")  # what messages call the arguments of a text, and of a pair's second text
PAIR_NAMES = ("text_pair", "pair_translations", "pair_scores", "pair_language")


@dataclass
class Row:
    """One checked input. text is None for English-only rows; scores are one triple or None per translation; prompt is its own
    prompt's name, which the prompt_name of a call overrides."""

    text: str | None
    translations: list[str] = field(default_factory=list)
    scores: list[tuple[float, float, float] | None] = field(default_factory=list)
    language: str = "und"
    prompt: str | None = None

    @property
    def length(self) -> int:
        """Characters of the text and its candidates."""
        return len(self.text or "") + sum(map(len, self.translations))


class LiraProcessor(ProcessorMixin):
    """Turns texts with candidate translations into LiRA's batch.

    Args:
        tokenizer: of the multilingual backbone (saved at the root). english_tokenizer: of the English one (saved in a subfolder).
        llm_tokenizer: of the language model of LiraForCausalLM (saved in another subfolder); None for every other head.
        languages: codes in the order of config.languages; any other code becomes `und`, id 0.
        prompts: name -> {"multilingual": prefix, "english": prefix}; `query` and `document` are always there.
        max_length: tokens per text and path; longer texts are truncated, which is said once.
        llm_prompt: what the language model is asked where a call gives no prompt; {question} stands for the candidate with the critic's
            best mean score, the first of equals, or for the text itself where there is none.
        llm_max_length: tokens of a prompt; longer ones lose their beginning, which is said once.
        chat: whether a prompt that is a string becomes a user's message, where the language model's tokenizer has a chat template.
    """

    def __init__(
        self, tokenizer=None, english_tokenizer=None, llm_tokenizer=None, languages=None, prompts=None, max_length=128, llm_prompt="{question}",
        llm_max_length=1024, chat=True, chat_template=None, **kwargs,
    ):  # fmt: skip
        self.languages = list(languages or DEFAULT_LANGUAGES)
        self.prompts = {name: dict.fromkeys(PATHS, "") for name in ("query", "document")} | (prompts or {})
        for name, prefixes in self.prompts.items():
            if not isinstance(prefixes, dict) or set(prefixes) != set(PATHS) or not all(isinstance(p, str) for p in prefixes.values()):
                raise ValueError(f"prompts: {name!r} has {prefixes!r}; a prefix each for multilingual and english is needed")
        for name, value in (("max_length", max_length), ("llm_max_length", llm_max_length)):
            if not isinstance(value, int) or value < 4:
                raise ValueError(f"{name}: {value!r} is not allowed; a whole number of at least 4 is")
        if not isinstance(llm_prompt, str) or "{question}" not in llm_prompt:
            raise ValueError(f"llm_prompt: {llm_prompt!r} is not allowed; a string that holds {{question}} is")
        if llm_tokenizer is not None and llm_tokenizer.eos_token is None:
            raise ValueError("llm_tokenizer: it has no eos_token, with which an answer ends")
        self.max_length, self.llm_prompt, self.llm_max_length, self.chat = max_length, llm_prompt, llm_max_length, chat
        super().__init__(tokenizer, english_tokenizer, chat_template=chat_template)
        self._llm_tokenizer = llm_tokenizer
        self._fingerprints: dict[str, str] = {}  # of the tokenizers as they were last saved
        for each in (tokenizer, english_tokenizer, llm_tokenizer):
            if each is not None and each.pad_token is None:
                each.pad_token = each.eos_token

    @classmethod
    def from_backbones(cls, multilingual: str, english: str, *, llm: str | None = None, prompts=None, **fields):
        """A processor for the backbones' own tokenizers (ids or folders), and for a language model's; `fields` are those of the class.
        prompts default to what the backbones' sentence-transformers files say."""
        tokenizers, declared = [], {}
        for path, name in zip((*PATHS, "llm"), (multilingual, english, llm), strict=True):
            if name is None:
                continue
            try:
                folder, _ = located(name, FILES)
                tokenizers.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
            except (OSError, ValueError) as error:
                raise ValueError(f"{path}: {str(name)!r} holds no tokenizer that can be loaded ({str(error).splitlines()[0]})") from error
            if path == "llm":
                continue
            file = folder / "config_sentence_transformers.json"
            for prompt, prefix in (json.loads(file.read_text(encoding="utf-8")).get("prompts") or {}).items() if file.exists() else ():
                prompt = "document" if prompt == "passage" else prompt
                declared.setdefault(prompt, dict.fromkeys(PATHS, ""))[path] = prefix
        return cls(*tokenizers, prompts=declared | (prompts or {}), **fields)

    # -- the optional third tokenizer, for which ProcessorMixin has no place: it wants all of its parts, and reads a missing one from the root ---

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["tokenizer", "english_tokenizer"]

    @property
    def llm_tokenizer(self):
        return self._llm_tokenizer

    @property
    def tokenizers(self) -> dict:
        """The tokenizers that there are, by backbone."""
        found = {"multilingual": self.tokenizer, "english": self.english_tokenizer, "llm": self.llm_tokenizer}
        return {name: tokenizer for name, tokenizer in found.items() if tokenizer is not None}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """ProcessorMixin's, with the fingerprint of each tokenizer in processor_config.json."""
        (Path(save_directory) / CHECKSUMS).unlink(missing_ok=True)  # those of what was there before
        if self.llm_tokenizer is not None:  # first, because ProcessorMixin pushes what it finds in the folder
            self.llm_tokenizer.save_pretrained(Path(save_directory) / FOLDERS["llm"])
        self._fingerprints = {name: fingerprint(tokenizer) for name, tokenizer in self.tokenizers.items()}
        return super().save_pretrained(os.fspath(save_directory), push_to_hub=push_to_hub, **kwargs)

    _upload_modified_files = upload_modified_files

    def _get_files_timestamps(self, working_dir) -> dict[str, float]:
        """What save_pretrained(push_to_hub=True) takes for old, and does not send: no tokenizer's folder, whose own time does not change
        when a file in it is written."""
        return {name: time for name, time in super()._get_files_timestamps(working_dir).items() if name not in FOLDERS.values()}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """ProcessorMixin's, all of its options included. A repository of the Hub is fetched first, whole and checked; no code of a tokenizer
        is run, whatever trust_remote_code says. Raises ValueError for a tokenizer that is missing or not the one that was saved, or that
        has more tokens than the backbone beside it."""
        where = {name: kwargs.pop(name) for name in LOCATION if name in kwargs}
        revision, subfolder = kwargs.pop("revision", None), kwargs.pop("subfolder", None) or ""
        folder = located(pretrained_model_name_or_path, FILES, revision=revision, subfolder=subfolder, **where)[0] / subfolder
        declared, _ = cls.get_processor_dict(folder)
        llm = [] if declared.get("llm_folder") is None else ["llm"]
        check_there(folder, [*PATHS, *llm])
        kwargs["trust_remote_code"] = False
        try:
            processor = super().from_pretrained(folder, **kwargs)
        except ValueError:  # which may name no file
            check_readable(folder)
            raise
        if llm:
            processor._llm_tokenizer = AutoTokenizer.from_pretrained(folder / FOLDERS["llm"], trust_remote_code=False)
        if "fingerprints" in declared:  # older folders have none
            check_same(folder, processor.tokenizers, declared["fingerprints"])
        check_vocabularies(folder, processor.tokenizers)
        return processor

    @classmethod
    def _load_tokenizer_from_pretrained(cls, *args, **kwargs):
        # Told of a config, AutoTokenizer reads none: of ours, whose class is remote code, it would warn. tokenizer_config.json says all.
        return super()._load_tokenizer_from_pretrained(*args, **{"config": PreTrainedConfig()} | kwargs)

    def to_dict(self) -> dict:
        found = super().to_dict() | ({} if self.llm_tokenizer is None else {"llm_folder": FOLDERS["llm"]})
        return found | ({"fingerprints": self._fingerprints} if self._fingerprints else {})

    def batch_decode(self, *args, **kwargs) -> list[str]:
        """Texts of token ids of the language model, if there is one, else of the multilingual backbone."""
        return (self.tokenizer if self.llm_tokenizer is None else self.llm_tokenizer).batch_decode(*args, **kwargs)

    def decode(self, *args, **kwargs) -> str:
        """As batch_decode, for one row."""
        return (self.tokenizer if self.llm_tokenizer is None else self.llm_tokenizer).decode(*args, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return [
            "multilingual_input_ids", "multilingual_attention_mask", "english_input_ids", "english_attention_mask",
            "candidate_mask", "translation_scores", "language_ids", *(() if self.llm_tokenizer is None else ("input_ids", "attention_mask")),
        ]  # fmt: skip

    def __call__(
        self, text=None, translations=None, scores=None, language=None, prompt_name=None, return_tensors="pt", *, text_pair=None,
        pair_translations=None, pair_scores=None, pair_language=None, pair_prompt_name=None, prompt=None, answer=None, **kwargs,
    ) -> BatchEncoding:  # fmt: skip
        """The batch for texts, or for pairs of texts.

        Args:
            text: list of B strings (or one string); None when translations stand alone. A text whose language is `en` and that has no
                translations goes down the English path, as its own candidate.
            translations: per text a list of up to K English candidates (a string counts as one; None or [] as no translation).
            scores: per text, per candidate the critic's (semantic, emotional, pragmatic), each in 1..10; None where unscored.
            language: one code, or one per text; None and codes outside `languages` mean `und`.
            prompt_name: a name of `prompts`, whose prefixes go before text and candidates.
            prompt: what the language model is asked, per text a string, or a list of chat messages ({"role": ..., "content": ...}), which
                go through its chat template; None means `llm_prompt`. A string too becomes a message where there is such a template,
                unless `chat` is False.
            answer: per text what it should answer (a string), in training; the end-of-text token is appended.
            return_tensors: "pt"; nothing else is supported.
            text_pair, pair_*: the second text of each pair, and of it what the others are of the first; without a language or a prompt's
                name of its own it has the first one's.
        Returns multilingual_* [B, L], english_* [B, K, L], candidate_mask [B, K], translation_scores [B, K, 3] (NaN: unscored),
        language_ids [B]; of second texts the same after `pair_`; and with a language model input_ids and attention_mask [B, T], padded on
        the left, and with answers labels [B, T], -100 outside of them. Raises ValueError that names the argument, the bad value and what
        is allowed."""
        if kwargs:
            allowed = "text, translations, scores, language, prompt_name, pair_prompt_name, prompt, answer, " + ", ".join(PAIR_NAMES)
            raise ValueError(f"{next(iter(kwargs))}: no argument of LiraProcessor; allowed: {allowed}")
        if return_tensors != "pt":
            raise ValueError(f"return_tensors: {return_tensors!r} is not supported; 'pt' is")
        rows = self.check(text, translations, scores, language)
        second = self.check_pair(rows, text_pair, pair_translations, pair_scores, pair_language)
        batch = self.batch(rows, prompt_name) if second is None else self.pair_batch(rows, second, prompt_name, pair_prompt_name)
        if self.llm_tokenizer is not None or prompt is not None or answer is not None:
            batch.update(self.dialogue(self.prompt_ids(rows, prompt), answer))
        return batch

    # -- checking ------------------------------------------------------------------------------------------------------------

    def check(self, text, translations=None, scores=None, language=None, names: tuple[str, ...] = NAMES) -> list[Row]:
        """The arguments of __call__ as checked rows; names are what messages call them."""
        text_name, translations_name, scores_name, language_name = names
        text = [text] if isinstance(text, str) else text
        if text is None and translations is None:
            raise ValueError(f"{text_name}: None, and {translations_name} is None too; give at least one of them")
        if isinstance(translations, str):
            raise ValueError(f"{translations_name}: {translations!r} is a string; a list with one list of candidates per text is needed")
        for name, value in ((text_name, text), (translations_name, translations), (scores_name, scores)):
            if value is not None and (not isinstance(value, (list, tuple)) or not value):
                raise ValueError(f"{name}: {value!r} is not allowed; a list with at least one entry is")
        count = len(text if text is not None else translations)
        texts = [None] * count if text is None else [check_text(f"{text_name}[{i}]", t) for i, t in enumerate(text)]
        for name, value in ((translations_name, translations), (scores_name, scores)):
            if value is not None and len(value) != count:
                raise ValueError(f"{name}: {len(value)} entries for {count} texts; one per text is needed")
        if language is None or isinstance(language, str):
            language = [language] * count
        if not isinstance(language, (list, tuple)) or len(language) != count:
            raise ValueError(f"{language_name}: {language!r} is not allowed; one code, or a list with one code for each of the {count} texts, is")
        rows = []
        for i in range(count):
            if language[i] is not None and not isinstance(language[i], str):
                raise ValueError(f"{language_name}[{i}]: {language[i]!r} is not a string; a code such as {self.languages[0]!r} is needed")
            candidates = translations[i] if translations is not None else None
            candidates = [candidates] if isinstance(candidates, str) else candidates or []
            if not isinstance(candidates, (list, tuple)):
                raise ValueError(f"{translations_name}[{i}]: {candidates!r} is not allowed; a list of strings is")
            candidates = [check_text(f"{translations_name}[{i}][{k}]", c) for k, c in enumerate(candidates)]
            given = scores[i] if scores is not None and scores[i] is not None else [None] * len(candidates)
            row = Row(texts[i], candidates, check_scores(f"{scores_name}[{i}]", given, len(candidates)), language[i] or "und")
            if row.language == "en" and row.text is not None and not candidates:
                row.text, row.translations, row.scores = None, [row.text], [None]  # an English text is its own translation
            if row.text is None and not row.translations:
                raise ValueError(f"{translations_name}[{i}]: empty, and there is no text either; give at least one of them")
            rows.append(row)
        return rows

    def check_pair(self, rows: list[Row], text=None, translations=None, scores=None, language=None) -> list[Row] | None:
        """The second texts of pairs, whose first ones are rows, checked; None where there are none. Without a language they have the first's."""
        if text is None and translations is None:
            for name, value in (("pair_scores", scores), ("pair_language", language)):
                if value is not None:
                    raise ValueError(f"{name}: given, but neither text_pair nor pair_translations is; give one of them")
            return None
        given = [text] if isinstance(text, str) else text if text is not None else translations
        if isinstance(given, (list, tuple)) and given and len(given) != len(rows):
            name = "pair_translations" if text is None else "text_pair"
            raise ValueError(f"{name}: {len(given)} second texts for {len(rows)} first ones; one each is needed")
        return self.check(text, translations, scores, [row.language for row in rows] if language is None else language, PAIR_NAMES)

    # -- tokens --------------------------------------------------------------------------------------------------------------

    def batch(self, rows: list[Row], prompt_name: str | None = None) -> BatchEncoding:
        """The batch of checked rows (see __call__)."""
        prompts = [prompt_name or row.prompt for row in rows]
        for name in prompts:
            self.check_prompt("prompt_name", name)
        data = self.beside_text(rows)
        here, real = torch.tensor([row.text is not None for row in rows]), data["candidate_mask"]
        texts = [self.prefixed("multilingual", row.text or "", name) for row, name in zip(rows, prompts, strict=True)]
        ids, mask = self.tokens("multilingual", texts)
        data["multilingual_input_ids"], data["multilingual_attention_mask"] = ids, mask * here[:, None]  # [B, L]
        candidates = [self.prefixed("english", text, name) for row, name in zip(rows, prompts, strict=True) for text in row.translations]
        ids, mask = self.tokens("english", candidates or [""])
        for name, tensor in (("input_ids", ids), ("attention_mask", mask if candidates else mask * 0)):
            spread = torch.zeros(*real.shape, tensor.shape[-1], dtype=torch.long)  # [B, K, L]
            if candidates:
                spread[real] = tensor
            data[f"english_{name}"] = spread
        return BatchEncoding({name: data[name] for name in self.model_input_names if name in data})

    def pair_batch(self, rows: list[Row], second: list[Row], prompt_name: str | None = None, pair_prompt_name: str | None = None) -> BatchEncoding:
        """The batch of pairs of checked rows; the second ones have the first ones' prompt, unless it is given."""
        self.check_prompt("pair_prompt_name", pair_prompt_name)
        return BatchEncoding({**self.batch(rows, prompt_name), **paired(self.batch(second, pair_prompt_name or prompt_name))})

    def check_prompt(self, argument: str, name: str | None) -> None:
        if name is not None and name not in self.prompts:
            raise ValueError(f"{argument}: {name!r} is not known; allowed: {', '.join(sorted(self.prompts))}")

    def beside_text(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """What a batch holds beside texts: candidate_mask [B, K], translation_scores [B, K, 3], and language_ids [B], the place in
        `languages` plus one, 0 for `und`."""
        width = max(1, max(len(row.translations) for row in rows))
        scores = torch.full((len(rows), width, 3), torch.nan)
        for i, row in enumerate(rows):
            for k, triple in enumerate(row.scores):
                if triple is not None:
                    scores[i, k] = torch.tensor(triple)
        return {
            "candidate_mask": torch.tensor([[k < len(row.translations) for k in range(width)] for row in rows]),
            "translation_scores": scores,
            "language_ids": torch.tensor([self.languages.index(row.language) + 1 if row.language in self.languages else 0 for row in rows]),
        }

    def prefixed(self, path: str, text: str, prompt_name: str | None) -> str:
        return (self.prompts[prompt_name][path] if prompt_name else "") + text

    def tokens(self, path: str, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask [N, L] of prefixed texts, padded on the right, truncated to max_length."""
        tokenizer = self.tokenizer if path == "multilingual" else self.english_tokenizer
        encoded = tokenizer(texts, padding=True, padding_side="right", truncation=True, max_length=self.max_length, return_tensors="pt")
        if any(encoding.overflowing for encoding in encoded.encodings or ()):
            logger.warning_once(f"texts longer than {self.max_length} tokens are truncated (max_length of the processor); said once")
        if not encoded["input_ids"].numel():  # nothing but empty texts, and a tokenizer that adds nothing: a column without a token
            ids = torch.zeros(len(texts), 1, dtype=torch.long)
            return ids, ids.clone()
        return encoded["input_ids"], encoded["attention_mask"]

    # -- what the language model reads beside the soft prompt ---------------------------------------------------------------------

    def question(self, row: Row) -> str:
        """The candidate with the critic's best mean score, the first of equals; the text itself where there is none."""
        means = [MIDDLE_SCORE if triple is None else sum(triple) / 3 for triple in row.scores]
        return row.translations[means.index(max(means))] if means else row.text

    def prompt_ids(self, rows: list[Row], prompt=None) -> list[list[int]]:
        """Token ids of each row's prompt (see __call__), without an end."""
        if self.llm_tokenizer is None:
            raise ValueError("prompt: there is no language model to read it; make the processor with from_backbones(..., llm=...)")
        if prompt is None:
            prompt = [self.llm_prompt.replace("{question}", self.question(row)) for row in rows]
        if not isinstance(prompt, (list, tuple)) or len(prompt) != len(rows):
            raise ValueError(f"prompt: {prompt!r} is not allowed; a list with a string or a list of messages for each of the {len(rows)} texts is")
        return [self._prompt_ids(f"prompt[{i}]", each) for i, each in enumerate(prompt)]

    def _prompt_ids(self, name: str, prompt: str | list[dict]) -> list[int]:
        tokenizer = self.llm_tokenizer
        if isinstance(prompt, str) and not (self.chat and tokenizer.chat_template):
            ids = tokenizer(check_text(name, prompt))["input_ids"]
            if ids[-1:] == [tokenizer.eos_token_id]:  # some tokenizers end every text; this one goes on
                ids = ids[:-1]
        else:
            messages = [{"role": "user", "content": check_text(name, prompt)}] if isinstance(prompt, str) else prompt
            if (
                not isinstance(messages, (list, tuple))
                or not messages
                or not all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages)
            ):
                raise ValueError(f"{name}: {prompt!r} is not allowed; a string or a list of messages with role and content is")
            if not tokenizer.chat_template:
                raise ValueError(f"{name}: {prompt!r} is a list of messages, but the language model's tokenizer has no chat template; give a string")
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # the template has written them
        if len(ids) > self.llm_max_length:
            logger.warning_once(f"prompts longer than {self.llm_max_length} tokens lose their beginning (llm_max_length of the processor); said once")
        return ids[-self.llm_max_length :]

    def answers(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask [N, A] of answers with their end-of-text token, padded on the right."""
        return padded(self._answer_ids(texts), self.llm_tokenizer.pad_token_id)

    def _answer_ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self.llm_tokenizer([check_text(f"answer[{i}]", text) for i, text in enumerate(texts)], add_special_tokens=False)
        return [[*ids, self.llm_tokenizer.eos_token_id] for ids in encoded["input_ids"]]

    def dialogue(self, prompts: list[list[int]], answers: list[str] | None = None) -> dict[str, torch.Tensor]:
        """Prompts (of prompt_ids), and the answers to them if given -> input_ids and attention_mask [B, T], padded on the left; with
        answers labels [B, T] too, -100 outside of them."""
        if answers is not None and (not isinstance(answers, (list, tuple)) or len(answers) != len(prompts)):
            raise ValueError(f"answer: {answers!r} is not allowed; a list with a string for each of the {len(prompts)} texts is")
        ends = self._answer_ids(answers) if answers is not None else [[] for _ in prompts]
        ids, mask = padded([prompt + end for prompt, end in zip(prompts, ends, strict=True)], self.llm_tokenizer.pad_token_id, left=True)
        batch = {"input_ids": ids, "attention_mask": mask}
        if answers is not None:
            batch["labels"] = padded([[-100] * len(prompt) + end for prompt, end in zip(prompts, ends, strict=True)], -100, left=True)[0]
        return batch


def padded(rows: list[list[int]], fill: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unequal length as ids and mask [N, L]."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), fill), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[i, place], mask[i, place] = torch.tensor(row, dtype=torch.long), 1
    return ids, mask


def paired(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of second texts, under the names that it has in a batch of pairs."""
    return {f"pair_{name}": tensor for name, tensor in batch.items()}


def check_text(name: str, text) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name}: {text!r} is not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: a lone surrogate at character {error.start} is not text; repair the encoding of the input") from None
    return text


def check_scores(name: str, scores, candidates: int) -> list[tuple[float, float, float] | None]:
    if not isinstance(scores, (list, tuple)) or len(scores) != candidates:
        given = f"{len(scores)} scores" if isinstance(scores, (list, tuple)) else repr(scores)
        raise ValueError(f"{name}: {given} for {candidates} candidates; one triple (semantic, emotional, pragmatic) or None each is needed")
    for k, triple in enumerate(scores):
        if triple is None:
            continue
        numbers = (
            isinstance(triple, (list, tuple))
            and len(triple) == 3
            and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and 1 <= v <= 10 for v in triple)
        )
        if not numbers:
            raise ValueError(f"{name}[{k}]: {triple!r} is not allowed; three numbers from 1 to 10 (semantic, emotional, pragmatic) are, or None")
    return [None if triple is None else tuple(float(v) for v in triple) for triple in scores]
