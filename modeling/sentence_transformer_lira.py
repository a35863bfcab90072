"""The module by which sentence-transformers loads a LiRA repository: `SentenceTransformer(folder, trust_remote_code=True)`.

modules.json, beside the weights, names it. It is the one shipped file that needs more than torch and transformers, and nothing imports it
but sentence-transformers itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import AutoModel, AutoProcessor

try:  # in a try, because transformers asks for all that shipped files import outside of one, also where nobody uses them
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError("opening LiRA by sentence-transformers needs its version 6 or later: pip install 'sentence-transformers>=6'") from error

KEYS = ("text", "translation", "translations", "scores", "language")
ALLOWED = f"a string, a pair (text, translation), or a dict with keys of {', '.join(KEYS)} is"
# Names of features. A column of training data is known by its one name that ends in input_ids; LiRA's own batch has two of them.
FEATURES = {
    "multilingual_input_ids": "input_ids", "multilingual_attention_mask": "attention_mask", "english_input_ids": "english_ids",
    "english_attention_mask": "english_mask", "candidate_mask": "candidate_mask", "translation_scores": "translation_scores",
    "language_ids": "language_ids",
}  # fmt: skip


class LiraSentenceEncoder(InputModule):
    """A LiRA model and its processor as the only module of a SentenceTransformer.

    An item is a text; a pair (text, translation), where the second may be None or a list of candidates; or a dict with `text`,
    `translation` or `translations`, `scores` (one triple in 1..10, or None, per candidate) and `language`, each optional, as long as there
    is a text or a translation. Items of all kinds may stand in one list. A list is a batch, so one pair alone goes in a list of its own.

    A prompt that reads `{name}`, such as `{query}`, is the processor's prompt of that name, with its own prefix for each path; these are the
    model's prompts, so `encode_query` and `encode_document` do what prompt_name="query" and "document" do in LiraForRetrieval.encode.
    Any other prompt is put before text and translations alike; an empty one is none.

    Args:
        model: LiraForRetrieval. processor: its LiraProcessor.
        language: code of the items that name none; `encode(items, language="th")` overrides it. None means `und`."""

    config_file_name = "sentence_transformer_lira.json"
    config_keys = ["language"]
    forward_kwargs = {"language"}  # makes it an argument of encode, which hands it to preprocess, and to forward, which has no use for it
    save_in_root = True

    def __init__(self, model, processor, language: str | None = None):
        super().__init__()
        self.model, self.processor, self.language = model, processor, language

    @classmethod
    def load(
        cls, model_name_or_path: str, subfolder: str = "", token=None, cache_folder=None, revision=None, local_files_only=False,
        trust_remote_code=False, model_kwargs=None, processor_kwargs=None, config_kwargs=None, backend="torch", **kwargs,
    ):  # fmt: skip
        """Called by SentenceTransformer, whose arguments these are."""
        if backend != "torch":
            raise ValueError(f"backend: {backend!r} is not supported; 'torch' is")
        where = {"token": token, "revision": revision, "local_files_only": local_files_only}
        settings = cls.load_config(model_name_or_path, subfolder, cache_folder=cache_folder, **where)
        where |= {"cache_dir": cache_folder, "trust_remote_code": trust_remote_code}
        model = AutoModel.from_pretrained(model_name_or_path, **where, **(config_kwargs or {}), **(model_kwargs or {}))
        return cls(model, AutoProcessor.from_pretrained(model_name_or_path, **where, **(processor_kwargs or {})), **settings)

    def on_model_ready(self, model) -> None:
        """Makes every prompt of the processor one of the model's. Those that were given to it, or saved with it, stay as they are."""
        for name in self.processor.prompts:
            model.prompts.setdefault(name, f"{{{name}}}")

    def save(self, output_path: str, *args, **kwargs) -> None:
        """Model, processor, code files and settings; model and processor open by the Auto classes too."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
        partial = os.path.join(output_path, f".{self.config_file_name}")
        self.save_config(output_path, os.path.basename(partial))
        os.replace(partial, os.path.join(output_path, self.config_file_name))

    # -- items -> features -> embeddings --------------------------------------------------------------------------------------

    def preprocess(self, inputs: Sequence, prompt: str | None = None, language: str | None = None, **kwargs) -> dict[str, Tensor]:
        """The features of a batch of items (see the class). Raises ValueError that names the item and what is allowed; no other kind of
        error, because SentenceTransformer would take that for an old module and try again without the prompt."""
        if language is not None and not isinstance(language, str):
            raise ValueError(f"language: {language!r} is not allowed; one code for all items is, or a dict with `language` as the item")
        rows = [self.row(i, item, language or self.language) for i, item in enumerate(inputs)]
        name = prompt[1:-1] if prompt and prompt[0] == "{" and prompt[-1] == "}" else None
        if name is not None and name not in self.processor.prompts:
            allowed = ", ".join(f"{{{known}}}" for known in sorted(self.processor.prompts))
            raise ValueError(f"prompt: {prompt!r} is not known; allowed: {allowed}, or a string to put before text and translations")
        if prompt and name is None:
            rows = [
                replace(row, text=None if row.text is None else prompt + row.text, translations=[prompt + each for each in row.translations])
                for row in rows
            ]
        batch = self.processor.batch(rows, name)
        return {FEATURES[key]: tensor for key, tensor in batch.items()}

    def row(self, index: int, item, language: str | None):
        """One item as a checked row of the processor."""
        place = f"inputs[{index}] of the batch: {item!r}"
        if isinstance(item, str):
            item = {"text": item}
        elif isinstance(item, (tuple, list)):
            if len(item) != 2:
                raise ValueError(f"{place} is not allowed; {ALLOWED}")
            item = {"text": item[0], "translations": item[1]}
        elif not isinstance(item, Mapping) or not set(item) <= set(KEYS):
            raise ValueError(f"{place} is not allowed; {ALLOWED}")
        given = {key: value for key, value in item.items() if value is not None}  # a column of a data set has every key in every row
        if "translation" in given and "translations" in given:
            raise ValueError(f"{place} has both translation and translations; one of them is allowed")
        candidates = given.get("translation", given.get("translations"))
        listed = {key: None if value is None else [value] for key, value in (("text", given.get("text")), ("scores", given.get("scores")))}
        try:
            return self.processor.check(listed["text"], [candidates or []], listed["scores"], given.get("language", language))[0]
        except ValueError as error:
            raise ValueError(f"{place} is not allowed ({error}); {ALLOWED}") from error

    def forward(self, features: dict[str, Tensor], **kwargs) -> dict[str, Tensor]:
        """Adds sentence_embedding [B, d_out], float32 and L2-normalised, to the features of B items."""
        batch = {ours: features[theirs] for ours, theirs in FEATURES.items() if theirs in features}
        return {**features, "sentence_embedding": self.model(**batch).embeddings}

    # -- what SentenceTransformer asks its first module for ---------------------------------------------------------------------

    def get_embedding_dimension(self) -> int:
        return self.model.config.hidden_size

    @property
    def tokenizer(self):
        """Of the multilingual path; the processor has that of the English one too."""
        return self.processor.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Tokens per text and path; longer ones are truncated."""
        return self.processor.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.processor.max_length = value
