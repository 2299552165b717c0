"""What two runs were made from: whether they may be compared, and in what their configs differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nightloom.core.errors import InputError
from nightloom.runs.run_content import flatten

if TYPE_CHECKING:
    from nightloom.runs.tracking import Tracking


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


def origin_of_report(report: Mapping[str, Any]) -> Origin:
    """What a night's `report.json` says."""
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


def check_same_data(a: Origin, b: Origin, names: tuple[str, str], *, other_data: bool = False) -> None:
    """Refuse two runs of different data, whose held-out events are not the same questions.

    Args:
        a: the first run.
        b: the second.
        names: what they are called.
        other_data: compare them all the same, on the users and items that both were asked for.

    Raises:
        InputError: the data differ, or are not known, and `other_data` is not given.
    """
    if other_data or (a.data_hash == b.data_hash and a.data_hash):
        return
    said = [f"{name} on {one.data_hash[:12] or 'data that it does not name'}" for name, one in zip(names, (a, b), strict=True)]
    raise InputError(
        f"the runs were made on different data: {said[0]}, {said[1]}. Their held-out events are not the same. "
        "Say --other-data to compare them on those that both have."
    )


def config_differences(a: Origin, b: Origin) -> list[tuple[str, str, str]]:
    """(key, value of A, value of B) of each key in which two configs differ, by name; a missing value is empty."""
    keys = sorted(a.config.keys() | b.config.keys())
    return [(key, a.config.get(key, ""), b.config.get(key, "")) for key in keys if a.config.get(key) != b.config.get(key)]
