"""Where a transfer's source ends: nothing that is carried over may lie in the future of the target's queries."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.split import Split, cut


def cutoff_of(target: Path, source: Path, protocol: str) -> int | None:
    """The time at which the target's validation begins, and from which nothing of the source may be learned.

    Args:
        target: prepared folder of the target, of all its users or some.
        source: prepared folder of the source, likewise.
        protocol: which split.

    Returns:
        Seconds since 1970 UTC; None where each user has an own cut-off, so that there is no such time.

    Raises:
        InputError: there is a cutoff, and one of the two has no times.
    """
    meta, theirs = (json.loads((place / "meta.json").read_text(encoding="utf-8")) for place in (target, source))
    cutoff: int | None = meta["cutoffs"][protocol]["validation"]
    if cutoff is not None and not (meta["has_time"] and theirs["has_time"]):
        raise InputError(
            f"transfer: under {protocol} the source's events must lie before the target's validation, and one of the two has no timestamps "
            "to tell. Give both timestamps, or use evaluation.protocols=[leave_one_out]."
        )
    return cutoff


def ended(sequences: Sequences, cutoff: int) -> Split | None:
    """A temporal split whose test begins at a given cut-off, for sequences that would learn from later events.

    The validation part moves with it and keeps its share of the positive events before the test.

    Args:
        sequences: real times, under the temporal protocol.
        cutoff: in seconds since 1970 UTC.

    Returns:
        None where training and validation end before the cut-off anyway.

    Raises:
        InputError: too few events lie before the cut-off for training and validation.
    """
    learned = sequences.train(with_validation=True)
    if not (learned.times >= cutoff).any():
        return None
    moments = np.sort(sequences.times[sequences.positive & (sequences.times < cutoff)])
    count, held = len(moments), 1 - sequences.train().positive.sum() / max(learned.positive.sum(), 1)
    start = int(moments[min(count - round(held * count), count - 1)]) if count else cutoff
    if not count or start == moments[0]:
        times = sequences.times
        raise InputError(
            f"transfer: the target's validation begins at {_day(cutoff)}, and under temporal the source may teach nothing that came later. "
            f"Of the source's {len(times):,} events ({_day(times.min())} to {_day(times.max())}) {int((times < cutoff).sum()):,} are "
            f"earlier, {count:,} of them positive: too few, or at too few times, for training and validation. Give the source earlier "
            "events or the target later ones, or use evaluation.protocols=[leave_one_out]."
        )
    return cut(sequences.offsets, sequences.times, start, cutoff)


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d %H:%M:%S} UTC"
