"""Results of earlier nights that were judged against the same champion, for the gate to pool where one night has few users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from nightloom.core.digests import warn
from nightloom.core.errors import DamagedError
from nightloom.promotion.comparison import CHALLENGER, Rows
from nightloom.runs.nights import check_copy

ENOUGH = 6
"""Nights that are looked for; with tonight they are the seven that the gate pools at most."""


def earlier_nights(nights: Path, tonight: str, champion: str, protocol: str, model: str) -> list[Rows]:
    """The nights since a champion was promoted, the latest first.

    Args:
        nights: `mlruns/nights/<name>`.
        tonight: id of the night that decides; only nights before it count.
        champion: the champion's version.
        protocol: the gate's.
        model: family of tonight's model, which each night's challenger has too.

    Returns:
        For each night "challenger", "champion" and, where it was ranked, "anchor" -> rows of per_user.parquet. A night that can not be
        read, or had another champion or protocol, ends the list.
    """
    found: list[Rows] = []
    for folder in sorted((one for one in nights.glob("[0-9]*") if one.name < tonight), reverse=True):
        if len(found) == ENOUGH:
            break
        try:
            report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            if report["gate"].get("decision") is None:
                continue  # its input was refused
            if report["versions"].get("champion") != champion or report["gate"]["decision"] != "reject":
                break
            check_copy(folder, "evaluate", "per_user.parquet")
            rows = pd.read_parquet(folder / "per_user.parquet", filters=[("protocol", "==", protocol)])
        except DamagedError as damage:
            warn(f"{damage} This night and those before it do not count for the gate.")
            break
        except (OSError, ValueError, KeyError, TypeError):
            break
        families = dict(iter(rows.groupby("family", observed=True)))
        if model not in families or "champion" not in families:
            break
        found.append({CHALLENGER: families[model]} | {name: families[name] for name in ("champion", "anchor") if name in families})
    return found
