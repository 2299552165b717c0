"""Variety for whoever has no history: a seeded draw over the best of the list that all of them would get.

Of a score s and standard Gumbel noise g, the order of s + temperature * g is a draw of items one after the other, each with a probability
that grows with exp(s / temperature) (Plackett-Luce; Yellott 1977). The noise is a function of the person and the day: the same person gets
the same list all day, with pages that do not repeat, and two people get different ones. Night and day draw by this function.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
HEAD = 100
"""Best items among which is drawn; the others stay behind them in their order."""
DAY = 86_400
LEAST = 4.0
"""No noise is below minus this: u, a multiple of 2^-53 that is not zero, has a Gumbel value above -3.61."""


def noise(person: str, time: int, n: int) -> FloatArray:
    """Gumbel noise of a person on a day, float32 [n]; that of the first items does not depend on how many there are.

    Args:
        person: id, or whatever stands for it.
        time: seconds since 1970, of the request.
        n: items.
    """
    seed = int.from_bytes(hashlib.sha256(f"{time // DAY}\n{person}".encode()).digest()[:16], "little")
    drawn = np.random.Generator(np.random.PCG64(seed)).random(n)
    found: FloatArray = -np.log(-np.log(np.maximum(drawn, 2.0**-53))).astype(np.float32)
    return found


def lift(head: NDArray[np.integer], person: str, time: int, n: int, temperature: float) -> FloatArray:
    """What is added to the scores of n items, float32 [n]: above zero for the head alone, which stays ahead of the others.

    Args:
        head: dense items, the best for whoever has no history.
        person: as in `noise`.
        time: as in `noise`.
        n: items.
        temperature: in units of the score.
    """
    found = np.zeros(n, dtype=np.float32)
    found[head] = np.float32(temperature) * (noise(person, time, n)[head] + np.float32(LEAST))
    return found
