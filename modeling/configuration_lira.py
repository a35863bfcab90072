"""LiraConfig: two backbones, the widths of the trained part, and every choice of METHOD as a field.

Fields marked *ours* have no value in the paper's public record; their defaults are this project's.
"""

import re
from dataclasses import field
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, PreTrainedConfig

from .hub_lira import CODE, LOCATION, below, check_code, fetch

AUTO_MAP = {
    "AutoConfig": "configuration_lira.LiraConfig",
    "AutoModel": "modeling_lira.LiraForRetrieval",
    "AutoModelForPreTraining": "modeling_lira.LiraForPreTraining",
    "AutoModelForSequenceClassification": "modeling_lira.LiraForSequenceClassification",
    "AutoModelForCausalLM": "modeling_lira.LiraForCausalLM",
    "AutoProcessor": "processing_lira.LiraProcessor",
}

CHOICES = {
    "multilingual_pooling": ("mean", "cls", "last"),
    "english_pooling": ("mean", "cls", "last"),
    "paths": ("both", "multilingual", "english"),
    "selection": ("actor", "critic", "first"),
    "critics": ("both", "translation", "embedding"),
    "fusion": ("transformer", "pooled"),
    "policy": ("expected", "reinforce"),
    "baseline": ("expected", "none"),
    "queue": ("embeddings", "ema", "features", "none"),
    "regression": ("correlation", "mse"),
    "correlate_within": ("language", "batch"),
    "backbones": ("embedded", "reference"),
}
BACKBONES = ("multilingual", "english", "llm")
COMMIT = re.compile(r"[0-9a-f]{40}")
AT_LEAST_ONE = (
    "num_bins", "width", "actor_width", "fusion_layers", "fusion_heads", "ndcg_k", "hinge_negatives", "collapse_patience", "queue_hardest",
    "queue_chunk",
)  # fmt: skip
WHOLE = (*AT_LEAST_ONE, "queue_size", "corr_queue_size")
POSITIVE = ("contrast_temperature", "rank_temperature", "gate_temperature", "spearman_temperature")
NOT_NEGATIVE = (
    "queue_size", "corr_queue_size", "anchor_weight", "contrast_weight", "hinge_margin", "hinge_weight", "mean_variance_weight",
    "consistency_weight", "false_negative_margin", "reward_semantic", "reward_emotional", "reward_pragmatic", "reward_similarity",
)  # fmt: skip
FRACTIONS = ("dropout", "path_dropout", "correction_scale", "ema_decay", "collapse_cosine", "pearson_weight")


class LiraConfig(PreTrainedConfig):
    """Configuration of every LiRA model.

    Args:
        multilingual_config, english_config: configurations of the two frozen backbones (any AutoModel encoder,
            decoder-embedding, or encoder–decoder, of which the encoder is used).
        llm_config: configuration of the causal language model of LiraForCausalLM; None, the default, for every other head.
        multilingual_pooling, english_pooling: how a backbone's own sentence vector is pooled: mean, cls (first token), last.
        languages: codes with a language token of their own; any other code uses the `und` row.
        num_bins: S, bins per path (METHOD 1.1). width: d, the shared width (1.2).
        actor_width, fusion_layers, fusion_heads, dropout: sizes of actor and fusion (ours).
        embedding_dim: output width; None keeps d_g + d_h, a smaller one adds an orthogonally initialised projection.
        paths: `both`, or one path only (the single-path controls). fusion: `transformer`, or `pooled` (the residual-MLP control).
        selection: which candidate is read: the actor's, the critic's best, or the first.
        critics: what actor and reward go by: `both` critics; `translation`, the language model's scores alone; or `embedding`, the
            similarity of both paths alone, as if no candidate had scores (METHOD 1.3 to 1.6; one without the other is for ablations).
        correction_scale: shrinkage of the correction, 0 (frozen concatenation) to 1; chosen on validation (ours).
        reward_*: alpha, beta, gamma, delta of the reward (ours: 0.25 each). policy, baseline: estimator of the policy loss.
        anchor_weight: eta. contrast_weight: kappa; 0 is the paper's loss, which has a trivial minimum (METHOD 1.8).
        collapse_cosine, collapse_rank, collapse_patience: training stops once the mean pairwise cosine stays above, or the
            effective rank below, for so many steps in a row (ours).
        ndcg_k, rank_temperature, gate_temperature: the soft nDCG; temperatures in units of cosine and of ranks.
        hinge_*: margin in cosine, hardest negatives per positive. mean_variance_weight: weight of L_mv.
        consistency_weight: weight of METHOD 2.5, where a perfect translation is given.
        path_dropout: probability with which training drops each path (ours).
        queue, queue_size, ema_decay: kind of the DocQueue, its entries, and the decay of the slow copy for `ema`.
        queue_hardest: queued products that a query is compared with, its best-scoring ones (ours). queue_chunk: how many queued
            features are embedded at a time; more take more memory, and less time.
        trainable_backbones: backbones that are trained too, of multilingual, english and llm; none by default.
        false_negative_cosine, false_negative_margin: an unjudged product is no negative when its cosine to a positive
            exceeds the first, or it outscores the best positive by more than the second.
        cross_language_negatives: whether products of another language than the query's count as negatives (ours).
        regression: objective of problem_type "regression": `correlation` (METHOD 2.4) or `mse`.
        correlate_within: whether each language is correlated by itself, as it is measured, or the whole batch as one (ours).
        pearson_weight: a of METHOD 2.4, 0 (ranks only) to 1 (ours). spearman_temperature: of its soft ranks, in standard deviations of
            the predictions (ours). corr_queue_size: past predictions that a step's are correlated with, 0 for none (a step
            costs the square of both together).
        backbones: whether a saved model holds its backbones' weights, `embedded`, or names them, `reference`; a model is switched by its
            refer_backbones() and embed_backbones().
        backbone_references: of the backbones that came from the Hub, where they are: {"multilingual": {"repo_id": "org/name",
            "revision": commit}, ...}; filled by from_backbones.
        num_labels, id2label, label2id, problem_type: of LiraForSequenceClassification, as in transformers.
    """

    model_type = "lira"
    # An evaluation by the Trainer gathers every output not named here; only logits are of one shape in all batches, and small.
    keys_to_ignore_at_inference = ["embeddings", "multilingual_embeds", "english_embeds", "similarity", "actor_logits", "choice", "losses"]
    sub_configs = {"multilingual_config": AutoConfig, "english_config": AutoConfig, "llm_config": AutoConfig}

    multilingual_config: dict | PreTrainedConfig | None = None
    english_config: dict | PreTrainedConfig | None = None
    llm_config: dict | PreTrainedConfig | None = None
    multilingual_pooling: str = "mean"
    english_pooling: str = "mean"
    languages: list[str] = field(default_factory=lambda: ["vi", "th", "id", "ms", "ur", "bn", "fil", "en"])

    num_bins: int = 8
    width: int = 256
    actor_width: int = 32
    fusion_layers: int = 2
    fusion_heads: int = 4
    dropout: float = 0.1
    embedding_dim: int | None = None
    paths: str = "both"
    fusion: str = "transformer"
    selection: str = "actor"
    critics: str = "both"
    correction_scale: float = 1.0

    reward_semantic: float = 0.25
    reward_emotional: float = 0.25
    reward_pragmatic: float = 0.25
    reward_similarity: float = 0.25
    policy: str = "expected"
    baseline: str = "expected"
    anchor_weight: float = 1.0
    contrast_weight: float = 1.0
    contrast_temperature: float = 0.05
    collapse_cosine: float = 0.98
    collapse_rank: float = 1.5
    collapse_patience: int = 20

    ndcg_k: int = 10
    rank_temperature: float = 0.03
    gate_temperature: float = 2.0
    hinge_weight: float = 1.0
    hinge_margin: float = 0.2
    hinge_negatives: int = 8
    mean_variance_weight: float = 0.1
    consistency_weight: float = 0.1
    path_dropout: float = 0.1
    queue: str = "features"
    queue_size: int = 2048
    queue_hardest: int = 128
    queue_chunk: int = 256
    ema_decay: float = 0.99
    false_negative_cosine: float = 0.95
    false_negative_margin: float = 0.1
    cross_language_negatives: bool = False
    regression: str = "correlation"
    correlate_within: str = "language"
    pearson_weight: float = 0.5
    spearman_temperature: float = 0.1
    corr_queue_size: int = 1024
    trainable_backbones: list[str] = field(default_factory=list)
    backbones: str = "embedded"
    backbone_references: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self, **kwargs):
        # Every save, a Trainer checkpoint too, must open through each Auto class; save_pretrained alone names only the class saved.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        for name, default in (
            ("multilingual_config", {"model_type": "xlm-roberta"}),
            ("english_config", {"model_type": "bert"}),
            ("llm_config", None),
        ):
            given = getattr(self, name) or default
            # for_model knows transformers' own classes only, so no code that a repository names can come in here.
            setattr(self, name, AutoConfig.for_model(**given) if isinstance(given, dict) else given)
        super().__post_init__(**kwargs)
        self.check_values()

    def check_values(self) -> None:
        """Raises ValueError for the first bad field; models ask again, because `from_pretrained(..., field=value)` sets fields unchecked."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; choose one of {', '.join(allowed)}")
        for names, floor, open_interval in ((AT_LEAST_ONE, 1, False), (POSITIVE, 0, True), (NOT_NEGATIVE, 0, False)):
            for name in names:
                value = getattr(self, name)
                kind = int if name in WHOLE else (int, float)
                if isinstance(value, bool) or not isinstance(value, kind) or not value >= floor or (open_interval and value == floor):
                    raise ValueError(
                        f"{name}: {value!r} is not allowed; a {'whole ' if kind is int else ''}number "
                        f"{'above' if open_interval else 'of at least'} {floor} is"
                    )
        for name in FRACTIONS:
            if not isinstance(getattr(self, name), (int, float)) or not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; a number from 0 to 1 is")
        if not isinstance(self.trainable_backbones, (list, tuple)) or not set(self.trainable_backbones) <= set(BACKBONES):
            raise ValueError(f"trainable_backbones: {self.trainable_backbones!r} is not allowed; a list of some of {', '.join(BACKBONES)} is")
        self.check_references()
        if self.path_dropout > 0.5:
            raise ValueError(f"path_dropout: {self.path_dropout!r} is not allowed; a number from 0 to 0.5 is (each path, and never both)")
        if self.width % self.fusion_heads:
            raise ValueError(f"fusion_heads: {self.fusion_heads} does not divide width {self.width}")
        codes = self.languages if isinstance(self.languages, (list, tuple)) else []
        if not codes or not all(isinstance(code, str) for code in codes) or len(set(codes)) < len(codes):
            raise ValueError(f"languages: {self.languages!r} must be a list of distinct codes")
        if self.embedding_dim is not None and not (isinstance(self.embedding_dim, int) and 1 <= self.embedding_dim <= self.concat_dim):
            raise ValueError(f"embedding_dim: {self.embedding_dim!r} is not allowed; None or 1 to {self.concat_dim} (d_g + d_h) is")

    def check_references(self) -> None:
        references = self.backbone_references
        if not isinstance(references, dict) or not set(references) <= set(BACKBONES):
            raise ValueError(f"backbone_references: {references!r} is not allowed; a dict with some of {', '.join(BACKBONES)} is")
        for path, reference in references.items():
            if (
                not isinstance(reference, dict)
                or set(reference) != {"repo_id", "revision"}
                or not all(isinstance(value, str) for value in reference.values())
                or not COMMIT.fullmatch(reference["revision"])
            ):
                raise ValueError(
                    f"backbone_references: {path!r} has {reference!r}; a repo_id of the Hub and a revision, "
                    "the 40 hexadecimal digits of a commit, are needed"
                )
            try:
                validate_repo_id(reference["repo_id"])
            except HFValidationError as error:
                raise ValueError(f"backbone_references: {path!r} has {reference['repo_id']!r}, which is no repository ({error})") from None
        if self.backbones == "reference":
            if self.trainable_backbones:
                raise ValueError(
                    f"backbones: 'reference' is not allowed where trainable_backbones is {list(self.trainable_backbones)}, "
                    "because what they learn would be lost; 'embedded' is"
                )
            for path in BACKBONES[: 2 if self.llm_config is None else 3]:
                if path not in references:
                    raise ValueError(
                        f"backbones: 'reference' is not allowed, because nothing says where the Hub has the {path} backbone; open it by its "
                        "Hub id instead of a folder, or keep backbones 'embedded'"
                    )

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """transformers', of a repository of the Hub with config.json fetched first and checked, and the code beside it where that runs.

        By an Auto class this is the first of LiRA's code that runs. Raises OSError for a file that cannot be had, or was not whole."""
        if not Path(pretrained_model_name_or_path).exists():
            where = {name: kwargs.pop(name) for name in LOCATION if name in kwargs}
            revision, patterns = kwargs.pop("revision", None), below(kwargs.get("subfolder") or "", ["config.json"])
            pretrained_model_name_or_path = fetch(str(pretrained_model_name_or_path), revision=revision, patterns=[*patterns, *CODE], **where)
            check_code(pretrained_model_name_or_path)
        return super().get_config_dict(pretrained_model_name_or_path, **kwargs)

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        """The language model's configuration, where generation asks for the decoder's and there is one."""
        if decoder and self.llm_config is not None:
            return self.llm_config.get_text_config(decoder=True)
        return super().get_text_config(decoder=decoder, encoder=encoder)

    @property
    def vocab_size(self) -> int:
        """The language model's, for what generation computes from its scores; an AttributeError where there is none."""
        if self.llm_config is None:
            raise AttributeError("vocab_size: there is no language model")
        return self.llm_config.get_text_config(decoder=True).vocab_size

    @property
    def concat_dim(self) -> int:
        """d_g + d_h, the width of the frozen concatenation."""
        return self.multilingual_config.hidden_size + self.english_config.hidden_size

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings; the name that other libraries look for."""
        return self.embedding_dim or self.concat_dim
