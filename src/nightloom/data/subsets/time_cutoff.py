"""Where one domain's past ends for another: of what is carried over, nothing may lie in the future of those who are asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.split import Split, cut


def cutoff_of(target: Path, source: Path, protocol: str) -> int | None:
    """The time from which on nothing of the source may be learned: that at which the target's validation begins.

    Args:
        target: prepared folder of the target, of all its users or some.
        source: prepared folder of the source, likewise.
        protocol: which split.

    Returns:
        Seconds since 1970 UTC; None where each user has cutoffs of an own, so that there is no such time.

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
    """A temporal split whose test begins at a cutoff instead, for sequences that would learn from what comes later.

    The validation part moves with it: it has the same share of the positive events that are no test as before.

    Args:
        sequences: real times, under the temporal protocol.
        cutoff: in seconds since 1970 UTC.

    Returns:
        None where nothing from the cutoff on is training or validation anyway.

    Raises:
        InputError: too little lies before the cutoff to learn from and to choose the epoch by.
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
