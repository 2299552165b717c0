"""What two runs were made from: whether they may be compared, and in what their configs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightloom.core.errors import InputError
from nightloom.runs.run_content import flatten

if TYPE_CHECKING:
    from nightloom.runs.tracking import Tracking

RESAMPLES = 2000
"""Draws of users where it is not known how often a run's gate drew."""


@dataclass(frozen=True)
class Origin:
    """What a run was made from.

    Attributes:
        data_hash: of its snapshot; empty where it is not known.
        config: dotted key -> value in words.
        metric: that by which its gate decided; None where it is not known.
    """

    data_hash: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None

    @property
    def resamples(self) -> int:
        """How often its gate drew users, so that an interval of the same users is the gate's."""
        return int(self.config.get("promotion.resamples", RESAMPLES))


def origin_of_night(folder: Path) -> Origin:
    """What the `report.json` in a night's folder says; nothing where there is none."""
    path = folder / "report.json"
    if not path.exists():
        return Origin()
    report: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = {key: str(value) for key, value in flatten(report.get("config") or {}).items()}
    return Origin(report.get("data_hash") or "", config, (report.get("gate") or {}).get("metric"))


def origin_of_run(tracking: Tracking, run: str) -> Origin:
    """What an MLflow run, and the one that it is nested in, say by tags and parameters.

    Raises:
        NightloomError: MLflow can not be reached.
    """
    from nightloom.runs.tracking import PARENT_TAG

    with tracking.reached():
        found = tracking.client.get_run(run)
        above = found.data.tags.get(PARENT_TAG)
        config = dict(tracking.client.get_run(above).data.params if above else found.data.params)
    return Origin(found.data.tags.get("nightloom.data_hash", ""), config, config.get("promotion.metric"))


def check_same_data(a: Origin, b: Origin, names: tuple[str, str]) -> None:
    """Refuse two runs that are known to be of different data, since their held-out events are not the same.

    Args:
        a: the first run.
        b: the second.
        names: what they are called.

    Raises:
        InputError: the data differ.
    """
    if a.data_hash and b.data_hash and a.data_hash != b.data_hash:
        raise InputError(
            f"the runs were made on different data: {names[0]} on {a.data_hash[:12]}, {names[1]} on {b.data_hash[:12]}. Their held-out "
            "events are not the same. Say --other-data to compare them on those that both have."
        )


def config_differences(a: Origin, b: Origin) -> list[tuple[str, str, str]]:
    """(key, value of A, value of B) of each key in which two configs differ, by name; a missing value is empty."""
    keys = sorted(a.config.keys() | b.config.keys())
    return [(key, a.config.get(key, ""), b.config.get(key, "")) for key in keys if a.config.get(key) != b.config.get(key)]
