"""The training curves of a run: `curves.jsonl`, a line an epoch, which the caller reads while workers train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "curves.jsonl"
PHASES = ("search", "refit")


def rewrite(out: Path, lines: list[dict[str, Any]]) -> None:
    """Write the search's epochs anew, as a checkpoint holds them: a killed worker may have written more.

    Args:
        out: the run's folder.
        lines: `epoch`, `loss`, `validation_ndcg_at_10`, `learning_rate` and `seconds` of each epoch.
    """
    (out / FILE).write_text("".join(json.dumps(line | {"phase": PHASES[0]}) + "\n" for line in lines), encoding="utf-8")


def append(out: Path, line: dict[str, Any], phase: int, label_loss: float | None, validation_seconds: float) -> None:
    """Add an epoch.

    Args:
        out: the run's folder.
        line: as in `rewrite`.
        phase: 0 search, 1 refit.
        label_loss: mean loss of a label (nats); None where no labels are learnt.
        validation_seconds: the part of the epoch's seconds that validation took.
    """
    more = {"label_loss": label_loss, "phase": PHASES[phase], "validation_seconds": round(validation_seconds, 3)}
    with (out / FILE).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line | more) + "\n")
