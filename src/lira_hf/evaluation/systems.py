"""What can be evaluated on texts: a LiRA model, the frozen systems around its backbones, and any frozen encoder, each as rows -> vectors.

A frozen encoder that is no LiRA is read as LiRA would read it if both of its paths were that encoder and nothing had been trained:
`multilingual_only` reads the text, `english_only` its first translation, `english_best` the critic's best one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import cached_file

from lira_hf.evaluation.finished import settings_of, weights_digest
from lira_hf.evaluation.retrieval import FROZEN_SYSTEMS, build_frozen, embed
from lira_hf.features import FeatureStore
from lira_hf.modeling import LiraConfig, LiraForRetrieval, LiraProcessor
from lira_hf.modeling.folders_lira import located
from lira_hf.modeling.modeling_lira import encoder_of, loaded_from, pooling_of
from lira_hf.modeling.processing_lira import Row

LIRA_SYSTEMS = (*FROZEN_SYSTEMS, "lira")
UNTRANSLATED = ("multilingual_only", "lira")  # those that have something to read where no text has a translation
ENCODER_SYSTEMS = ("multilingual_only", "english_only", "english_best")
POOLINGS = ("multilingual_pooling", "english_pooling")
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")  # of sentence-transformers; whatever has others is more than its token states
MAX_TOKENS = 512  # of a frozen encoder whose tokenizer names no limit


class System(Protocol):
    """Rows (see LiraProcessor) -> L2-normalised float32 vectors on the CPU, [N, size]. `digest` names everything they depend on."""

    size: int
    max_tokens: int
    digest: str
    parameters: int

    def embed(self, rows: list[Row], batch_size: int = 64, show_progress_bar: bool = False) -> torch.Tensor: ...


@dataclass
class LiraSystem:
    """A LiRA model; with a store, its backbones are not run again for the texts in it. A model that reads the multilingual path alone reads
    English texts there too."""

    model: LiraForRetrieval
    processor: LiraProcessor
    store: FeatureStore | None = None
    backbones: str | None = None  # the digest of the backbones' weights, where it is known: they may be large, and shared by several systems

    def __post_init__(self):
        self.size = self.model.config.hidden_size
        self.max_tokens = self.processor.max_length
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        fields = settings_of(self.model.config)
        tokenizers = (self.processor.tokenizer, self.processor.english_tokenizer)
        backbones = self.backbones or backbones_digest(self.model)
        how = (fields, self.processor.prompts, self.processor.max_length, self.processor.languages, backbones)
        self.digest = weights_digest([self.model.lira.arca, self.model.lira.lasr], tokenizers, *how)

    def embed(self, rows: list[Row], batch_size: int = 64, show_progress_bar: bool = False) -> torch.Tensor:
        rows = self.read(rows)
        if self.store is not None:
            return embed(self.model, self.store, rows)
        device = self.model.lira.lasr.path_weight.device

        def run(index: list[int]) -> torch.Tensor:
            return self.model(**self.processor.batch([rows[i] for i in index]).to(device)).embeddings

        with torch.no_grad():
            return self.model.in_batches([row.length for row in rows], run, batch_size, show_progress_bar, "encode")

    def read(self, rows: list[Row]) -> list[Row]:
        """The rows as this model reads them."""
        if self.model.config.paths != "multilingual":
            return rows
        return [row if row.text is not None else Row(row.translations[0], [], [], row.language, row.prompt) for row in rows]


@dataclass
class SentenceSystem:
    """A SentenceTransformer. `reads` is multilingual_only, english_only or english_best; a row without a candidate is read as it is."""

    model: object
    reads: str
    processor: LiraProcessor  # for the choice of a candidate

    def __post_init__(self):
        self.size = self.model.get_embedding_dimension()
        self.max_tokens = self.model.max_seq_length or MAX_TOKENS
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        tokenizer = getattr(self.model, "tokenizer", None)
        modules = [(type(each).__name__, getattr(each, "get_config_dict", dict)()) for each in self.model]
        configs = [settings_of(each.config) for each in self.model.modules() if isinstance(each, PreTrainedModel)]
        how = (self.model.prompts, self.max_tokens, self.reads, modules, configs)
        self.digest = weights_digest([self.model], [tokenizer] if tokenizer is not None else [], *how)

    def embed(self, rows: list[Row], batch_size: int = 64, show_progress_bar: bool = False) -> torch.Tensor:
        found = torch.empty(len(rows), self.size)
        for prompt in {row.prompt for row in rows}:  # texts of one prompt at a time
            index = [i for i, row in enumerate(rows) if row.prompt == prompt]
            encode = {"query": self.model.encode_query, "document": self.model.encode_document}.get(prompt, self.model.encode)
            texts = [self.text(rows[i]) for i in index]
            vectors = encode(texts, batch_size=batch_size, show_progress_bar=show_progress_bar, normalize_embeddings=True, convert_to_tensor=True)
            found[index] = vectors.float().cpu()
        return found

    def text(self, row: Row) -> str:
        if row.text is not None and (self.reads == "multilingual_only" or not row.translations):
            return row.text
        return row.translations[0] if self.reads == "english_only" else self.processor.question(row)


def backbones_digest(model: LiraForRetrieval) -> str:
    return weights_digest([model.lira.multilingual, model.lira.english])


def reason(error: Exception) -> str:
    """What an error says, in one line; transformers takes several to say that the Hub cannot be reached, or that a token is missing."""
    return " ".join(str(error).split())[:400]


def is_lira(model: str | Path) -> bool:
    """Whether a folder or Hub id is a LiRA model. Raises ValueError where it is no model at all."""
    try:
        return isinstance(AutoConfig.from_pretrained(str(model)), LiraConfig)
    except (OSError, ValueError) as error:
        raise ValueError(f"model: {str(model)!r} is neither a model folder nor a Hub id that can be loaded ({reason(error)})") from error


def open_lira(model: str | Path) -> tuple[LiraForRetrieval, LiraProcessor]:
    """Model and processor of a folder or Hub id. Raises ValueError where it is no LiRA model, or the Hub does not give it."""
    try:
        kind = LiraConfig.get_config_dict(located(str(model), ("config.json",))[0])[0].get("model_type")
    except OSError as error:
        status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
        hint = "; where it is private, run `hf auth login` or set HF_TOKEN" if status in (401, 403, 404) else ""
        raise ValueError(f"model: {str(model)!r} is no LiRA model that can be opened ({reason(error)}{hint})") from error
    if kind != "lira":
        raise ValueError(f"model: {str(model)!r} is no LiRA model (it has no config.json with model_type lira)")
    return LiraForRetrieval.from_pretrained(model), LiraProcessor.from_pretrained(model)


def open_systems(model: str | Path, names: Sequence[str] | None = None, translated: bool = True, device: str | None = None) -> dict[str, System]:
    """The systems of that name around a model folder or Hub id, by name; they share their backbones.

    names: of LIRA_SYSTEMS, or of ENCODER_SYSTEMS where the model is no LiRA; None for all of them, or where no text is translated for those
    of UNTRANSLATED. device: None for the accelerator, if there is one. Raises ValueError for a name or a model that is not."""
    name, lira = str(model), is_lira(model)
    allowed = LIRA_SYSTEMS if lira else ENCODER_SYSTEMS
    names = check_systems(names, allowed, [each for each in allowed if translated or each in UNTRANSLATED])
    device = device or (torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu")
    if lira:
        whole, processor = LiraForRetrieval.from_pretrained(name).to(device), LiraProcessor.from_pretrained(name)
        digest = backbones_digest(whole)
        return {each: LiraSystem(whole if each == "lira" else build_frozen(whole, each), processor, None, digest) for each in names}
    processor = LiraProcessor.from_backbones(name, name)
    processor.max_length = limit_of(processor.tokenizer.model_max_length)
    if has_more_modules(name):
        from sentence_transformers import SentenceTransformer

        sentences = SentenceTransformer(name, device=device)
        return {each: SentenceSystem(sentences, each, processor) for each in names}
    backbone, _, folder = loaded_from("model", name, "auto")
    backbone = encoder_of(backbone)
    config = LiraConfig(
        multilingual_config=backbone.config,
        english_config=backbone.config,
        num_bins=1,
        **dict.fromkeys(POOLINGS, pooling_of(folder, backbone.config)),
    )
    whole = LiraForRetrieval.around(config, multilingual=backbone, english=backbone).to(device)
    digest = backbones_digest(whole)
    return {each: LiraSystem(build_frozen(whole, each), processor, None, digest) for each in names}


def limit_of(tokens: int) -> int:
    """What a tokenizer says of its longest text, unless that is the huge number which stands for nothing."""
    return tokens if tokens < 1_000_000 else MAX_TOKENS


def check_systems(names: Sequence[str] | None, allowed: Sequence[str], default: Sequence[str]) -> list[str]:
    for name in names or ():
        if name not in allowed:
            raise ValueError(f"systems: {name!r} is not known here; allowed: {', '.join(allowed)}")
    return list(default if names is None else dict.fromkeys(names))


def has_more_modules(name: str) -> bool:
    """Whether sentence-transformers does more with a model than pool and normalise its token states."""
    file = cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    kinds = [each["type"].rpartition(".")[2] for each in json.loads(Path(file).read_text())] if file else []
    return any(kind not in PLAIN_MODULES for kind in kinds)
