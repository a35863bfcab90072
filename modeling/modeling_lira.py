"""LiRA's models: two frozen backbones, Arca (pooling into bins, adaptor, actor), LaSR (fusion), and a head per stage.

Letters in shape comments: B rows, K candidate translations, L tokens, S bins, d shared width, d_g and d_h widths of the
multilingual and the English backbone, D = d_g + d_h, N rows really encoded, C candidate products, Q queries.

Beware: backbones are frozen in `LiraModel.train`, because `from_pretrained` gives every loaded parameter a gradient again and then
calls `eval()`.
"""

import copy
import difflib
import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING
from transformers.utils import ModelOutput, cached_file, logging

from .configuration_lira import LiraConfig
from .objectives_lira import (
    DocQueue,
    anchor_loss,
    collapse_figures,
    consistency_loss,
    contrastive_loss,
    hinge_loss,
    mean_variance_loss,
    policy_loss,
    soft_ndcg_loss,
    unsafe_negatives,
)

logger = logging.get_logger(__name__)

MIDDLE_SCORE = 5.5  # an unscored candidate counts as the middle of the critic's scale 1..10


class CollapseError(RuntimeError):
    """Stage 1 maps everything to one point; the message names the cure."""


# ---- from token states to bins -------------------------------------------------------------------------------------


def temporal_pooling(states: Tensor, mask: Tensor, num_bins: int) -> Tensor:
    """Averages the valid token states [N, L, h] (mask [N, L]) of each row into [N, S, h] (METHOD 1.1).

    Bin s covers the valid tokens floor(s n / S) .. ceil((s + 1) n / S) - 1: bins overlap when n < S, none is empty, padding on
    either side never enters. One prefix sum serves all bins. A row without a token gives zeros."""
    mask = mask.bool()
    order = mask.long().argsort(dim=-1, descending=True, stable=True)  # valid tokens first, in their order
    states = states.float().masked_fill(~mask[..., None], 0).gather(1, order[..., None].expand_as(states))
    prefix = F.pad(states.double().cumsum(1), (0, 0, 1, 0))  # [N, L + 1, h]; double: differences of long sums stay exact
    count = mask.sum(-1, keepdim=True)  # [N, 1]
    bins = torch.arange(num_bins, device=states.device)
    start = bins * count // num_bins  # [N, S]
    end = -((bins + 1) * count // -num_bins)  # ceiling division
    pick = lambda place: prefix.gather(1, place[..., None].expand(-1, -1, states.shape[-1]))  # noqa: E731
    return ((pick(end) - pick(start)) / (end - start).clamp_min(1)[..., None]).to(states.dtype)  # [N, S, h]


def sentence_pooling(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """A backbone's own sentence vector [N, h], normalised, from token states [N, L, h]: mean, cls (first valid), last (last valid)."""
    mask = mask.bool()
    if pooling == "mean":
        pooled = states.float().masked_fill(~mask[..., None], 0).sum(1) / mask.sum(-1, keepdim=True).clamp_min(1)
    else:
        place = mask.long().argmax(-1) if pooling == "cls" else mask.shape[1] - 1 - mask.long().flip(-1).argmax(-1)
        pooled = states[torch.arange(len(states), device=states.device), place].float()
    return F.normalize(pooled, dim=-1)


# ---- Arca: one English-anchored space, and a choice among candidates --------------------------------------------------


class Adaptor(nn.Module):
    """One linear map per path, then one shared residual MLP (METHOD 1.2). States are layer-normalised first (ours): backbones
    differ in scale by orders of magnitude."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.multilingual_norm = nn.LayerNorm(config.multilingual_config.hidden_size)
        self.english_norm = nn.LayerNorm(config.english_config.hidden_size)
        self.multilingual_projection = nn.Linear(config.multilingual_config.hidden_size, config.width)
        self.english_projection = nn.Linear(config.english_config.hidden_size, config.width)
        self.shared = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.width), nn.GELU(), nn.Linear(2 * config.width, config.width)
        )

    def forward(self, multilingual: Tensor, english: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, d_g] and [B, K, S, d_h] -> [B, S, d] and [B, K, S, d]."""
        source = self.multilingual_projection(self.multilingual_norm(multilingual))
        target = self.english_projection(self.english_norm(english))
        return source + self.shared(source), target + self.shared(target)


class Actor(nn.Module):
    """One logit per candidate from its three scores and its similarity (METHOD 1.5), weights shared over candidates.

    The logit is the critic's weighted mean plus a correction that starts at zero (ours): an untrained actor is the critic."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.weights = (config.reward_semantic, config.reward_emotional, config.reward_pragmatic)
        self.unscored = nn.Parameter(torch.zeros(3))
        self.correction = nn.Sequential(nn.Linear(4, config.actor_width), nn.GELU(), nn.Linear(config.actor_width, 1))

    def critic(self, scores: Tensor) -> Tensor:
        """0.1 (alpha s + beta e + gamma p) per candidate [B, K]; NaN scores count as the middle of the scale."""
        weights = torch.tensor(self.weights, device=scores.device)
        return 0.1 * (torch.nan_to_num(scores, nan=MIDDLE_SCORE) * weights).sum(-1)

    def prior(self, scores: Tensor, english_pooled: Tensor, mask: Tensor) -> Tensor:
        """The critic's logits [B, K]; ties go to the candidate nearest to the others in the frozen English space (ours), which no
        order of candidates can change. Two candidates are equally near to one another: a fixed direction then decides, else rounding
        would, and with it the order and the rest of the batch."""
        unit = english_pooled * mask[..., None]  # [B, K, d_h]
        agreement = (unit * unit.sum(1, keepdim=True)).sum(-1) / mask.sum(-1, keepdim=True).clamp_min(1)
        direction = F.normalize(torch.arange(unit.shape[-1], device=unit.device).cos(), dim=0)
        return self.critic(scores) + 1e-3 * (agreement + 0.1 * (unit * direction).sum(-1))

    def forward(self, scores: Tensor, similarity: Tensor, prior: Tensor) -> Tensor:
        """scores [B, K, 3] in 1..10, NaN where unscored; similarity [B, K] in [-1, 1]; prior [B, K] -> logits [B, K]."""
        features = torch.where(scores.isnan(), self.unscored.expand_as(scores), 0.1 * torch.nan_to_num(scores))
        return prior + self.correction(torch.cat([features, similarity[..., None]], -1).to(similarity.dtype))[..., 0]


class Arca(nn.Module):
    def __init__(self, config: LiraConfig):
        super().__init__()
        self.adaptor = Adaptor(config)
        self.actor = Actor(config)


# ---- LaSR: fusion into one embedding ---------------------------------------------------------------------------------


class Lasr(nn.Module):
    """normalise([w_g g; w_h h_a] + correction), the correction's last layer starting at zero (METHOD 2.1): at step 0 the embedding
    is the frozen concatenation. Beside the read-out and z, the correction reads the concatenation itself (ours). `fusion="pooled"`
    replaces the fused sequence by a residual MLP on the two sentence vectors."""

    def __init__(self, config: LiraConfig):
        super().__init__()
        self.config = config
        d, total = config.width, config.concat_dim
        self.path_weight = nn.Parameter(torch.ones(2))
        self.absent_multilingual = nn.Parameter(torch.zeros(config.multilingual_config.hidden_size))
        self.absent_english = nn.Parameter(torch.zeros(config.english_config.hidden_size))
        if config.fusion == "pooled":
            self.correction = nn.Sequential(nn.LayerNorm(total), nn.Linear(total, 4 * d), nn.GELU(), nn.Linear(4 * d, total))
        else:
            self.language = nn.Embedding(len(config.languages) + 1, d)  # row 0 is `und`
            self.position = nn.Embedding(2 * config.num_bins, d)  # a path embedding for each of its bins
            self.absent = nn.Embedding(2, d)  # stands in for E of an absent path
            layer = nn.TransformerEncoderLayer(d, config.fusion_heads, 4 * d, config.dropout, activation="gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, config.fusion_layers, nn.LayerNorm(d), enable_nested_tensor=False)
            self.base_norm, self.fused_norm = nn.LayerNorm(total), nn.LayerNorm(3 * d)
            self.correction = nn.Sequential(nn.Linear(total + 3 * d, 4 * d), nn.GELU(), nn.Linear(4 * d, total))
        self.projection = nn.Linear(total, config.embedding_dim, bias=False) if config.embedding_dim else None

    def forward(self, source: Tensor, target: Tensor, source_pooled: Tensor, target_pooled: Tensor, present: Tensor, language_ids: Tensor) -> Tensor:
        """source, target [B, S, d]: bin streams; *_pooled [B, d_g], [B, d_h]: sentence vectors; present [B, 2]: which path is there;
        language_ids [B], 0 for `und` -> embeddings [B, d_out], L2-normalised; zero at step 0 for a row with neither path."""
        base = torch.cat(
            [
                torch.where(present[:, :1], self.path_weight[0] * source_pooled, self.absent_multilingual),
                torch.where(present[:, 1:], self.path_weight[1] * target_pooled, self.absent_english),
            ],
            -1,
        )  # [B, D]
        if self.config.fusion == "pooled":
            correction = self.correction(base)
        else:
            bins = torch.cat([source, target], 1) + self.position.weight  # [B, 2S, d]
            sequence = torch.cat([self.language(language_ids)[:, None], bins], 1)  # [B, 2S + 1, d]
            masked = F.pad(~present.repeat_interleave(self.config.num_bins, dim=1), (1, 0))  # the language token is always there
            fused = self.encoder(sequence, src_key_padding_mask=masked)[:, 0]  # [B, d]
            means = torch.where(present[..., None], torch.stack([source.mean(1), target.mean(1)], 1), self.absent.weight)  # [B, 2, d]
            read_out = self.fused_norm(torch.cat([fused, means.flatten(1)], -1))  # [B, 3d]
            correction = self.correction(torch.cat([self.base_norm(base), read_out], -1))
        vector = base + self.config.correction_scale * correction
        vector = torch.where(present.any(-1, keepdim=True), vector, vector.detach())  # normalising a zero row: a gradient of 1e12
        embedding = F.normalize(vector, dim=-1)
        return embedding if self.projection is None else F.normalize(self.projection(embedding), dim=-1)


# ---- outputs -----------------------------------------------------------------------------------------------------------


@dataclass
class LiraModelOutput(ModelOutput):
    """Output of every head.

    Args:
        loss: scalar, when what it needs was given.
        embeddings: [B, d_out] float, L2-normalised; None in stage 1.
        multilingual_embeds: E_lr [B, d]. english_embeds: E_en [B, K, d]; neither is normalised.
        similarity: cos(E_lr, E_en) [B, K] in [-1, 1]. actor_logits: [B, K], -inf where there is no candidate.
        choice: [B] long, index of the candidate that was read (0 where there is none).
        losses: the parts of the loss, by name, detached.
    """

    loss: Tensor | None = None
    embeddings: Tensor | None = None
    multilingual_embeds: Tensor | None = None
    english_embeds: Tensor | None = None
    similarity: Tensor | None = None
    actor_logits: Tensor | None = None
    choice: Tensor | None = None
    losses: dict[str, Tensor] | None = None


# ---- the base: building, freezing, initialising --------------------------------------------------------------------------


class LiraPreTrainedModel(PreTrainedModel):
    config_class = LiraConfig
    base_model_prefix = "lira"
    _supports_sdpa = True
    _supports_flash_attn = True
    _keep_in_fp32_modules_strict = ["arca", "lasr"]  # else a folder with half-precision backbones opens with half-precision weights here

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

    @classmethod
    def from_backbones(cls, multilingual: str, english: str, *, dtype: torch.dtype = torch.float32, **config_fields):
        """A new model around two pretrained backbones.

        Args:
            multilingual, english: Hub ids or folders of any AutoModel encoder, decoder or encoder–decoder (its encoder is used).
            dtype: of the backbones; LiRA's own part is float32.
            config_fields: fields of LiraConfig. Poolings default to what a backbone's sentence-transformers files say, else to the
                last token for decoders and the mean for encoders.
        Raises ValueError for an unknown field or a backbone that cannot be loaded."""
        known = {f.name for f in fields(LiraConfig) if f.name in LiraConfig.__annotations__}
        for name in config_fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ValueError(f"{name}: no field of LiraConfig" + (f"; did you mean {near[0]}?" if near else f"; fields: {sorted(known)}"))
        backbones = {}
        for path, name in (("multilingual", multilingual), ("english", english)):
            try:
                loader = auto_class(AutoConfig.from_pretrained(name))
                backbones[path] = encoder_of(loader.from_pretrained(name, dtype=dtype))
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"{path}: {str(name)!r} is neither a model folder nor a Hub id that can be loaded ({reason})") from error
            config_fields.setdefault(f"{path}_pooling", pooling_of(str(name), backbones[path].config))
        config = LiraConfig(multilingual_config=backbones["multilingual"].config, english_config=backbones["english"].config, **config_fields)
        with torch.device("meta"):  # the backbones' random weights would be thrown away, and may be large
            model = cls(config)
        lira = model if isinstance(model, LiraModel) else model.lira
        lira.multilingual, lira.english = backbones["multilingual"], backbones["english"]
        for part in (lira.arca, lira.lasr):
            part.to_empty(device="cpu")
            part.apply(model._init_weights)
        return model.eval()


def pooling_of(name: str, config) -> str:
    """mean, cls or last: what the backbone's sentence-transformers files say, else last for decoders and mean for encoders."""
    path = cached_file(name, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    declared = json.loads(Path(path).read_text()) if path else {}
    for pooling, keys in (("cls", ("pooling_mode_cls_token",)), ("last", ("pooling_mode_lasttoken",)), ("mean", ("pooling_mode_mean_tokens",))):
        if any(declared.get(key) for key in keys) or declared.get("pooling_mode") in (pooling, pooling + "token"):
            return pooling
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if decoder and not config.is_encoder_decoder else "mean"


class LiraModel(LiraPreTrainedModel):
    """Both backbones, Arca and LaSR. Heads add a loss; all weights live here, so a stage-1 folder opens in every head."""

    def __init__(self, config: LiraConfig):
        config.check_values()
        super().__init__(config)
        self.multilingual = encoder_of(auto_class(config.multilingual_config).from_config(config.multilingual_config))
        self.english = encoder_of(auto_class(config.english_config).from_config(config.english_config))
        self.arca = Arca(config)
        self.lasr = Lasr(config)
        self.post_init()

    def train(self, mode: bool = True):
        super().train(mode)
        for backbone in (self.multilingual, self.english):
            backbone.eval().requires_grad_(False)
        return self

    @torch.no_grad()
    def encode_path(self, path: str, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [N, L] of one path, "multilingual" or "english" -> bins [N, S, h] and sentence vectors [N, h], both float32.
        Rows without a token are not encoded and come back as zeros."""
        backbone, rows = getattr(self, path), attention_mask.bool().any(-1)
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
        known = {"multilingual_features", "multilingual_pooled", "text_mask", "english_features", "english_pooled", "candidate_mask",
                 "translation_scores", "language_ids", "multilingual_input_ids", "multilingual_attention_mask", "english_input_ids",
                 "english_attention_mask"}  # fmt: skip
        for name in batch:
            if name not in known:
                raise ValueError(f"{name}: no input of LiRA; allowed: {', '.join(sorted(known))}")
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
            raise ValueError("multilingual_input_ids: missing, and so are english_input_ids and cached features; give at least one path")
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
        if features.get("translation_scores") is None:
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
        multilingual, english = source.mean(1), target.mean(2)  # [B, d], [B, K, d]
        similarity = F.cosine_similarity(multilingual[:, None], english, dim=-1)  # [B, K]
        similarity = torch.where(features["text_mask"][:, None], similarity, 0.0)  # without a text there is nothing to be like
        prior = arca.actor.prior(scores, features["english_pooled"], mask)
        logits = arca.actor(scores, similarity, prior).masked_fill(~mask, -torch.inf)
        ranking = {"actor": logits, "critic": prior.masked_fill(~mask, -torch.inf), "first": mask.float()}[self.config.selection]
        choice = ranking.argmax(-1)  # the first of equals
        return (
            source,
            target,
            LiraModelOutput(multilingual_embeds=multilingual, english_embeds=english, similarity=similarity, actor_logits=logits, choice=choice),
        )

    def fuse(self, features: dict[str, Tensor], parts: tuple[Arca, Lasr] | None = None) -> LiraModelOutput:
        """Features -> output with embeddings [B, d_out]; parts replaces Arca and LaSR by a copy of them (the slow one of `ema`)."""
        arca, lasr = parts or (self.arca, self.lasr)
        source, target, output = self.anchor(features, arca)
        rows = torch.arange(len(source), device=source.device)
        present = torch.stack([features["text_mask"], features["candidate_mask"].any(-1)], -1)  # [B, 2]
        if self.config.paths != "both":
            present = present & torch.tensor([self.config.paths == "multilingual", self.config.paths == "english"], device=present.device)
        if lasr.training and self.config.paths == "both" and self.config.path_dropout:
            dropped = torch.rand(len(present), device=present.device)[:, None]
            dropped = torch.cat([dropped < self.config.path_dropout, dropped > 1 - self.config.path_dropout], -1)  # one path at most
            present = present & ~(dropped & present.all(-1, keepdim=True))
        output.embeddings = lasr(
            source,
            target[rows, output.choice],
            features["multilingual_pooled"],
            features["english_pooled"][rows, output.choice],
            present,
            features["language_ids"],
        )
        return output

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


def auto_class(config):
    """The Auto class that opens a backbone: where a text-encoder class exists (T5, mT5, BERT ...) that one, else AutoModel."""
    return AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


def encoder_of(backbone: PreTrainedModel) -> PreTrainedModel:
    """The backbone itself, or its encoder where it came with a decoder that LiRA never runs (M2M100, BART ...)."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


# ---- heads ---------------------------------------------------------------------------------------------------------------


class LiraHead(LiraPreTrainedModel):
    """What the heads share: LiraModel as `lira`, and running means of what a step measured, for whoever logs."""

    accepts_loss_kwargs = False  # **inputs is no invitation to the Trainer to pass num_items_in_batch

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self.lira = LiraModel(config)
        self._measured: dict[str, list] = {}
        self.post_init()

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


class LiraForPreTraining(LiraHead):
    """Stage 1 (Arca): policy loss + eta * anchor loss + kappa * contrastive loss (METHOD 1.8)."""

    def __init__(self, config: LiraConfig):
        super().__init__(config)
        self._collapsed_steps = 0

    def forward(self, return_loss: bool = True, **inputs: Tensor) -> LiraModelOutput:
        """inputs as of LiraModel. The loss counts rows that have a text and a candidate; there must be at least one."""
        features = self.lira.encode_features(inputs)
        _, _, output = self.lira.anchor(features)
        mask = features["candidate_mask"] & features["text_mask"][:, None]  # [B, K]
        rows = mask.any(-1)
        if not return_loss:
            return output
        if not rows.any():
            raise ValueError("translations: no row of the batch has both a text and a candidate; stage 1 anchors one to the other")
        config = self.config
        rewards = self.lira.arca.actor.critic(features["translation_scores"].float()) + config.reward_similarity * output.similarity.detach()
        policy = policy_loss(output.actor_logits, rewards, mask, config.policy, config.baseline)
        chosen = output.english_embeds[torch.arange(len(rows), device=rows.device), output.choice][rows]  # [n, d]
        source = output.multilingual_embeds[rows]
        anchor = anchor_loss(source, chosen)
        contrast = contrastive_loss(source, chosen, config.contrast_temperature)
        output.loss = policy + config.anchor_weight * anchor + config.contrast_weight * contrast
        output.losses = {"policy": policy.detach(), "anchor": anchor.detach(), "contrast": contrast.detach()}
        if self.training:
            self._watch(output, rewards, mask, source.detach(), chosen.detach())
        return output

    @torch.no_grad()
    def _watch(self, output: LiraModelOutput, rewards: Tensor, mask: Tensor, source: Tensor, chosen: Tensor) -> None:
        rows = mask.any(-1)
        log_policy = output.actor_logits[rows].log_softmax(-1)
        entropy = -(log_policy.exp() * log_policy.masked_fill(~mask[rows], 0)).sum(-1).mean()
        reward = rewards[rows].gather(-1, output.choice[rows][:, None]).mean()
        distance = (F.normalize(source, dim=-1) - F.normalize(chosen, dim=-1)).norm(dim=-1)
        p50, p95 = torch.quantile(distance, torch.tensor([0.5, 0.95], device=distance.device))
        self.measure(
            **{f"loss_{name}": value for name, value in output.losses.items()},
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
        self._slow: tuple[Arca, Lasr] | None = None  # a tuple, so that it is no submodule and never published

    def forward(
        self,
        products: dict[str, Tensor] | None = None,
        relevances: Tensor | None = None,
        product_ids: Tensor | None = None,
        family_ids: Tensor | None = None,
        judged_product_ids: Tensor | None = None,
        judged_family_ids: Tensor | None = None,
        references: dict[str, Tensor] | None = None,
        product_references: dict[str, Tensor] | None = None,
        return_loss: bool = True,
        **inputs: Tensor,
    ) -> LiraModelOutput:
        """Embeds the rows of `inputs` (as of LiraModel); with products, they are the queries and there is a loss.

        Args:
            products: inputs of the step's C products. relevances: [Q, C] grades, -1 where unjudged.
            product_ids, family_ids: [C] long. judged_product_ids, judged_family_ids: [Q, J] long, padded with -1: all that the
                query's judgements name, in the step or not; their copies in the queue are no negatives.
            references, product_references: inputs of the perfect translations as both text and candidate, [Q] and [C] rows, for the
                consistency term; rows without one have neither path."""
        queries = self.lira.fuse(self.lira.encode_features(inputs))
        if products is None or not return_loss:
            return queries
        if relevances is None or relevances.shape[0] != len(queries.embeddings):
            raise ValueError(f"relevances: {None if relevances is None else tuple(relevances.shape)} must be [queries, products]")
        features = self.lira.encode_features(products)
        found = self.lira.fuse(features).embeddings  # [C, D]
        candidates, ids = self._with_queue(found, features, product_ids, family_ids, training=self.training)
        language, query_language = ids.pop("language"), inputs.get("language_ids")
        gains = F.pad(relevances, (0, len(candidates) - len(found)), value=-1)  # [Q, C + queued]

        scores = queries.embeddings @ candidates.T  # [Q, C]
        same_judged = torch.zeros_like(gains, dtype=torch.bool)
        for name, judged in (("product", judged_product_ids), ("family", judged_family_ids)):
            if judged is not None and ids.get(name) is not None:
                same_judged |= torch.stack([torch.isin(ids[name], row[row >= 0]) for row in judged])
        unsafe = unsafe_negatives(scores, gains, candidates, same_judged, self.config.false_negative_cosine, self.config.false_negative_margin)
        mask = ~unsafe
        if query_language is not None and not self.config.cross_language_negatives:
            mask = mask & ((gains >= 0) | (query_language[:, None] == language))
        config = self.config
        losses = {
            "ndcg": soft_ndcg_loss(scores, gains, mask, config.ndcg_k, config.rank_temperature, config.gate_temperature),
            "hinge": hinge_loss(scores, gains, mask, config.hinge_margin, config.hinge_negatives),
            "mean_variance": mean_variance_loss(torch.cat([queries.embeddings, found])),
        }
        weights = {"ndcg": 1.0, "hinge": config.hinge_weight, "mean_variance": config.mean_variance_weight, "consistency": config.consistency_weight}
        pairs = [(queries.embeddings, references), (found, product_references)]
        terms = [self._consistency(own, given) for own, given in pairs if given is not None and config.consistency_weight]
        if terms:
            losses["consistency"] = torch.stack(terms).mean()
        queries.loss = sum(weights[name] * loss for name, loss in losses.items())
        queries.losses = {name: loss.detach() for name, loss in losses.items()}
        unjudged = (gains < 0).sum().clamp_min(1)
        self.measure(
            **{f"loss_{name}": value for name, value in queries.losses.items()},
            dropped_negatives=unsafe.sum() / unjudged, negatives=(mask & (gains <= 0)).sum(-1).float().mean(),
        )  # fmt: skip
        if self.training and self.queue is not None:
            self._enqueue(found, features, product_ids, family_ids)
        return queries

    def _consistency(self, embeddings: Tensor, references: dict[str, Tensor]) -> Tensor:
        """METHOD 2.5: embeddings [B, D] against those of their perfect translations, read without gradient, noise or dropout."""
        features = self.lira.encode_features(references)
        given = features["text_mask"] & features["candidate_mask"].any(-1)
        if not given.any():
            return embeddings.sum() * 0
        self.lira.lasr.eval()
        with torch.no_grad():
            target = self.lira.fuse(features).embeddings
        self.lira.lasr.train(self.training)
        return consistency_loss(embeddings[given], target[given])

    # -- the queue of past products ------------------------------------------------------------------------------------

    def _with_queue(self, found, features, product_ids, family_ids, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The step's products [C, D] and, in training, the queued ones behind them, with the ids of all."""
        ids = {"language": features["language_ids"], "product": product_ids, "family": family_ids}
        if not training or self.queue is None or not self.queue.filled:
            return found, ids
        rows = self.queue.contents()
        ids = {name: None if own is None else torch.cat([own, rows[name]]) for name, own in ids.items()}
        # `features` are embedded anew, with gradient: in effect a larger batch; the other kinds are constants
        if self.config.queue == "features":
            past = self.lira.fuse({name: rows[name].clone() for name in features}).embeddings  # the ring is written to before backward
        else:
            past = rows["embedding"]
        return torch.cat([found, past]), ids

    @torch.no_grad()
    def _enqueue(self, found, features, product_ids, family_ids) -> None:
        rows = {"language": features["language_ids"], "product": product_ids, "family": family_ids}
        rows = {name: ids for name, ids in rows.items() if ids is not None}
        if self.config.queue == "embeddings":
            rows["embedding"] = found
        elif self.config.queue == "ema":
            rows["embedding"] = self.lira.fuse(features, self._slow_parts()).embeddings
        else:
            choice = self.lira.anchor(features)[2].choice  # only the chosen candidate is kept, as the only one
            place = torch.arange(len(choice), device=choice.device), choice
            rows |= {
                name: tensor[place][:, None] if name in ("english_features", "english_pooled", "candidate_mask", "translation_scores") else tensor
                for name, tensor in features.items()
            }
        self.queue.push(rows)

    @torch.no_grad()
    def _slow_parts(self) -> tuple[Arca, Lasr]:
        """The slowly moving copy of Arca and LaSR, moved by one step."""
        if self._slow is None:
            self._slow = tuple(copy.deepcopy(part).eval().requires_grad_(False) for part in (self.lira.arca, self.lira.lasr))
        for slow, part in zip(self._slow, (self.lira.arca, self.lira.lasr), strict=True):
            for old, new in zip(slow.parameters(), part.parameters(), strict=True):
                old.lerp_(new, 1 - self.config.ema_decay)
        return self._slow

    def queue_state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the weights: the queue, and the slow copy if there is one. Never part of a published model."""
        state = {f"queue.{name}": tensor for name, tensor in self.queue.state_dict().items()} if self.queue is not None else {}
        for index, part in enumerate(self._slow or ()):
            state |= {f"slow.{index}.{name}": tensor for name, tensor in part.state_dict().items()}
        return state

    def load_queue_state(self, state: dict[str, Tensor]) -> None:
        device = self.lira.lasr.path_weight.device
        state = {name: tensor.to(device) for name, tensor in state.items()}
        if self.queue is not None:
            self.queue.load_state_dict({name[6:]: tensor for name, tensor in state.items() if name.startswith("queue.")})
        if any(name.startswith("slow.") for name in state):
            self._slow_parts()
            for index, part in enumerate(self._slow):
                part.load_state_dict({name[7:]: tensor for name, tensor in state.items() if name.startswith(f"slow.{index}.")})

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
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: {batch_size!r} is not allowed; a whole number of at least 1 is")
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].text or "") - sum(map(len, rows[i].translations)))
        result = torch.empty(len(rows), self.config.hidden_size)
        was_training = self.training
        self.eval()
        try:
            for start in logging.tqdm(range(0, len(rows), batch_size), disable=not show_progress_bar, desc="encode"):
                index = order[start : start + batch_size]
                batch = processor.batch([rows[i] for i in index], prompt_name=prompt_name).to(self.lira.lasr.path_weight.device)
                result[index] = self(**batch).embeddings.float().cpu()
        finally:
            self.train(was_training)
        return result
