"""What run.json tells a worker: the run's config, its folders, and the weights that it starts from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nightloom.core.errors import InputError
from nightloom.training.warm_start import settings_of

if TYPE_CHECKING:
    from nightloom.config import RunConfig

WARM = "warm"
"""Mode of a run that starts from the champion's weights."""


@dataclass(frozen=True)
class Run:
    """What run.json says.

    Attributes:
        config: the run's config as plain attributes.
        protocol: which split.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        out: where bundle, curves and checkpoints go.
        digest: hash of all that shapes the result, workers and launcher left out.
        start: weights laid out for this run, the champion's or another domain's; None to train from scratch.
        mode: of a start: warm (the champion's), or how another domain's is taken on (see `nightloom.training.transfer`).
        settings: what a later warm start from this run must share with it.
    """

    config: RunConfig
    protocol: str
    prepared: Path
    pretrained: Path
    out: Path
    digest: str
    start: Path | None
    mode: str | None
    settings: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read run.json.

        Raises:
            InputError: the file is not what `fine_tune` writes.
        """
        try:
            text = path.read_text(encoding="utf-8")
            content: Any = json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))
            plain = json.loads(text)
            shaping = {name: plain["config"][name] for name in ("model", "training", "pretrained")}
            shaping["training"] = {key: value for key, value in shaping["training"].items() if key not in ("workers", "launcher")}
            shaping["exclude_seen"] = plain["config"]["evaluation"]["exclude_seen"]
            prepared, pretrained, out = ((path.parent / place).resolve() for place in (content.prepared, content.pretrained, content.out))
            protocol, config = content.protocol, content.config
            start = plain.get("start")
            settings = settings_of(plain["config"])
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a readable run.json ({error}). It needs config (with all defaults), protocol, prepared, pretrained, out."
            ) from error
        mode = start.get("mode", WARM) if start else None
        came_from = [start["sha256"], *([mode] if mode != WARM else [])] if start else []
        digest = sha256(json.dumps([shaping, protocol, *came_from], sort_keys=True).encode()).hexdigest()
        return cls(config, protocol, prepared, pretrained, out, digest, path.parent / start["file"] if start else None, mode, settings)


def warm_schedule(config: RunConfig) -> RunConfig:
    """The config of a run that starts from the champion's weights: few epochs, all of them run, since the rate falls over them."""
    training: Any = SimpleNamespace(**vars(config.training))
    training.epochs = training.patience = min(training.epochs, training.warm_epochs)
    warm: Any = SimpleNamespace(**(vars(config) | {"training": training}))
    return warm
