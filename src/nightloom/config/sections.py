"""The sections of models, training, evaluation, explanations and the gate: every key with its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from nightloom.config.section import Section

Protocol = Literal["streaming", "temporal", "leave_one_out", "random"]
BaselineName = Literal[
    "popularity", "popularity_recent", "item_knn", "user_knn", "session_knn", "als", "bpr", "ease", "graph", "word2vec", "mlp", "gru"
]  # those of models/baselines/named.py
ScorerName = Literal[
    "graph", "cooccurrence", "linear", "text_neighbours", "popularity", "trend", "repeats", "friends", "als"
]  # those of models/scorers/registry.py


class PretrainedConfig(Section):
    """The pretrained models: one that reads the items' text and, where there is an image column, one that sees their pictures."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub name or local folder of a BERT- or GPT-class model (safetensors only)."""
    sha256: str | None = None
    """Expected SHA-256 of model.safetensors. Known models are checked without it."""
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """How token vectors become one text vector. auto: mean for encoders, last token for decoders."""
    max_tokens: int = Field(64, ge=4, le=8192)
    """Longest text, in tokens; the rest is cut."""
    engine: Literal["torch", "fast"] = "torch"
    """torch, or fast: OpenVINO, several times faster on a CPU, for BERT-class encoders (needs `pip install 'nightloom[fast]'`)."""
    image_model: str = "facebook/dinov2-small"
    """Hub name or local folder of a vision model (safetensors only); used only where data.features names an image column."""
    image_sha256: str | None = None
    """Expected SHA-256 of its model.safetensors."""
    max_bad_images: float = Field(0.05, ge=0, le=1)
    """Largest share of an image column's pictures that may be missing or broken; beyond it the night stops."""


class ModelConfig(Section):
    """The recommender: fusion of text, attributes and id; a packed causal transformer; two heads over it."""

    renamed: ClassVar[Mapping[str, str]] = {"companions": "scorers", "purchase_head": "reranker"}

    dim: int = Field(64, ge=8, le=4096)
    """Width of item and user vectors."""
    blocks: int = Field(2, ge=1, le=64)
    """Transformer blocks."""
    heads: int = Field(2, ge=1, le=64)
    """Attention heads."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout: .2 to .3 for minutes of training, .5 for long runs."""
    id_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of items whose id embedding is hidden in a step, so that unseen items work."""
    max_history: int = Field(200, ge=1, le=65536)
    """Events of a history that the model looks at."""
    use_text: bool = True
    """Whether item text joins the fusion."""
    use_images: bool = True
    """Whether item pictures join the fusion, where there is an image column."""
    use_attributes: bool = True
    """Whether item attributes join the fusion."""
    use_ids: bool = True
    """Whether id embeddings join the fusion."""
    use_time: bool = True
    """Whether gaps between events are a feature (needs timestamps)."""
    scorers: tuple[ScorerName, ...] = (
        "graph",
        "cooccurrence",
        "linear",
        "text_neighbours",
        "popularity",
        "trend",
        "repeats",
        "friends",
        "als",
    )
    """What may be fused with the network's scores; validation gives each its weight, often none. Empty: the network alone.
    `linear` is asked only where events have no times, `trend` where they have, `friends` where there are links."""
    min_support: int = Field(5, ge=1, le=1_000_000)
    """People that an edge between two items must rest on; rarer ones hold single people's histories. Less only for tiny data."""
    reranker: bool = True
    """Whether a re-ranker orders the 100 best by their probability, where validation shows a significant gain."""
    popularity_penalty: Literal["auto"] | Annotated[float, Field(ge=0, le=10)] = 0.0
    """What is taken off the final score for each standard deviation of an item's log popularity. auto: the most that popularity_loss
    allows on validation; lists then reach further down the tail."""
    popularity_loss: float = Field(0.02, ge=0, lt=1)
    """Share of validation NDCG@10 that an `auto` penalty may cost, one standard error of that cost included."""
    exploration: float = Field(0.0, ge=0, le=10)
    """Variety for users without a history: the 100 best are drawn anew for each user and day, at this temperature in units of the fused
    score. 0: all get the same list. The report says what it costs."""

    @model_validator(mode="after")
    def _shapes(self) -> ModelConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if not (self.use_text or self.use_attributes or self.use_ids):
            raise ValueError("an item needs at least one of use_text, use_attributes, use_ids")
        return self


class TrainingConfig(Section):
    """How the model is fitted."""

    tuning: Literal["frozen", "lora", "full"] = "frozen"
    """What happens to the language model: frozen (vectors cached), LoRA adapters, or full fine-tuning."""
    workers: int = Field(2, ge=1, le=128)
    """Processes of torch.distributed (one per core or GPU); more than four a core are refused when training starts."""
    launcher: Literal["torchrun", "ray"] = "torchrun"
    """What starts the workers: torchrun on this machine, or a job of the Ray cluster that RAY_ADDRESS names (pip install
    'nightloom[ray]')."""
    epochs: int = Field(60, ge=1, le=1_000_000)
    """Most epochs; early stopping usually ends sooner."""
    patience: int = Field(8, ge=1, le=1_000_000)
    """Epochs without a better validation NDCG@10 before training stops."""
    batch_users: int = Field(32, ge=1, le=1_000_000)
    """Users (windows of max_history) in a global batch, over all workers."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer."""
    learning_rate: float = Field(2e-3, gt=0, le=100)
    """Peak learning rate of the recommender."""
    lm_learning_rate: float = Field(5e-5, gt=0, le=100)
    """Peak learning rate of the language model when it is tuned."""
    lm_sharded: bool = False
    """Share weights, gradients and optimizer state of the language model out over the workers (FSDP2), with tuning: full. For a language
    model that is larger than a device."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """Weight decay."""
    label_weight: float = Field(0.0, ge=0, le=1000)
    """Weight of the label head's loss beside that of retrieval, where events are both positive and not (liked, clicked). 0: no head."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the softmax loss."""
    negatives: int | None = Field(None, ge=1, le=1_000_000)
    """Shared negatives of the sampled softmax (logQ-corrected). Empty: full softmax up to 50,000 items, 4,096 above."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Operands of the matrix products in training. auto: bf16 where the processor or GPU has instructions for it, else fp32."""
    max_minutes: float | None = Field(None, gt=0, le=100_000)
    """Training stops after the epoch that passes this many minutes."""
    warm_start: bool = False
    """Start from the champion's weights, if it has learned nothing that tonight holds out (split in time, frozen language model)."""
    warm_epochs: int = Field(2, ge=1, le=1_000_000)
    """Epochs of a run that starts from the champion's weights; the rate falls to nothing over them."""
    refit: bool = True
    """After early stopping, train again on train + validation for the best number of epochs (one cut for all users only)."""
    seed: int = Field(7, ge=0, le=2**31 - 1)
    """Seed of everything random in training."""

    @model_validator(mode="after")
    def _sharded_is_tuned(self) -> TrainingConfig:
        if self.lm_sharded and self.tuning != "full":
            raise ValueError(f"training.lm_sharded: with tuning: {self.tuning} there is nothing to share out; write tuning: full")
        return self


class EvaluationConfig(Section):
    """What is measured and how."""

    renamed: ClassVar[Mapping[str, str]] = {"floors": "baselines"}

    protocols: tuple[Protocol, ...] = Field(("streaming",), min_length=1)
    """Each is split, trained and ranked for itself; the gate uses the first. streaming: one cut in time, and a query before each later
    event with all that is known just before it. temporal: one query a user, at the cut. leave_one_out: each user's last event, as in
    papers. `random` goes with data.columns.events.order: random."""
    baselines: tuple[BaselineName, ...] = ("popularity", "item_knn", "als", "graph")
    """Simple models ranked beside the model; the gate holds a first champion against them."""
    exclude_seen: bool = True
    """Whether items that a user has seen are left out of the ranking (false where repeats are normal)."""


class ClicksConfig(Section):
    """The click head (`python -m flows.clicks`), for logs that say what was shown, clicked or not."""

    test_from: int | None = Field(None, ge=0, le=10**15)
    """Order, or time in ms since 1970, of the first row of the test part, where a publisher set one. Empty: by prepare.test_share."""
    folds: int = Field(6, ge=1, le=100)
    """Parts of the latter half before the test, each predicted from what is before it. They choose epochs and calibration."""
    members: int = Field(5, ge=1, le=100)
    """Networks, trained from different seeds, whose log-odds are averaged."""
    epochs: int = Field(16, ge=1, le=10_000)
    """Most epochs; how many are best is chosen on the folds."""
    dim: int = Field(32, ge=2, le=1024)
    """Width of the vectors of user, item and context that are added up."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout of the head's hidden layers."""
    learning_rate: float = Field(1e-3, gt=0, le=100)
    """Learning rate."""
    weight_decay: float = Field(0.05, ge=0, le=100)
    """Weight decay."""
    batch_rows: int = Field(128, ge=1, le=10_000_000)
    """Rows in a batch."""
    calibration: Literal["auto", "none", "temperature", "isotonic"] = "auto"
    """How log-odds become probabilities. auto: the best log-loss on the folds, out of fold."""


class ExplainConfig(Section):
    """Shapley reasons for a sample of recommendations."""

    users: int = Field(8, ge=0, le=10_000)
    """Users whose first recommendation is explained."""
    max_events: int = Field(50, ge=2, le=200)
    """Latest history events that take part as players."""
    samples: int = Field(20_000, ge=16, le=1_000_000)
    """Most model evaluations per explanation."""
    precision: float = Field(0.2, gt=0, le=1)
    """An explanation ends where the mean standard error of its values is this share of their mean size."""
    fit_users: int = Field(40, ge=0, le=10_000)
    """Further users to whose histories the service's estimator of reasons is fitted; fewer than 8: it stays cautious."""
    fidelity_users: int = Field(100, ge=0, le=100_000)
    """Users on whom the fidelity of the service's estimates is measured, of tonight's model and of the champion's; 0: not measured."""


class PromotionConfig(Section):
    """The gate between challenger and champion."""

    renamed: ClassVar[Mapping[str, str]] = {"must_beat_floors": "must_beat_baselines"}

    mode: Literal["enabled", "review", "dry_run", "disabled"] = "enabled"
    """enabled: promote on success; review: register, and a person promotes it by `nightloom approve NAME`; dry_run: decide and report,
    register nothing; disabled: no registry at all."""
    ask_hours: float = Field(0, ge=0, le=24)
    """With review: for how long a night waits for the answer to a form in Prefect's page (PREFECT_API_URL). The champion stays where
    nobody answers. 0: it does not ask."""
    metric: Literal["ndcg_at_10", "hr_at_10", "mrr_at_10", "recall_at_10"] = "ndcg_at_10"
    """Metric that decides."""
    margin: float = Field(0.02, ge=0, le=1)
    """Non-inferiority margin, relative to the champion's metric: the whole interval must lie above -margin."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the bootstrap interval."""
    resamples: int = Field(2000, ge=100, le=1_000_000)
    """Bootstrap resamples."""
    slice_margin: float = Field(0.1, ge=0, le=1)
    """Largest relative loss allowed on any slice with enough users; by more than chance."""
    anchor_margin: float = Field(0.03, ge=0, le=1)
    """The same against the anchor, the best model of before: losses of many nights may not add up to more."""
    min_slice_users: int = Field(200, ge=1, le=1_000_000_000)
    """Slices with fewer users guard only where they would show a loss of a fifth."""
    must_beat_baselines: bool = True
    """Whether a first champion must match every baseline within the margin, and no later one may fall significantly below one."""
    max_group_gap: float | None = Field(None, ge=0)
    """Largest gap of the metric between two groups of people with one attribute, as a share of the model's mean. A gap stands against
    promotion only where its interval, widened for the choice of the two groups, lies above. Empty: no limit."""
    min_tail_share: float | None = Field(None, ge=0, le=1)
    """Least share of tail items in lists of ten (aplt_at_10); it stands against promotion only where its interval lies below."""
    fidelity_margin: float | None = Field(0.05, ge=0, le=1)
    """How much less reasons may hold than the champion's: by how much CDCG, the rank that a recommendation keeps without the events that
    are named as its reasons, may surely rise on the same users. Empty: not compared."""
    compress: bool = True
    """Serve sequence model and item vectors of 2 MB or more in int8 or half precision, where the gate finds less than half a percent of
    NDCG lost. false: in float32, so that the service's scores are those of the registered model to four digits."""
    hold_nights: int = Field(7, ge=0)
    """Nights that a rollback holds back, if nobody releases it before (`nightloom release`); 0: until somebody does."""

    @property
    def registers(self) -> bool:
        """Whether what passes the gate is registered."""
        return self.mode in ("enabled", "review")
