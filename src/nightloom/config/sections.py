"""The sections of a run's configuration: every key with its default and its meaning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nightloom.core.errors import RenamedWarning

TableName = Literal["events", "items", "users", "links"]
Share = Annotated[float, Field(ge=0, le=1)]
RANDOM = "random"
"""As `data.columns.events.order` and as a protocol: events have no times, and their order and split are drawn at random."""
FeatureKind = Literal["text", "category", "tags", "number", "image", "ignore"]
Protocol = Literal["temporal", "leave_one_out", "random"]
BaselineName = Literal[
    "popularity", "popularity_recent", "item_knn", "user_knn", "als", "bpr", "ease", "graph", "word2vec", "mlp", "gru"
]  # those of models/baselines/named.py
ScorerName = Literal["graph", "cooccurrence", "text_neighbours", "popularity", "repeats", "friends"]  # those of models/scorers/registry.py
NamedSet = Literal["movies-small", "movies", "office", "industrial", "shop", "news", "social", "follow", "avazu", "criteo"]


TITLES = {
    "lm_learning_rate": "Learning rate of the language model",
    "pretrained": "Pretrained models",
    "promotion": "Gate",
    "reranker": "Re-ranker",
    "sha256": "SHA-256",
    "image_sha256": "SHA-256 of the image model",
    "validation": "Data contract",
}
"""Titles that a key's own words do not give."""


def _title(name: str, _: object) -> str:
    return TITLES.get(name, name.replace("_", " ").capitalize())


class Section(BaseModel):
    """A frozen part of the config that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True, field_title_generator=_title
    )
    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of the last version -> their names now; they work for one version more, with a warning."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        """A section without a key, which YAML reads as null, is one of defaults; renamed keys get their new names."""
        if given is None:
            return {}
        old = [key for key in cls.renamed if isinstance(given, Mapping) and key in given]
        if not old:
            return given
        for key in old:
            if given[key] is not None and cls.renamed[key] in given:
                raise ValueError(f"'{key}' is the old name of '{cls.renamed[key]}': give one of the two")
            said = f"config: the key '{key}' is now '{cls.renamed[key]}'. The old name goes away with the next version."
            warnings.warn(said, RenamedWarning, stacklevel=2)
        return {cls.renamed[key]: given[key] for key in old} | {key: value for key, value in given.items() if key not in old}

    def of_table(self, key: str, table: str) -> Any:
        """The value of a key for one table, where it may be given once for all tables or a table: value each."""
        value = getattr(self, key)
        return value.get(table, type(self).model_fields[key].default) if isinstance(value, Mapping) else value


class EventFilterConfig(Section):
    """A part of the events, where not all are wanted: one year of two, or some of the users. The catalogue stays whole."""

    since: date | None = None
    """First day that counts, for example 2010-12-01 (UTC). Empty: from the first event."""
    before: date | None = None
    """Day that ends the part, itself not in it. Empty: to the last event."""
    users_share: float = Field(1.0, gt=0, le=1)
    """Share of the users to keep, drawn with a fixed seed: a larger share contains every smaller one."""

    @model_validator(mode="after")
    def _has_days(self) -> EventFilterConfig:
        if self.since and self.before and self.since >= self.before:
            raise ValueError(f"since ({self.since}) must be a day earlier than before ({self.before})")
        return self


class DataConfig(Section):
    """Where the tables come from and what their columns mean."""

    renamed: ClassVar[Mapping[str, str]] = {"only": "event_filter"}

    set: NamedSet | None = None
    """A named data set, checked by SHA-256: MovieLens is fetched, others lie in NIGHTLOOM_DATA. Leave empty to name your own tables."""
    events: str | None = None
    """Events table: a CSV, JSON, Parquet, Arrow or Excel file, packed or not, a folder or a pattern of them, or a SQL address such as
    postgresql://host/db?table=events. `?query=SELECT ...` is taken as written to its end."""
    items: str | None = None
    """Items table: same forms as events. Without it the items are those seen in the events."""
    users: str | None = None
    """Users table: attributes used for slices only."""
    links: str | None = None
    """Links between users: friend, follows, trusts."""
    event_filter: EventFilterConfig = EventFilterConfig()
    """Which part of the events is taken. Empty: all."""
    columns: dict[TableName, dict[str, str]] = Field(default_factory=dict)
    """Per table: our column name -> your column name. Columns not named keep their own name only if they are ours.
    Where events have no times: `order:` a column with each event's position, or `order: random` for a random split."""
    features: dict[str, FeatureKind] = Field(default_factory=dict)
    """Item column -> text, category, tags, number, image (never inferred: paths or bytes) or ignore; what is not said is inferred.
    Context column of the events -> category or number; whole numbers are categories where nothing is said."""
    tags_separator: str = "|"
    """What separates the values of a tags column."""
    encoding: str | dict[TableName, str] = "utf-8"
    """Encoding of text files; one for all tables, or table: encoding each."""
    separator: str | dict[TableName, str] = ","
    """Column separator of text files: ";", "\\t", "::" and the like, or `whitespace`; one for all tables, or table: separator each."""
    header: bool | dict[TableName, bool] = True
    """Whether the first line of text files names the columns. If not, they are named "1", "2", ...; one for all tables, or one each."""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of numeric timestamps (since 1970, UTC). With auto it is inferred from the size of the numbers."""

    @field_validator("columns", mode="before")
    @classmethod
    def _numbered_columns(cls, given: Any) -> Any:
        """Columns without a header are named "1", "2", ..., which YAML reads as numbers."""
        if not isinstance(given, Mapping):
            return given
        return {
            table: {own: str(name) if type(name) is int else name for own, name in named.items()} if isinstance(named, Mapping) else named
            for table, named in given.items()
        }

    @property
    def random_order(self) -> bool:
        """Whether events are put in a random order, since nothing tells when they happened."""
        return self.columns.get("events", {}).get("order") == RANDOM

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.set is None) == (self.events is None):
            raise ValueError("name either `set` (a named data set) or `events` (your own table), not both and not neither")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> DataConfig:
        # The config is kept with every run, in MLflow, in Prefect and in the report: a password in it would be too.
        for table in ("events", "items", "users", "links"):
            address = urlsplit(getattr(self, table) or "")
            if address.password or "password" in address.query.lower():
                raise ValueError(
                    f"the address of `{table}` holds a password: leave it out and set NIGHTLOOM_SQL_PASSWORD in the environment"
                )
        return self


class ValidationConfig(Section):
    """The limits beyond which a night stops before any training."""

    suite: str = "base"
    """File in expectations/ that holds the suites: base, or a domain's own."""
    max_bad_share: Share | dict[TableName, Share] = 0.01
    """Largest share of rows of a table that may be quarantined; beyond it the night stops. One for all tables, or table: share each."""
    min_events: int = Field(100, ge=1)
    """Fewest good events with which training makes sense."""
    max_shrink: float = Field(0.2, ge=0, le=1)
    """Largest share by which a table may shrink against the last night."""
    max_age_days: float | None = Field(None, gt=0)
    """Oldest that the newest event may be, in days before the night. Empty: not checked (historical data)."""
    min_positive_share: float = Field(0.01, ge=0, le=1)
    """Smallest share of events that are positive (label balance)."""
    value_range: tuple[float, float] | None = None
    """Allowed range of `value`, for example [1, 5] for ratings."""
    allowed_events: tuple[str, ...] | None = None
    """Allowed event names. Empty: any."""


class PrepareConfig(Section):
    """Cleaning, labels and the split."""

    positive_events: tuple[str, ...] | None = None
    """Event names that count as positive. Empty: all."""
    positive_min_value: float | None = None
    """Smallest `value` that counts as positive. Empty: any."""
    seen_events: tuple[str, ...] | None = None
    """Event names after which an item is not recommended again, under `evaluation.exclude_seen`. Empty: those of `positive_events`."""
    keep_repeats: bool = False
    """Whether all of a user's events on an item are kept (a shop), or the first (a film) and the first positive one."""
    max_user_events_per_day: int = Field(5000, ge=1)
    """Users with a day of more events than this are taken for robots and left out (outliers)."""
    min_user_events: int = Field(1, ge=1)
    """Users with fewer events are left out (noise)."""
    min_item_events: int = Field(0, ge=0)
    """Items with fewer events lose those events (noise); the items stay in the catalogue."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Temporal and random split: share of positive events, by time, for validation."""
    test_share: float = Field(0.2, gt=0, lt=0.5)
    """Temporal and random split: share of positive events, by time, for the test."""


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
    scorers: tuple[ScorerName, ...] = ("graph", "cooccurrence", "text_neighbours", "popularity", "repeats", "friends")
    """What may be fused with the network's scores; validation gives each its weight, often none. Empty: the network alone."""
    reranker: bool = True
    """Whether a re-ranker orders the 100 best by their probability, where validation shows a significant gain."""

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
    workers: int = Field(2, ge=1)
    """Processes of torch.distributed (one per core or GPU)."""
    epochs: int = Field(60, ge=1)
    """Most epochs; early stopping usually ends sooner."""
    patience: int = Field(8, ge=1)
    """Epochs without a better validation NDCG@10 before training stops."""
    batch_users: int = Field(32, ge=1)
    """Users (windows of max_history) in a global batch, over all workers."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of the recommender."""
    lm_learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of the language model when it is tuned."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay."""
    label_weight: float = Field(0.0, ge=0)
    """Weight of the label head's loss beside that of retrieval, where events are both positive and not (liked, clicked). 0: no head."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing of the softmax loss."""
    negatives: int | None = Field(None, ge=1)
    """Shared negatives of the sampled softmax (logQ-corrected). Empty: full softmax up to 50,000 items, 4,096 above."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Operands of the matrix products in training. auto: bf16 where the processor or GPU has instructions for it, else fp32."""
    max_minutes: float | None = Field(None, gt=0)
    """Training stops after the epoch that passes this many minutes."""
    warm_start: bool = False
    """Start from the champion's weights, if it has learned nothing that tonight holds out (temporal split, frozen language model)."""
    warm_epochs: int = Field(2, ge=1)
    """Epochs of a run that starts from the champion's weights; the rate falls to nothing over them."""
    refit: bool = True
    """After early stopping, train again on train + validation for the best number of epochs (temporal split only)."""
    seed: int = 7
    """Seed of everything random in training."""


class EvaluationConfig(Section):
    """What is measured and how."""

    renamed: ClassVar[Mapping[str, str]] = {"floors": "baselines"}

    protocols: tuple[Protocol, ...] = Field(("temporal",), min_length=1)
    """Each is split, trained and ranked for itself; the gate uses the first. `random` goes with data.columns.events.order: random."""
    baselines: tuple[BaselineName, ...] = ("popularity", "item_knn", "als", "graph")
    """Simple models ranked beside the model; the gate holds a first champion against them."""
    exclude_seen: bool = True
    """Whether items that a user has seen are left out of the ranking (false where repeats are normal)."""


class ClicksConfig(Section):
    """The click head (`python -m flows.clicks`), for logs that say what was shown, clicked or not."""

    test_from: int | None = None
    """Order, or time in ms since 1970, of the first row of the test part, where a publisher set one. Empty: by prepare.test_share."""
    folds: int = Field(6, ge=1)
    """Parts of the latter half before the test, each predicted from what is before it. They choose epochs and calibration."""
    members: int = Field(5, ge=1)
    """Networks, trained from different seeds, whose log-odds are averaged."""
    epochs: int = Field(16, ge=1)
    """Most epochs; how many are best is chosen on the folds."""
    dim: int = Field(32, ge=2, le=1024)
    """Width of the vectors of user, item and context that are added up."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout of the head's hidden layers."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay."""
    batch_rows: int = Field(128, ge=1)
    """Rows in a batch."""
    calibration: Literal["auto", "none", "temperature", "isotonic"] = "auto"
    """How log-odds become probabilities. auto: the best log-loss on the folds, out of fold."""


class ExplainConfig(Section):
    """Shapley reasons for a sample of recommendations."""

    users: int = Field(8, ge=0)
    """Users whose first recommendation is explained."""
    max_events: int = Field(20, ge=2, le=200)
    """Latest history events that take part as players."""
    samples: int = Field(256, ge=16)
    """Model evaluations per explanation."""


class PromotionConfig(Section):
    """The gate between challenger and champion."""

    renamed: ClassVar[Mapping[str, str]] = {"must_beat_floors": "must_beat_baselines"}

    mode: Literal["enabled", "dry_run", "disabled"] = "enabled"
    """enabled: promote on success; dry_run: decide and report, register nothing; disabled: no registry at all."""
    metric: Literal["ndcg_at_10", "hr_at_10", "mrr_at_10", "recall_at_10"] = "ndcg_at_10"
    """Metric that decides."""
    margin: float = Field(0.02, ge=0)
    """Non-inferiority margin, relative to the champion's metric: the whole interval must lie above -margin."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the bootstrap interval."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    slice_margin: float = Field(0.1, ge=0)
    """Largest relative loss allowed on any slice with enough users; by more than chance."""
    anchor_margin: float = Field(0.03, ge=0)
    """The same against the anchor, the best model of before: losses of many nights may not add up to more."""
    min_slice_users: int = Field(200, ge=1)
    """Slices with fewer users guard only where they would show a loss of a fifth."""
    must_beat_baselines: bool = True
    """Whether a first champion must match every baseline within the margin, and no later one may fall significantly below one."""
