"""LiRA's models: two backbones, frozen unless asked otherwise, Arca, LaSR, and a head for every task.

Letters in shape comments: B rows, K candidate translations, L tokens, S bins, d shared width, d_g and d_h widths of the
multilingual and the English backbone, D = d_g + d_h, N rows really encoded, C candidate products, Q queries; of the language model T
tokens of text, w width, V tokens of the vocabulary.

All heads stay in this one file: `save_pretrained` copies the file of the saved class and what it imports, nothing else, and every
saved folder needs all heads, because its auto_map names them.

Beware: backbones are frozen in `LiraModel.train`, because `from_pretrained` gives every loaded parameter a gradient again and then
calls `eval()`.
"""

import copy
import difflib
import json
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, logging
from transformers.utils.loading_report import LoadStateDictInfo

from .arca_lira import Actor, Adaptor, Arca, sentence_pooling, temporal_pooling
from .backbones_lira import auto_class, digests, encoder_of, freeze, learns, loaded_by_reference, loaded_from, pooling_of
from .configuration_lira import CHOICES, LiraConfig
from .folders_lira import ADAPTER, ADAPTER_FILES, WEIGHT_FILES, located, tensor_files, tensors
from .hub_lira import CHECKSUMS, LOCATION, upload_modified_files
from .lasr_lira import Lasr
from .objectives_lira import (
    anchor_loss,
    answer_loss,
    closest_positives,
    collapse_figures,
    consistency_loss,
    contrastive_loss,
    cosines,
    effective_negatives,
    grades_of,
    grouped_correlation_loss,
    hinge_loss,
    judged_among,
    mean_variance_loss,
    pearson,
    policy_loss,
    soft_ndcg_loss,
    unsafe_negatives,
)
from .queues_lira import CorrQueue, DocQueue, SlowCopy, first_of_each, gather_rows, processes
from .ranking_lira import Comparison
from .reasoning_lira import SoftPrompt, embedding_norm, positions

if TYPE_CHECKING:  # never imported here: transformers copies what it reads here along with this file, into folders and from the Hub
    from .sentence_transformer_lira import LiraSentenceEncoder  # noqa: F401

logger = logging.get_logger(__name__)

INPUTS = {
    "multilingual_features", "multilingual_pooled", "text_mask", "english_features", "english_pooled", "candidate_mask", "translation_scores",
    "language_ids", "multilingual_input_ids", "multilingual_attention_mask", "english_input_ids", "english_attention_mask",
}  # fmt: skip
TEXT_INPUTS = {"input_ids", "attention_mask"}  # a language model's, which the processor of LiraForCausalLM gives to other heads too
SENTENCE_TRANSFORMER_FILES = {  # beside the weights: they make SentenceTransformer open a folder, by the module named here
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformer_lira.LiraSentenceEncoder"}],
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "{query}", "document": "{document}"},  # the processor's of that name, which has two prefixes for each
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}
LABEL_FIELDS = {"num_labels", "id2label", "label2id", "problem_type"}  # configuration that every transformers model has


class CollapseError(RuntimeError):
    """Stage 1 maps everything to one point; the message names the cure."""


# ---- outputs -----------------------------------------------------------------------------------------------------------


@dataclass
class LiraModelOutput(ModelOutput):
    """Output of every head.

    Args:
        loss: scalar, when what it needs was given.
        logits: [B, num_labels] float, of LiraForSequenceClassification.
        embeddings: [B, d_out] float, L2-normalised; None in stage 1.
        multilingual_embeds: E_lr [B, d]. english_embeds: E_en [B, K, d]; neither is normalised.
        similarity: cos(E_lr, E_en) [B, K] in [-1, 1]. actor_logits: [B, K], -inf where there is no candidate.
        choice: [B] long, index of the candidate that was read (0 where there is none).
        losses: the parts of the loss, by name, detached.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    embeddings: Tensor | None = None
    multilingual_embeds: Tensor | None = None
    english_embeds: Tensor | None = None
    similarity: Tensor | None = None
    actor_logits: Tensor | None = None
    choice: Tensor | None = None
    losses: dict[str, Tensor] | None = None


@dataclass
class LiraCausalLMOutput(LiraModelOutput):
    """Output of LiraForCausalLM.

    Args:
        logits: [B, n + 1, V], which predict the last n tokens of the text and the one after it: n is T, all of them, or with labels the
            tokens from the first label on.
        past_key_values: the cache, with use_cache: soft prompt, boundary and text.
    """

    logits: Tensor | None = None
    past_key_values: object | None = None


# ---- the base: building, freezing, initialising --------------------------------------------------------------------------


class LiraPreTrainedModel(PreTrainedModel):
    config_class = LiraConfig
    base_model_prefix = "lira"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True  # of the backbones; a frozen one has nothing to recompute, and does not
    _keep_in_fp32_modules_strict = ["arca", "lasr", "comparison", "soft_prompt"]  # else they open as half-precision as their backbones
    _keys_to_ignore_on_load_unexpected = [r"^llm\.", r"^soft_prompt\."]  # every head opens the folder of LiraForCausalLM

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, Adaptor):
            for layer in (module.multilingual_projection, module.english_projection):
                init.orthogonal_(layer.weight)  # keeps the geometry of the frozen space
                init.zeros_(layer.bias)
        elif isinstance(module, Actor):
            init.zeros_(module.unscored)
            init.zeros_(module.correction[-1].weight)
            init.zeros_(module.correction[-1].bias)
        elif isinstance(module, Lasr):
            init.ones_(module.path_weight)
            init.zeros_(module.absent_multilingual)
            init.zeros_(module.absent_english)
            init.zeros_(module.correction[-1].weight)
            init.zeros_(module.correction[-1].bias)
            if module.projection is not None:
                init.orthogonal_(module.projection.weight)
        elif isinstance(module, Comparison):
            init.zeros_(module.correction[-1].weight)
            init.zeros_(module.correction[-1].bias)
            for line in (module.line, module.affine):
                if line is not None:
                    init.copy_(line, torch.tensor([1.0, 0.0]))

    def get_input_embeddings(self) -> None:
        """None: each backbone has its own, and a library that shards or wraps the one of a model leaves LiRA's alone."""

    @classmethod
    def from_backbones(cls, multilingual: str, english: str, *, llm: str | None = None, dtype: torch.dtype = torch.float32, **config_fields):
        """A new model around two pretrained backbones, and a language model where the head has one.

        Args:
            multilingual, english: Hub ids or folders of any AutoModel encoder, decoder or encoder–decoder (its encoder is used).
            llm: Hub id or folder of the causal language model of LiraForCausalLM.
            dtype: of the backbones; LiRA's own part is float32.
            config_fields: fields of LiraConfig. Poolings default to what a backbone's sentence-transformers files say, else to the
                last token for decoders and the mean for encoders.
        Raises ValueError for an unknown field or a backbone that cannot be loaded."""
        known = {f.name for f in fields(LiraConfig) if f.name in LiraConfig.__annotations__} | LABEL_FIELDS
        for name in config_fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ValueError(f"{name}: no field of LiraConfig" + (f"; did you mean {near[0]}?" if near else f"; fields: {sorted(known)}"))
        if llm is not None and not cls.can_generate():
            raise ValueError(f"llm: {str(llm)!r} is not allowed; {cls.__name__} has no language model, LiraForCausalLM has")
        backbones, references = {}, {}
        for path, name in (("multilingual", multilingual), ("english", english), ("llm", llm)):
            if name is None:
                continue
            backbones[path], reference, folder = loaded_from(path, name, dtype)
            if path != "llm":
                backbones[path] = encoder_of(backbones[path])
                config_fields.setdefault(f"{path}_pooling", pooling_of(folder, backbones[path].config))
            config_fields[f"{path}_config"] = backbones[path].config
            if reference is not None:
                references[path] = reference
        return cls.around(LiraConfig(**{"backbone_references": references, **config_fields}), **backbones)

    @classmethod
    def around(cls, config: LiraConfig, **loaded: PreTrainedModel):
        """A new model of config that takes over what is loaded (multilingual, english, lira, llm); the rest starts at random."""
        with torch.device("meta"):  # the random weights of what is loaded would be thrown away, and may be large
            model = cls(config)
        for name, part in loaded.items():
            setattr(model if isinstance(model, LiraModel) or name in ("lira", "llm") else model.lira, name, part)
        lira = model if isinstance(model, LiraModel) else model.lira
        for part in (*lira.children(), *model.children()):
            if any(parameter.is_meta for parameter in part.parameters()):
                part.to_empty(device="cpu")
                part.apply(model._init_weights)
        return model.eval()

    # -- opening and saving --------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, config=None, backbones: str | None = None, output_loading_info: bool = False, **kwargs
    ):
        """transformers' from_pretrained, all of its options included, but for `use_safetensors=False`.

        Beyond that, a repository of the Hub is fetched first, whole and checked; backbones by reference are fetched at their commits, with
        trust_remote_code=False; files that were cut short, shards or tensors that are missing are errors. A head that opens the folder
        of another one starts its own parts anew, as ever.

        Args:
            backbones: "embedded" or "reference", how the model is saved from now on; None as it was. See refer_backbones.
        Raises OSError for a file that is missing or not whole, ValueError for one that does not fit; both name it."""
        if backbones not in (None, *CHOICES["backbones"]):
            raise ValueError(f"backbones: {backbones!r} is not allowed; choose one of {', '.join(CHOICES['backbones'])}")
        if kwargs.pop("use_safetensors", True) is False:
            raise ValueError("use_safetensors: False is not allowed; weights are read from safetensors only, because a pickle can run code")
        where = {name: kwargs.pop(name) for name in LOCATION if name in kwargs}
        revision, subfolder = kwargs.pop("revision", None), kwargs.get("subfolder") or ""
        folder, _ = located(pretrained_model_name_or_path, WEIGHT_FILES, revision=revision, subfolder=subfolder, **where)
        stored = cls._stored(pretrained_model_name_or_path, folder / subfolder)
        tensor_files(folder / subfolder, kwargs.get("variant"))
        if kwargs.get("adapter_kwargs"):  # an adapter's, where an Auto class was asked for one, and has found its base
            kwargs["adapter_kwargs"] = where | kwargs["adapter_kwargs"]
        if isinstance(config, LiraConfig):  # such as an Auto class gives
            backbones, config = backbones or config.backbones, copy.deepcopy(config)
            config.backbones = stored.get("backbones", "embedded")
        model, report = super().from_pretrained(folder, *model_args, config=config, output_loading_info=True, use_safetensors=True, **kwargs)
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        model._check_found(report["missing_keys"], stored, folder / subfolder)
        if model.config.backbones == "reference":
            model._load_references(where)
        if backbones == "embedded":
            model.embed_backbones()
        elif backbones == "reference" != model.config.backbones:
            model.refer_backbones(**where)
        return (model, report) if output_loading_info else model

    @classmethod
    def _stored(cls, name, folder: Path) -> dict:
        """What a folder's config.json says. Raises ValueError if that is no LiRA model's."""
        if not (folder / "config.json").is_file():
            raise ValueError(f"{name}: no LiRA model; there is no config.json in {folder}")
        stored, _ = cls.config_class.get_config_dict(folder)
        if stored.get("model_type") != cls.config_class.model_type:
            raise ValueError(
                f"{name}: no LiRA model; the model_type in its config.json is {stored.get('model_type')!r}, not {cls.config_class.model_type!r}; "
                f"{cls.__name__}.from_backbones makes one around encoders"
            )
        return stored

    def load_adapter(self, peft_model_id=None, adapter_name=None, peft_config=None, adapter_state_dict=None, *args, **kwargs):
        """transformers' load_adapter, which would also read a pickle: an adapter is read from safetensors only. One of the Hub is fetched
        first and checked. Raises OSError that names a file that is missing or not whole."""
        load_config = kwargs.get("load_config")
        name = peft_model_id or getattr(load_config, "pretrained_model_name_or_path", None)
        if name is not None and adapter_state_dict is None:
            options = {**(getattr(load_config, "download_kwargs", None) or {}), **(kwargs.get("adapter_kwargs") or {})}
            options["local_files_only"] = bool(options.get("local_files_only") or kwargs.get("local_files_only"))
            revision, subfolder = options.get("revision"), options.get("subfolder") or ""
            where = {option: options[option] for option in LOCATION if option in options}
            folder, _ = located(name, ADAPTER_FILES, revision=revision, subfolder=subfolder, **where)
            if not (folder / subfolder / ADAPTER).is_file():
                raise OSError(f"{folder / subfolder / ADAPTER}: missing; adapters are read from safetensors only, never from a pickle such as a .bin")
            tensors(folder / subfolder / ADAPTER)
            peft_model_id = str(folder)
        report = super().load_adapter(peft_model_id, adapter_name, peft_config, adapter_state_dict, *args, **kwargs)
        return report or LoadStateDictInfo(set(), set(), set(), [], {})  # older transformers give none, though their from_pretrained reads one

    def save_pretrained(self, save_directory, is_main_process: bool = True, state_dict: dict[str, Tensor] | None = None, **kwargs):
        """transformers' save_pretrained. Raises ValueError where backbones are saved by reference, but are no longer what is referred to."""
        if self.config.backbones == "reference" and is_main_process and not getattr(self, "_hf_peft_config_loaded", False):
            self._check_referred(self.state_dict() if state_dict is None else state_dict, {})
        if is_main_process:
            self._save_beside(Path(save_directory))
        (Path(save_directory) / CHECKSUMS).unlink(missing_ok=True)  # those of what was there before
        return super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)

    _upload_modified_files = upload_modified_files

    def _save_beside(self, folder: Path) -> None:
        """What a class writes beside weights, configuration and code: before them, since transformers may push the folder in the same call."""

    def refer_backbones(self, **where):
        """From now on a saved model holds LiRA's own weights alone, and of each backbone the repository and the commit, from which it is
        opened. Returns the model: `model.refer_backbones().save_pretrained(folder)`.

        where: how the Hub is reached: cache_dir, token, local_files_only. Raises ValueError where that would lose weights: for a backbone that
        came from a folder on disk, or was trained."""
        before, self.config.backbones = self.config.backbones, "reference"
        try:
            self.config.check_values()
            self._check_referred(self.state_dict(), where)
        except (ValueError, OSError):
            self.config.backbones = before
            raise
        self._mark_backbones()
        return self

    def embed_backbones(self):
        """From now on a saved model holds its backbones' weights too. Returns the model."""
        self.config.backbones = "embedded"
        self._mark_backbones()
        return self

    def post_init(self) -> None:
        super().post_init()
        self._referred: dict[str, dict[str, int]] = {}  # digests of backbones that are known to be what is referred to
        self._mark_backbones()

    def _owners(self) -> dict[str, nn.Module]:
        """The modules that hold the backbones, by path."""
        places = {"multilingual": self.base_model, "english": self.base_model, "llm": self}
        return {path: owner for path, owner in places.items() if hasattr(owner, path)}

    def _prefixes(self) -> dict[str, str]:
        """What the names of the backbones' weights begin with, by path."""
        return {path: f"{path}." if owner is self else f"lira.{path}." for path, owner in self._owners().items()}

    def _mark_backbones(self) -> None:
        """Tells transformers what a save leaves out, and opening does not miss: weights of backbones by reference."""
        prefixes, referred = tuple(self._prefixes().values()), self.config.backbones == "reference"
        self._keys_to_ignore_on_save = {name for name in self.state_dict() if name.startswith(prefixes)} if referred else set()
        if referred:
            self._keys_to_ignore_on_load_missing = {*(self._keys_to_ignore_on_load_missing or ()), *(f"^{prefix}" for prefix in prefixes)}
        for path, owner in self._owners().items():
            if referred and any(parameter.is_meta for parameter in self.parameters()):  # they are replaced; to make them at random takes long
                for module in getattr(owner, path).modules():
                    module._is_hf_initialized = True

    def _load_references(self, where: dict) -> None:
        """Puts the backbones that the references name in the place of what is there."""
        if len(set(getattr(self, "hf_device_map", {}).values())) > 1:
            raise ValueError("device_map: a model by reference opens on one device only; embed its backbones to spread it over several")
        for path, owner in self._owners().items():
            like = next(getattr(owner, path).parameters())
            config = getattr(owner, path).config
            backbone, _ = loaded_by_reference(path, self.config.backbone_references[path], config, like.dtype, **where)
            setattr(owner, path, backbone.to(like.device))
            self._referred[path] = digests(backbone.state_dict())
        self.eval()  # freezes them

    def _check_referred(self, weights: dict[str, Tensor], where: dict) -> None:
        """Raises ValueError if one of the backbones in a state dict is not what its reference names, bit for bit."""
        for path, prefix in self._prefixes().items():
            own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
            digest = digests(own)
            if not own or digest == self._referred.get(path):
                continue
            reference, dtype = self.config.backbone_references[path], next(tensor.dtype for tensor in own.values() if tensor.is_floating_point())
            backbone, random = loaded_by_reference(path, reference, getattr(self.config, f"{path}_config"), dtype, **where)
            there = backbone.state_dict()
            for name in sorted((own.keys() | there.keys()) - random):
                if name not in own or name not in there or not torch.equal(own[name].cpu(), there[name]):
                    raise ValueError(
                        f"backbones: 'reference' is not allowed, because {path} is no longer {reference['repo_id']} at {reference['revision']}: "
                        f"{name} differs, and would be lost; keep it inside with embed_backbones()"
                    )
            self._referred[path] = digest

    def _check_found(self, missing: set[str], stored: dict, folder: Path) -> None:
        """Raises ValueError where weights are missing that the head that was saved has, whatever head opens its folder."""
        if not missing:
            return
        saved = next(iter(stored.get("architectures") or ()), None)
        kind = next((each for each in (type(self), *LiraHead.__subclasses__()) if each.__name__ == saved), LiraModel)
        with torch.device("meta"):
            expected = {name.removeprefix("lira.") for name in kind(LiraConfig.from_dict(stored)).state_dict()}
        lost = expected & {name.removeprefix("lira.") for name in missing}
        if lost:
            raise ValueError(f"{folder}: {min(lost)} is missing in its weights ({len(lost)} in all); copy the folder again, or save it again")


class LiraModel(LiraPreTrainedModel):
    """Both backbones, Arca and LaSR. Heads add a loss; all weights live here, so a stage-1 folder opens in every head."""

    def __init__(self, config: LiraConfig):
        config.check_values()
        super().__init__(config)
        self.multilingual = encoder_of(auto_class(config.multilingual_config).from_config(config.multilingual_config, trust_remote_code=False))
        self.english = encoder_of(auto_class(config.english_config).from_config(config.english_config, trust_remote_code=False))
        self.arca = Arca(config)
        self.lasr = Lasr(config)
        self.post_init()

    def train(self, mode: bool = True):
        super().train(mode)
        for path in ("multilingual", "english"):
            freeze(getattr(self, path), mode, path in self.config.trainable_backbones)
        return self

    def encode_path(self, path: str, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [N, L] of one path, "multilingual" or "english" -> bins [N, S, h] and sentence vectors [N, h], both float32.
        Rows without a token are not encoded and come back as zeros. A frozen backbone runs without gradient."""
        backbone = getattr(self, path)
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns(backbone)):
            return self._encode(path, backbone, input_ids, attention_mask)

    def _encode(self, path: str, backbone: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        rows = attention_mask.bool().any(-1)
        hidden = backbone.config.hidden_size
        bins = torch.zeros(len(rows), self.config.num_bins, hidden, device=input_ids.device)
        pooled = torch.zeros(len(rows), hidden, device=input_ids.device)
        if rows.any():
            ids, mask = input_ids[rows], attention_mask[rows]
            states = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
            bins[rows] = temporal_pooling(states, mask, self.config.num_bins).float()
            pooled[rows] = sentence_pooling(states, mask, getattr(self.config, f"{path}_pooling"))
        return bins, pooled

    def encode_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The frozen part: a batch of ids, or one that carries cached features already -> features, every key present.

        multilingual_features [B, S, d_g], multilingual_pooled [B, d_g], text_mask [B]; english_features [B, K, S, d_h],
        english_pooled [B, K, d_h], candidate_mask [B, K]; translation_scores [B, K, 3], NaN where unscored; language_ids [B]."""
        for name in batch:
            if name not in INPUTS and name not in TEXT_INPUTS:
                raise ValueError(f"{name}: no input of LiRA; allowed: {', '.join(sorted(INPUTS))}")
        for path in ("multilingual", "english"):
            if self.training and batch.get(f"{path}_features") is not None and learns(getattr(self, path)):
                raise ValueError(f"{path}_features: a backbone that is trained reads ids; it would learn nothing from cached features")
        features = {name: batch[name] for name in batch if "input_ids" not in name and "attention_mask" not in name}
        if batch.get("multilingual_input_ids") is not None:
            mask = batch["multilingual_attention_mask"]
            features["multilingual_features"], features["multilingual_pooled"] = self.encode_path(
                "multilingual", batch["multilingual_input_ids"], mask
            )
            features["text_mask"] = mask.bool().any(-1)
        if batch.get("english_input_ids") is not None:
            ids, mask = batch["english_input_ids"], batch["english_attention_mask"]  # [B, K, L]
            real = batch["candidate_mask"].bool() if batch.get("candidate_mask") is not None else mask.bool().any(-1)
            bins, pooled = self.encode_path("english", ids[real], mask[real])  # [N, S, d_h]: only real candidates are encoded
            features["english_features"] = bins.new_zeros(*real.shape, *bins.shape[1:]).index_put((real,), bins)
            features["english_pooled"] = pooled.new_zeros(*real.shape, pooled.shape[-1]).index_put((real,), pooled)
            features["candidate_mask"] = real

        present = [t for t in (features.get("multilingual_features"), features.get("english_features")) if t is not None]
        if not present:
            raise ValueError(
                "multilingual_input_ids: missing, and so are english_input_ids and cached features; give at least one path, as LiraProcessor does"
            )
        rows, device = len(present[0]), present[0].device
        sizes = self.config.multilingual_config.hidden_size, self.config.english_config.hidden_size
        if features.get("multilingual_features") is None:
            features["multilingual_features"] = torch.zeros(rows, self.config.num_bins, sizes[0], device=device)
            features["multilingual_pooled"] = torch.zeros(rows, sizes[0], device=device)
            features["text_mask"] = torch.zeros(rows, dtype=torch.bool, device=device)
        if features.get("english_features") is None:
            features["english_features"] = torch.zeros(rows, 1, self.config.num_bins, sizes[1], device=device)
            features["english_pooled"] = torch.zeros(rows, 1, sizes[1], device=device)
            features["candidate_mask"] = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        if features.get("text_mask") is None:
            features["text_mask"] = torch.ones(rows, dtype=torch.bool, device=device)
        if features.get("candidate_mask") is None:
            features["candidate_mask"] = torch.ones(features["english_pooled"].shape[:2], dtype=torch.bool, device=device)
        if features.get("language_ids") is None:
            features["language_ids"] = torch.zeros(rows, dtype=torch.long, device=device)
        if features.get("translation_scores") is None or self.config.critics == "embedding":
            features["translation_scores"] = torch.full((*features["candidate_mask"].shape, 3), torch.nan, device=device)
        own = self.lasr.path_weight.dtype  # features may be cached in half precision, the trained part is float32
        for name in ("multilingual_features", "multilingual_pooled", "english_features", "english_pooled"):
            features[name] = features[name].to(own)
        features["text_mask"], features["candidate_mask"] = features["text_mask"].bool(), features["candidate_mask"].bool()
        return features

    def anchor(self, features: dict[str, Tensor], arca: Arca | None = None) -> tuple[Tensor, Tensor, LiraModelOutput]:
        """Stage 1 on features: bin streams x [B, S, d] and y [B, K, S, d], and an output with everything but embeddings."""
        arca = arca or self.arca
        mask, scores = features["candidate_mask"], features["translation_scores"].float()
        source, target = arca.adaptor(features["multilingual_features"], features["english_features"])
        source, target = source.to(features["multilingual_features"]), target.to(features["english_features"])  # whole again after autocast
        multilingual, english = source.mean(1), target.mean(2)  # [B, d], [B, K, d]
        similarity = F.cosine_similarity(multilingual[:, None], english, dim=-1)  # [B, K]
        similarity = torch.where(features["text_mask"][:, None], similarity, 0.0)  # without a text there is nothing to be like
        prior = arca.actor.prior(scores, features["english_pooled"], mask)
        logits = arca.actor(scores, self.judged(similarity), prior).masked_fill(~mask, -torch.inf)
        ranking = {"actor": logits, "critic": prior.masked_fill(~mask, -torch.inf), "first": mask.float()}[self.config.selection]
        choice = ranking.argmax(-1)  # the first of equals
        return (
            source,
            target,
            LiraModelOutput(multilingual_embeds=multilingual, english_embeds=english, similarity=similarity, actor_logits=logits, choice=choice),
        )

    def judged(self, similarity: Tensor) -> Tensor:
        """What the embedding critic says of candidates [B, K]: their similarity, or zeros where it is not asked."""
        return torch.zeros_like(similarity) if self.config.critics == "translation" else similarity

    def fuse(self, features: dict[str, Tensor], parts: tuple[Arca, Lasr] | None = None) -> LiraModelOutput:
        """Features -> output with embeddings [B, d_out]; parts replaces Arca and LaSR by a copy of them (the slow one of `ema`)."""
        arca, lasr = parts or (self.arca, self.lasr)
        source, target, present, output = self.choose(features, arca, lasr)
        rows = torch.arange(source.shape[0], device=source.device)
        chosen = features["english_pooled"][rows, output.choice]
        output.embeddings = lasr(source, target, features["multilingual_pooled"], chosen, present, features["language_ids"])
        output.embeddings = output.embeddings.to(chosen)
        return output

    def bin_states(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, LiraModelOutput]:
        """Features -> the fused states of text bins and candidate bins [B, 2S, d], which of them are there [B, 2S], and an output
        without embeddings. Those of an absent path mean nothing."""
        source, target, present, output = self.choose(features, self.arca, self.lasr)
        states = self.lasr.states(source, target, present, features["language_ids"])[:, 1:]
        return states, present.repeat_interleave(self.config.num_bins, dim=1), output

    def choose(self, features: dict[str, Tensor], arca: Arca, lasr: Lasr) -> tuple[Tensor, Tensor, Tensor, LiraModelOutput]:
        """Features -> what LaSR reads: bin streams of the text and of the chosen candidate, both [B, S, d], and which of the two paths
        are there [B, 2]; and an output with everything but embeddings. In training, some rows lose a path."""
        source, target, output = self.anchor(features, arca)
        target = target[torch.arange(target.shape[0], device=target.device), output.choice]
        present = torch.stack([features["text_mask"], features["candidate_mask"].any(-1)], -1)  # [B, 2]
        if self.config.paths != "both":
            present = present & torch.tensor([self.config.paths == "multilingual", self.config.paths == "english"], device=present.device)
        if lasr.training and self.config.paths == "both" and self.config.path_dropout:
            dropped = torch.rand(len(present), device=present.device)[:, None]
            dropped = torch.cat([dropped < self.config.path_dropout, dropped > 1 - self.config.path_dropout], -1)  # one path at most
            present = present & ~(dropped & present.all(-1, keepdim=True))
        return source, target, present, output

    def forward(
        self,
        multilingual_input_ids: Tensor | None = None,
        multilingual_attention_mask: Tensor | None = None,
        english_input_ids: Tensor | None = None,
        english_attention_mask: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        translation_scores: Tensor | None = None,
        language_ids: Tensor | None = None,
        **cached: Tensor,
    ) -> LiraModelOutput:
        """multilingual_* [B, L], english_* [B, K, L], candidate_mask [B, K], translation_scores [B, K, 3] in 1..10 (NaN: unscored),
        language_ids [B]; `cached` features replace ids (see encode_features)."""
        batch = dict(
            multilingual_input_ids=multilingual_input_ids,
            multilingual_attention_mask=multilingual_attention_mask,
            english_input_ids=english_input_ids,
            english_attention_mask=english_attention_mask,
            candidate_mask=candidate_mask,
            translation_scores=translation_scores,
            language_ids=language_ids,
            **cached,
        )
        return self.fuse(self.encode_features(batch))


# ---- heads ---------------------------------------------------------------------------------------------------------------


class LiraHead(LiraPreTrainedModel):
    """What the heads share: LiraModel as `lira`, and running means of what a step measured, for whoever logs."""

    accepts_loss_kwargs = False  # **inputs is no invitation to the Trainer to pass num_items_in_batch

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self.lira = LiraModel(config)
        self._measured: dict[str, list] = {}
        self.post_init()

    def _save_beside(self, folder: Path) -> None:
        """What sentence-transformers needs to open the folder. As by AutoModel, the folder of any head is opened as LiraForRetrieval."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in SENTENCE_TRANSFORMER_FILES.items():
            file = folder / name
            if name == "modules.json" or not file.exists():  # SentenceTransformer has written its own settings, and then saves the model
                partial = file.with_name(f".{name}")
                partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
                partial.replace(file)

    def _get_files_timestamps(self, working_dir) -> dict[str, float]:
        """What save_pretrained(push_to_hub=True) takes for old, and does not send: nothing of what it has just written."""
        return {name: time for name, time in super()._get_files_timestamps(working_dir).items() if name not in SENTENCE_TRANSFORMER_FILES}

    def measure(self, **figures: Tensor | float) -> None:
        """Adds a training step's figures; evaluation is not counted."""
        if self.training:
            for name, value in figures.items():
                total = self._measured.setdefault(name, [0.0, 0])
                total[0] = total[0] + torch.as_tensor(value).detach().float()
                total[1] += 1

    def pop_measured(self) -> dict[str, float]:
        """Means of what was measured since the last call."""
        means = {name: float(total / count) for name, (total, count) in self._measured.items()}
        self._measured.clear()
        return means

    def across(self, tensor: Tensor, fill: float = 0) -> Tensor:
        """The rows of all processes that train together (see gather_rows), so that N of them equal one with N times the batch."""
        return gather_rows(tensor, fill) if self.training else tensor

    def in_batches(self, lengths: list[int], run, batch_size: int, show_progress_bar: bool, name: str) -> Tensor:
        """What run(index) gives for the rows in index, [n, ...], in eval mode, for all rows in their order: float32, on the CPU.

        lengths: of the rows; the longest come first, so that running out of memory shows at once."""
        batches = self.longest_first(lengths, batch_size)
        with self.evaluating():
            found = torch.cat([run(index).float().cpu() for index in logging.tqdm(batches, disable=not show_progress_bar, desc=name)])
        return torch.empty_like(found).index_copy_(0, torch.tensor(sum(batches, [])), found)

    @staticmethod
    def longest_first(lengths: list[int], batch_size: int) -> list[list[int]]:
        """Places of rows in batches, the longest first."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: {batch_size!r} is not allowed; a whole number of at least 1 is")
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def queue_state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the weights: queues and slow copies. Never part of a published model."""
        return {}

    def load_queue_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what queue_state gave."""

    @classmethod
    def from_anchored(cls, folder: str, **config_fields):
        """This head around the backbones, Arca and LaSR of another head's folder, such as one of stage 1; config_fields override its own."""
        return cls.from_pretrained(folder, **config_fields)

    @contextmanager
    def evaluating(self):
        """Eval mode for the length of a with-statement."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)


class LiraForPreTraining(LiraHead):
    """Stage 1 (Arca): policy loss + eta * anchor loss + kappa * contrastive loss (METHOD 1.8)."""

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self._collapsed_steps = 0

    def queue_state(self) -> dict[str, Tensor]:
        return {"collapsed_steps": torch.tensor(self._collapsed_steps)}

    def load_queue_state(self, state: dict[str, Tensor]) -> None:
        self._collapsed_steps = int(state["collapsed_steps"])

    def forward(self, return_loss: bool = True, **inputs: Tensor) -> LiraModelOutput:
        """inputs as of LiraModel. The loss counts rows that have a text and a candidate; there must be at least one."""
        features = self.lira.encode_features(inputs)
        _, _, output = self.lira.anchor(features)
        if not return_loss:
            return output
        config = self.config
        similarity = self.lira.judged(output.similarity.detach())
        rewards = self.lira.arca.actor.critic(features["translation_scores"].float()) + config.reward_similarity * similarity
        chosen = output.english_embeds[torch.arange(len(rewards), device=rewards.device), output.choice]  # [B, d]
        mask = self.across(features["candidate_mask"] & features["text_mask"][:, None])  # [B, K]; from here on, B counts all processes
        logits, rewards, choice = self.across(output.actor_logits, -torch.inf), self.across(rewards), self.across(output.choice)
        rows = mask.any(-1)
        if not rows.any():
            raise ValueError("translations: no row of the batch has both a text and a candidate; stage 1 anchors one to the other")
        logits, rewards, mask, choice = logits[rows], rewards[rows], mask[rows], choice[rows]
        source, chosen = self.across(output.multilingual_embeds)[rows], self.across(chosen)[rows]  # [n, d]
        policy = policy_loss(logits, rewards, mask, config.policy, config.baseline)
        anchor = anchor_loss(source, chosen)
        contrast = contrastive_loss(source, chosen, config.contrast_temperature)
        output.loss = policy + config.anchor_weight * anchor + config.contrast_weight * contrast
        output.losses = {"policy": policy.detach(), "anchor": anchor.detach(), "contrast": contrast.detach()}
        if self.training:
            self.measure(**{f"loss_{name}": value for name, value in output.losses.items()})
            self._watch(logits, rewards, mask, choice, source.detach(), chosen.detach())
        return output

    @torch.no_grad()
    def _watch(self, logits: Tensor, rewards: Tensor, mask: Tensor, choice: Tensor, source: Tensor, chosen: Tensor) -> None:
        log_policy = logits.log_softmax(-1)
        entropy = -(log_policy.exp() * log_policy.masked_fill(~mask, 0)).sum(-1).mean()
        reward = rewards.gather(-1, choice[:, None]).mean()
        distance = (F.normalize(source, dim=-1) - F.normalize(chosen, dim=-1)).norm(dim=-1)
        p50, p95 = torch.quantile(distance, torch.tensor([0.5, 0.95], device=distance.device))
        self.measure(
            reward=reward, actor_entropy=entropy, epsilon1_p50=p50, epsilon1_p95=p95, epsilon1_max=distance.max(),
        )  # fmt: skip
        if len(source) < 2:
            return
        cosine, rank = collapse_figures(torch.cat([source, chosen]))
        self.measure(collapse_cosine=cosine, collapse_rank=rank)
        collapsed = cosine > self.config.collapse_cosine or rank < self.config.collapse_rank
        self._collapsed_steps = self._collapsed_steps + 1 if collapsed else 0
        if self._collapsed_steps >= self.config.collapse_patience:
            raise CollapseError(
                f"stage 1 has collapsed: for {self._collapsed_steps} steps the mean pairwise cosine of E was {cosine:.3f} (alarm above "
                f"{self.config.collapse_cosine}) and its effective rank {rank:.2f} (alarm below {self.config.collapse_rank}). "
                f"The anchor loss alone is smallest where every text has one vector. Cure: contrast_weight above 0 (it is "
                f"{self.config.contrast_weight}; 1.0 is the default), or a lower learning rate."
            )


class LiraForRetrieval(LiraHead):
    """Stage 2 for retrieval: L_ndcg + hinge + mean–variance over judged, batch and queued products (METHOD 2.3, 2.5)."""

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self.queue = DocQueue(config.queue_size) if config.queue != "none" and config.queue_size else None
        self.slow = SlowCopy(config.ema_decay) if config.queue == "ema" else None

    def forward(
        self,
        products: dict[str, Tensor] | None = None,
        relevances: Tensor | None = None,
        product_ids: Tensor | None = None,
        family_ids: Tensor | None = None,
        judged_product_ids: Tensor | None = None,
        judged_family_ids: Tensor | None = None,
        judged_relevances: Tensor | None = None,
        references: dict[str, Tensor] | None = None,
        product_references: dict[str, Tensor] | None = None,
        return_loss: bool = True,
        **inputs: Tensor,
    ) -> LiraModelOutput:
        """Embeds the rows of `inputs` (as of LiraModel); with products, they are the queries and there is a loss.

        Args:
            products: inputs of the step's C products. relevances: [Q, C] grades, -1 where unjudged.
            product_ids, family_ids: [C] long, not negative. judged_product_ids, judged_family_ids: [Q, J] long, padded with -1: all that
                the query's judgements name, in the step or not; their copies in the queue are no negatives.
            judged_relevances: [Q, J] grades of judged_product_ids. They stand in for relevances, and several processes that train
                together need them to know the grades of each other's products.
            references, product_references: inputs of the perfect translations as both text and candidate, [Q] and [C] rows, for the
                consistency term; rows without one have neither path."""
        output = self.lira.fuse(self.lira.encode_features(inputs))
        if products is None or not return_loss:
            return output
        features = self.lira.encode_features(products)
        own = self.lira.fuse(features).embeddings  # [C, D]
        # From here on, Q and C count the queries and products of all processes, each product once.
        queries, found = self.across(output.embeddings), self.across(own)
        ids = {"product": product_ids, "family": family_ids, "language": features["language_ids"]}
        ids = {name: self.across(values) for name, values in ids.items() if values is not None}
        judged = {"product": judged_product_ids, "family": judged_family_ids}
        judged = {name: self.across(values, -1) for name, values in judged.items() if values is not None and name in ids}
        gains = self._gains(relevances, judged_relevances, judged.get("product"), ids.get("product"), output.embeddings, own)
        once = first_of_each(ids["product"]) if self.training and processes() > 1 and "product" in ids else slice(None)
        found, gains, ids = found[once], gains[:, once], {name: values[once] for name, values in ids.items()}
        languages = inputs.get("language_ids")
        languages = None if languages is None or self.config.cross_language_negatives else self.across(languages)

        scores = cosines(queries, found)  # [Q, C]
        closest = closest_positives(found.detach(), gains, found.detach())
        allowed = torch.ones_like(gains, dtype=torch.bool) if languages is None else (gains >= 0) | (languages[:, None] == ids["language"])
        same = self._same_judged(judged, ids, gains)
        if self.training and self.queue is not None and self.queue.filled:
            past = self._hardest(queries, found, gains, judged, languages)  # M queued products a query: C becomes C + M
            gains = F.pad(gains, (0, past[0].shape[1]), value=-1)
            scores, closest, allowed, same = (torch.cat(pair, 1) for pair in zip((scores, closest, allowed, same), past, strict=True))

        config = self.config
        unsafe = unsafe_negatives(scores, gains, closest, same, config.false_negative_cosine, config.false_negative_margin)
        mask = allowed & ~unsafe
        losses = {
            "ndcg": soft_ndcg_loss(scores, gains, mask, config.ndcg_k, config.rank_temperature, config.gate_temperature),
            "hinge": hinge_loss(scores, gains, mask, config.hinge_margin, config.hinge_negatives),
            "mean_variance": mean_variance_loss(torch.cat([queries, found])),
        }
        weights = {"ndcg": 1.0, "hinge": config.hinge_weight, "mean_variance": config.mean_variance_weight, "consistency": config.consistency_weight}
        pairs = [(output.embeddings, references, slice(None)), (own, product_references, once)]
        terms = [self._consistency(*pair) for pair in pairs if pair[1] is not None and config.consistency_weight]
        if terms:
            losses["consistency"] = torch.stack(terms).mean()
        output.loss = sum(weights[name] * loss for name, loss in losses.items())
        output.losses = {name: loss.detach() for name, loss in losses.items()}
        negatives = mask & (gains <= 0)
        self.measure(
            **{f"loss_{name}": value for name, value in output.losses.items()},
            dropped_negatives=unsafe.sum() / (allowed & (gains < 0)).sum().clamp_min(1), negatives=negatives.sum(-1).float().mean(),
            effective_negatives=effective_negatives(scores, gains, negatives, config.rank_temperature),
        )  # fmt: skip
        if self.training and self.queue is not None:
            self._enqueue(found, features, ids, once)
        return output

    def _gains(self, relevances, judged_relevances, judged, product_ids, queries: Tensor, products: Tensor) -> Tensor:
        """Grades [Q, C] of all processes' products for all their queries, -1 where unjudged or unknown."""
        if relevances is None and (judged_relevances is None or judged is None or product_ids is None):
            raise ValueError("relevances: None; give them, or judged_relevances with judged_product_ids and product_ids")
        if relevances is not None and relevances.shape != (len(queries), len(products)):
            raise ValueError(f"relevances: {tuple(relevances.shape)} must be [queries, products], {(len(queries), len(products))}")
        gains = None
        if relevances is not None:
            rank = torch.distributed.get_rank() if processes() > 1 else 0
            owner = self.across(torch.full((len(products),), rank, device=products.device))  # [C]
            gains = relevances.new_full((len(queries), len(owner)), -1)
            gains[:, owner == rank] = relevances
            gains = self.across(gains, -1)
        if judged_relevances is not None and judged is not None and product_ids is not None:
            known = grades_of(judged, self.across(judged_relevances, -1), product_ids)
            gains = known if gains is None else torch.where(gains < 0, known.to(gains), gains)
        return gains

    def _same_judged(self, judged: dict[str, Tensor], ids: dict[str, Tensor], like: Tensor) -> Tensor:
        """Which candidates [Q, C] share a product or family id with one of the query's judged products."""
        same = torch.zeros(len(like), len(ids["language"]), dtype=torch.bool, device=like.device)
        for name, values in judged.items():
            if name in ids:
                same |= judged_among(values, ids[name])
        return same

    def _consistency(self, embeddings: Tensor, references: dict[str, Tensor], once) -> Tensor:
        """METHOD 2.5: embeddings [B, D] against those of their perfect translations, read without gradient, noise or dropout; of the
        rows of all processes those that `once` picks."""
        self.lira.eval()
        with torch.no_grad():
            features = self.lira.encode_features(references)
            target = self.lira.fuse(features).embeddings
        self.lira.train(self.training)
        given = self.across(features["text_mask"] & features["candidate_mask"].any(-1))[once]
        if not given.any():
            return embeddings.sum() * 0
        return consistency_loss(self.across(embeddings)[once][given], self.across(target)[once][given])

    # -- the queue of past products ------------------------------------------------------------------------------------

    def _hardest(self, queries: Tensor, found: Tensor, gains: Tensor, judged, languages: Tensor | None) -> tuple[Tensor, ...]:
        """Of the queue's n products the M = queue_hardest with the best scores for each query (ours: the others would add next to nothing
        to a rank, at the price of Q n D operations with gradient): scores, closeness to a positive, which are allowed and which share
        a judged id, each [Q, M]."""
        config, ids = self.config, self.queue.contents()
        past = self.queue.embeddings(lambda features: self.lira.fuse(features).embeddings, config.queue_chunk).to(queries.dtype)  # [n, D]
        with torch.no_grad():
            ranking = cosines(queries.detach(), past.detach())  # [Q, n]
            if languages is not None:
                ranking.masked_fill_(languages[:, None] != ids["language"], -torch.inf)
            best, top = ranking.topk(min(config.queue_hardest, len(past)), sorted=False)  # [Q, M]
            same = self._same_judged(judged, ids, gains).gather(1, top)
        near = past[top]  # [Q, M, D]
        scores = cosines(queries[:, None], near)[:, 0]
        closest = closest_positives(found.detach(), gains, near.detach())
        ages = self.queue.ages().float()
        self.measure(queue_filled=len(past), queue_age=ages.mean(), queue_age_max=ages.max())
        return scores, closest, best > -torch.inf, same

    @torch.no_grad()
    def _enqueue(self, found: Tensor, features: dict[str, Tensor], ids: dict[str, Tensor], once) -> None:
        """Appends the step's products of all processes; found and ids are theirs already, features this process's own."""
        if "product" in ids and (drift := self.queue.drift(ids["product"], found)) is not None:
            self.measure(queue_drift=drift)
        if self.config.queue == "embeddings":
            rows = {"embedding": found}
        elif self.config.queue == "ema":
            slow = self.slow.follow(self.lira.arca, self.lira.lasr)
            rows = {"embedding": self.across(self.lira.fuse(features, slow).embeddings)[once]}
        else:
            choice = self.lira.anchor(features)[2].choice  # only the chosen candidate is kept, as the only one
            place = torch.arange(len(choice), device=choice.device), choice
            single = ("english_features", "english_pooled", "candidate_mask", "translation_scores")
            rows = {name: tensor[place][:, None] if name in single else tensor for name, tensor in features.items() if name != "language_ids"}
            rows = {name: self.across(tensor)[once] for name, tensor in rows.items()}
        self.queue.push(rows | ids)

    def queue_state(self) -> dict[str, Tensor]:
        parts = {"queue": self.queue, "slow": self.slow}
        return {f"{part}.{name}": tensor for part, each in parts.items() if each is not None for name, tensor in each.state_dict().items()}

    def load_queue_state(self, state: dict[str, Tensor]) -> None:
        device = self.lira.lasr.path_weight.device
        parts = {
            part: {name[len(part) + 1 :]: t.to(device) for name, t in state.items() if name.startswith(f"{part}.")} for part in ("queue", "slow")
        }
        if self.queue is not None and parts["queue"]:
            self.queue.load_state_dict(parts["queue"])
        if self.slow is not None:
            self.slow.load_state_dict(parts["slow"])

    # -- inference -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self, texts, *, processor, translations=None, scores=None, language=None, prompt_name=None, batch_size=64, show_progress_bar=False
    ) -> Tensor:
        """Embeddings of texts, float32 on the CPU, [N, d_out] in input order, L2-normalised.

        Args:
            texts: list of N strings (one string counts as a list of one); or None, when translations stand alone.
            processor: the LiraProcessor of this model. translations: per text a list of English candidates, or None.
            scores: per text and candidate (semantic, emotional, pragmatic) in 1..10, or None.
            language: one code for all, or one per text; None and unknown codes mean `und`.
            prompt_name: a name of processor.prompts, such as "query" or "document".
            batch_size: rows encoded together; longest rows come first, so that running out of memory shows at once.
        Raises ValueError for bad input, naming the argument."""
        rows = processor.check(texts, translations, scores, language)

        def embed(index: list[int]) -> Tensor:
            batch = processor.batch([rows[i] for i in index], prompt_name=prompt_name).to(self.lira.lasr.path_weight.device)
            return self(**batch).embeddings

        return self.in_batches([row.length for row in rows], embed, batch_size, show_progress_bar, "encode")


class LiraForSequenceClassification(LiraHead):
    """One text or a pair of them: classes, several labels at once, or a score (METHOD 2.4).

    The loss follows config.problem_type, inferred as in transformers where it is None: cross-entropy, binary cross-entropy, or for
    regression config.regression: `correlation` over the batch and the CorrQueue, or `mse`."""

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self.regression = config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1)
        self.correlates = self.regression and config.regression == "correlation"
        if self.correlates and config.num_labels != 1:
            raise ValueError(f"num_labels: {config.num_labels} is not allowed; regression 'correlation' has 1, regression 'mse' any number")
        self.comparison = Comparison(config, self.regression)
        self.queue = CorrQueue(config.corr_queue_size) if self.correlates and config.corr_queue_size else None
        self.post_init()

    def forward(self, labels: Tensor | None = None, return_loss: bool = True, **inputs: Tensor) -> LiraModelOutput:
        """inputs as of LiraModel; those of a pair's second text have the same names after `pair_`. The output's embeddings are the first's.

        Args:
            labels: [B] long classes; [B, num_labels] of 0 and 1; or [B] float scores ([B, num_labels] where there are several).
        Logits of a regression are on the labels' scale, but for a correlating model in training mode: there they are cosines at first."""
        pair = {name.removeprefix("pair_"): tensor for name, tensor in inputs.items() if name.startswith("pair_")}
        output = self.lira.fuse(self.lira.encode_features({name: tensor for name, tensor in inputs.items() if not name.startswith("pair_")}))
        second = self.lira.fuse(self.lira.encode_features(pair)).embeddings if pair else None
        if second is not None and len(second) != len(output.embeddings):
            raise ValueError(f"pair_*: {len(second)} second texts for {len(output.embeddings)} first ones; one each is needed")
        predictions = self.comparison(output.embeddings, second)  # [B, num_labels]
        if labels is not None and return_loss:
            problem = self._problem(labels, predictions)
            found, labels = self.across(predictions), self.across(labels)  # of all processes
            if problem == "regression":
                languages = inputs.get("language_ids")
                languages = torch.zeros_like(found[:, 0], dtype=torch.long) if languages is None else self.across(languages)
                output.loss = self._regression(found, labels.view_as(found).to(found), languages)
            elif problem == "single_label_classification":
                output.loss = F.cross_entropy(found, labels)
            else:
                output.loss = F.binary_cross_entropy_with_logits(found, labels.to(found))
            output.losses = {problem: output.loss.detach()}
        output.logits = self.comparison.scaled(predictions) if self.regression and not (self.correlates and self.training) else predictions
        return output

    def _problem(self, labels: Tensor, predictions: Tensor) -> str:
        """config.problem_type, inferred from the labels and kept where it is None. Raises ValueError for labels that do not fit."""
        config, whole = self.config, not labels.is_floating_point()
        if config.problem_type is None:
            classes = "single_label_classification" if whole and labels.dim() == 1 else "multi_label_classification"
            config.problem_type = "regression" if self.regression else classes
        shapes = [(len(predictions),)] if config.problem_type == "single_label_classification" else [tuple(predictions.shape)]
        if config.problem_type == "regression" and config.num_labels == 1:
            shapes.append((len(predictions),))
        if tuple(labels.shape) not in shapes:
            raise ValueError(f"labels: {tuple(labels.shape)} is not allowed; {config.problem_type} needs {shapes[-1]}")
        if config.problem_type == "single_label_classification":
            bad = labels[(labels >= config.num_labels) | ((labels < 0) & (labels != -100))] if whole else labels  # -100: a row that does not count
            if len(bad):
                raise ValueError(f"labels: {bad[0].item()} is not allowed; whole numbers from 0 to {config.num_labels - 1} are")
        return config.problem_type

    def _regression(self, predictions: Tensor, labels: Tensor, languages: Tensor) -> Tensor:
        """The loss of predictions [B, num_labels] of all processes, languages [B]; in training the line is fitted and the queue goes on."""
        if not self.correlates:
            if self.training:
                self.comparison.fit(predictions, labels)
            return F.mse_loss(self.comparison.scaled(predictions), labels)
        config, step = self.config, {"prediction": predictions[:, 0], "label": labels[:, 0], "language": languages}
        rows = self.queue.joined(step) if self.training and self.queue is not None else step  # [B + n]
        groups = rows["language"] if config.correlate_within == "language" else torch.zeros_like(rows["language"])
        loss = grouped_correlation_loss(
            rows["prediction"], rows["label"], groups, len(predictions), config.pearson_weight, config.spearman_temperature
        )
        self.measure(loss_correlation=loss, pearson=pearson(predictions[:, 0].detach(), labels[:, 0]))
        if self.training:
            self.comparison.fit(rows["prediction"], rows["label"])
            if self.queue is not None:
                self._enqueue(step)
        return loss

    # -- the queue of past predictions ---------------------------------------------------------------------------------

    def _enqueue(self, step: dict[str, Tensor]) -> None:
        if self.queue.filled:
            ages = self.queue.ages().float()
            self.measure(queue_filled=self.queue.filled, queue_age=ages.mean(), queue_age_max=ages.max())
        self.queue.push(step)

    def queue_state(self) -> dict[str, Tensor]:
        return {f"queue.{name}": tensor for name, tensor in (self.queue.state_dict() if self.queue is not None else {}).items()}

    def load_queue_state(self, state: dict[str, Tensor]) -> None:
        own = {name.removeprefix("queue."): tensor.to(self.comparison.line.device) for name, tensor in state.items() if name.startswith("queue.")}
        if self.queue is not None and own:
            self.queue.load_state_dict(own)

    # -- inference -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, texts, pairs=None, *, processor, translations=None, pair_translations=None, scores=None, pair_scores=None, language=None,
        pair_language=None, prompt_name=None, pair_prompt_name=None, batch_size=64, show_progress_bar=False,
    ) -> Tensor:  # fmt: skip
        """Logits of texts, or of pairs of them, float32 on the CPU, [N, num_labels] in input order; of a regression on the labels' scale.

        Args:
            texts: list of N strings (one string counts as a list of one); or None, when translations stand alone.
            pairs: the second text of each, or None for single texts; pair_* are of these what the others are of texts.
            processor, translations, scores, language, prompt_name, batch_size: as of LiraForRetrieval.encode.
            pair_language, pair_prompt_name: None for those of the first text.
        Raises ValueError for bad input, naming the argument."""
        rows = processor.check(texts, translations, scores, language)
        second = processor.check_pair(rows, pairs, pair_translations, pair_scores, pair_language)

        def judge(index: list[int]) -> Tensor:
            first = [rows[i] for i in index]
            if second is None:
                batch = processor.batch(first, prompt_name)
            else:
                batch = processor.pair_batch(first, [second[i] for i in index], prompt_name, pair_prompt_name)
            return self(**batch.to(self.lira.lasr.path_weight.device)).logits

        lengths = [row.length + (second[i].length if second else 0) for i, row in enumerate(rows)]
        return self.in_batches(lengths, judge, batch_size, show_progress_bar, "predict")


class LiraForCausalLM(LiraHead, GenerationMixin):
    """Stage 2 for reasoning (METHOD 2.6): a causal language model reads [soft prompt; boundary; prompt; answer], its weights frozen
    unless `trainable_backbones` names llm or it carries LoRA; the loss is that of the answer's tokens.

    Text is padded on the left, as LiraProcessor does it: what is generated follows the last column."""

    accepts_loss_kwargs = True

    def __init__(self, config: LiraConfig):
        if config.llm_config is None:
            raise ValueError("llm_config: None; a language model is needed: from_backbones(..., llm=...), or from_anchored(folder, llm=...)")
        if config.fusion == "pooled":
            raise ValueError("fusion: 'pooled' is not allowed here, because it has no bins for a soft prompt; 'transformer' is")
        super().__init__(config)
        self.llm = AutoModelForCausalLM.from_config(config.llm_config, trust_remote_code=False)
        self.soft_prompt = SoftPrompt(config, self.get_input_embeddings().weight.shape[1])
        self.loss_type = None  # else the Trainer would count no label in the first column: the boundary predicts it
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SoftPrompt):
            init.orthogonal_(module.projection.weight)
            init.zeros_(module.projection.bias)
            init.normal_(module.boundary, std=module.length() / len(module.boundary) ** 0.5)
            init.copy_(module.scale, embedding_norm(self.get_input_embeddings()) / module.length())

    @classmethod
    def around(cls, config: LiraConfig, **loaded: PreTrainedModel):
        model = super().around(config, **loaded)
        model.generation_config = copy.deepcopy(model.llm.generation_config)
        return model

    @classmethod
    def from_anchored(cls, folder: str, *, llm: str, dtype: torch.dtype = torch.float32, **config_fields):
        """A new model around the backbones, Arca and LaSR of another head's folder, such as one of stage 1, and a causal language model
        (llm: Hub id or folder; dtype is its own). config_fields override the folder's."""
        lira, (model, reference, _) = LiraModel.from_pretrained(folder, **config_fields), loaded_from("llm", llm, dtype)
        known = {path: each for path, each in lira.config.backbone_references.items() if path != "llm"}
        lira.config.llm_config = model.config
        lira.config.backbone_references = known if reference is None else known | {"llm": reference}
        return cls.around(lira.config, lira=lira, llm=model)

    def train(self, mode: bool = True):
        super().train(mode)
        freeze(self.llm, mode, "llm" in self.config.trainable_backbones)
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.llm.set_output_embeddings(value)

    def read(
        self, inputs: dict[str, Tensor], input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, LiraModelOutput]:
        """What the language model reads: inputs as of LiraModel, and token ids and mask [B, T] of its own text -> soft prompt, boundary
        and text as embeddings [B, 2S + 1 + T, w], their mask [B, 2S + 1 + T], and LiraModel's output without embeddings."""
        states, there, output = self.lira.bin_states(self.lira.encode_features(inputs))  # [B, 2S, d], [B, 2S]
        embeds = self.soft_prompt(states)  # [B, 2S + 1, w]
        mask = F.pad(there, (0, 1), value=True)
        if input_ids is not None:
            if len(input_ids) != len(embeds):
                raise ValueError(f"input_ids: {len(input_ids)} rows, but the other inputs have {len(embeds)}")
            text = self.get_input_embeddings()(input_ids)  # [B, T, w]
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            embeds, mask = torch.cat([embeds.to(text.dtype), text], 1), torch.cat([mask, attention_mask.bool()], 1)
        return embeds.to(self.get_input_embeddings().weight.dtype), mask.long(), output

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_loss: bool = True,
        **inputs,
    ) -> LiraCausalLMOutput:
        """Reads the rows of `inputs` (as of LiraModel) and the language model's text; with labels, there is a loss.

        Args:
            input_ids, attention_mask: [B, T], the text: a prompt, followed by its answer in training. Without them, it reads the soft
                prompt alone.
            labels: [B, T], the answer's tokens, -100 elsewhere; not shifted.
            num_items_in_batch: by how many labels the sum of the losses is divided; None for those of this batch. The Trainer gives
                those of all accumulated steps and of all processes.
            inputs_embeds, position_ids, past_key_values, logits_to_keep: of generation, when soft prompt and text were read already; the output is
                the language model's own then."""
        if inputs_embeds is not None or past_key_values is not None:
            return self.llm(
                input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=past_key_values, use_cache=use_cache, logits_to_keep=logits_to_keep, **inputs,
            )  # fmt: skip
        embeds, mask, read = self.read(inputs, input_ids, attention_mask)
        count = 0 if input_ids is None else input_ids.shape[1]
        if labels is not None:
            count -= int((labels != -100).any(0).int().argmax())  # logits of a long prompt would take more memory than all the rest
        found = self.llm(inputs_embeds=embeds, attention_mask=mask, position_ids=positions(mask), use_cache=bool(use_cache), logits_to_keep=count + 1)
        output = LiraCausalLMOutput(**read, logits=found.logits, past_key_values=found.past_key_values)
        if labels is not None and return_loss:
            output.loss = answer_loss(found.logits[:, :-1], labels[:, -count:], num_items_in_batch)
        return output

    # -- inference -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs):
        """transformers' generate() for a batch of LiraProcessor with prompts and without answers: greedy, sampling, beams, several
        returns, streaming. Returns new tokens only, [B, n]. All of its options are allowed; use_cache is always on, because the soft
        prompt is read once."""
        inputs = {name: kwargs.pop(name) for name in INPUTS if name in kwargs}
        if kwargs.get("labels") is not None:
            raise ValueError("labels: not allowed in generate(); make the batch without answers")
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError("attention_mask: 0 in the last column is not allowed; text is padded on the left, as LiraProcessor does it")
        embeds, mask, _ = self.read(inputs, input_ids, attention_mask)
        return super().generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)

    def respond(
        self, texts, *, processor, translations=None, scores=None, language=None, prompt_name=None, prompt=None, batch_size=16,
        show_progress_bar=False, **options,
    ) -> list[str]:  # fmt: skip
        """What the model writes for each text, in input order, without special tokens.

        Args:
            texts, translations, scores, language, prompt_name, prompt: as of LiraProcessor. processor: the LiraProcessor of this model.
            batch_size: texts read together, longest first.
            options: of generate(), such as max_new_tokens, do_sample, num_beams.
        Raises ValueError for bad input, naming the argument."""
        if options.get("num_return_sequences", 1) != 1:
            raise ValueError(f"num_return_sequences: {options['num_return_sequences']!r} is not allowed in respond(); generate() takes it")
        options.setdefault("pad_token_id", processor.llm_tokenizer.pad_token_id)
        if self.generation_config.eos_token_id is None:
            options.setdefault("eos_token_id", processor.llm_tokenizer.eos_token_id)
        result = {}
        with self.evaluating():
            for index, batch in self._batches(processor, (texts, translations, scores, language), prompt_name, prompt, batch_size, show_progress_bar):
                result |= zip(index, processor.batch_decode(self.generate(**batch, **options), skip_special_tokens=True), strict=True)
        return [result[i] for i in range(len(result))]

    @torch.no_grad()
    def choice_log_likelihoods(
        self, texts, choices, *, processor, translations=None, scores=None, language=None, prompt_name=None, prompt=None, batch_size=16,
        show_progress_bar=False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """log p(choice | soft prompt, prompt) of each text's choices: sums over a choice's tokens, and means over them, both float32 on
        the CPU, [N, n] in input order; -inf where a text has fewer than n choices.

        A choice ends as an answer does, with the end-of-text token, which counts: else "1" would always be as likely as "12". Soft prompt
        and prompt are read once for all choices of a text.

        Args:
            choices: per text a list of strings; the rest as of respond()."""
        if not isinstance(choices, (list, tuple)) or not choices or not all(isinstance(each, (list, tuple)) and each for each in choices):
            raise ValueError(f"choices: {choices!r} is not allowed; a list with a list of strings for each text is")
        given = 1 if isinstance(texts, str) else len(translations if texts is None else texts)
        if len(choices) != given:
            raise ValueError(f"choices: {len(choices)} entries for {given} texts; one per text is needed")
        sums, means = torch.full((2, given, max(map(len, choices))), -torch.inf)
        with self.evaluating():
            for index, batch in self._batches(processor, (texts, translations, scores, language), prompt_name, prompt, batch_size, show_progress_bar):
                embeds, mask, _ = self.read({name: batch[name] for name in INPUTS if name in batch}, batch["input_ids"], batch["attention_mask"])
                found = self.llm(inputs_embeds=embeds, attention_mask=mask, position_ids=positions(mask), use_cache=True, logits_to_keep=1)
                ids, there = processor.answers([choice for i in index for choice in choices[i]])  # [C, A], padded on the right
                ids, there = ids.to(mask.device), there.to(mask.device)
                owner = torch.tensor([row for row, i in enumerate(index) for _ in choices[i]], device=mask.device)  # [C]
                found.past_key_values.batch_select_indices(owner)
                whole = torch.cat([mask[owner], there], 1)
                logits = self.llm(
                    input_ids=ids, attention_mask=whole, position_ids=positions(whole)[:, -ids.shape[1] :], past_key_values=found.past_key_values
                ).logits
                logits = torch.cat([found.logits[owner], logits[:, :-1]], 1).float()  # [C, A, V]
                log_p = -F.cross_entropy(logits.transpose(1, 2), ids, reduction="none").masked_fill(there == 0, 0)  # [C, A]
                places = torch.tensor([(i, k) for i in index for k in range(len(choices[i]))]).T
                sums[*places], means[*places] = log_p.sum(1).cpu(), (log_p.sum(1) / there.sum(1)).cpu()
        return sums, means

    def _batches(self, processor, given: tuple, prompt_name: str | None, prompt, batch_size: int, show_progress_bar: bool):
        """Places in the input and the batch for them, longest rows first, so that running out of memory shows at once."""
        rows = processor.check(*given)
        prompts = processor.prompt_ids(rows, prompt)
        lengths = [row.length + len(ids) for row, ids in zip(rows, prompts, strict=True)]
        for index in logging.tqdm(self.longest_first(lengths, batch_size), disable=not show_progress_bar, desc="read"):
            batch = processor.batch([rows[i] for i in index], prompt_name) | processor.dialogue([prompts[i] for i in index])
            yield index, {name: tensor.to(self.device) for name, tensor in batch.items()}
