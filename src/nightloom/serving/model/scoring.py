"""Kernels that score the catalogue: what a history adds by edges, moments, fusion, and the best items."""

from __future__ import annotations

from typing import Any

import numpy as np

from nightloom.core.moments import RESOLUTION
from nightloom.serving.model.jit import inlined, kernel
from nightloom.serving.model.rows import inner_at, inner_products


@kernel
def follow_edges(start: Any, length: Any, targets: Any, weights: Any, items: Any, decay: Any, shrink: Any, base: Any, out: Any) -> None:
    """Scores by an item graph: base plus the sum of the latest events' rows, weighted by recency^age.

    Args:
        start: int64 [n], see `EdgeRows`.
        length: int64 [n].
        targets: int32 [edges].
        weights: float32 [edges].
        items: int32 [events], oldest first.
        decay: float32 [memory], recency^age for each age that counts.
        shrink: float32 [n], factor of each item as source and as target; of length 0 where there is none.
        base: float32 [n], scores before anything is added; -inf where an item can not be ranked.
        out: float32 [n], written.
    """
    out[:] = 0
    events = len(items)
    for age in range(min(events, len(decay))):
        item = items[events - 1 - age]
        factor = decay[age]
        if len(shrink):
            factor *= shrink[item]
        for at in range(start[item], start[item] + length[item]):
            # Below zero: by day more was taken from an edge than is shown of it, since the night shows none of few people.
            out[targets[at]] += factor * max(weights[at], np.float32(0))
    if len(shrink):
        for j in range(len(out)):
            out[j] = base[j] + out[j] * shrink[j]
    else:
        for j in range(len(out)):
            out[j] += base[j]


@kernel
def moments(scores: Any) -> Any:
    """Mean, standard deviation and lowest finite score, as `nightloom.core.moments.Moments.of`: -inf counts as the lowest.

    Without branches in the loops, which the compiler turns into vector instructions then: four times as fast.
    """
    n, hidden, total, lowest = len(scores), 0, 0.0, np.float32(np.inf)
    for j in range(n):
        score = scores[j]
        finite = score > np.float32(-np.inf)
        total += np.float64(score) if finite else 0.0
        least = score if finite else np.float32(np.inf)
        lowest = least if least < lowest else lowest
        hidden += 0 if finite else 1
    if hidden == n:
        return 0.0, 0.0, np.float32(0)
    mean = (total + hidden * np.float64(lowest)) / n
    squares = hidden * (np.float64(lowest) - mean) ** 2
    for j in range(n):
        apart = np.float64(scores[j]) - mean if scores[j] > np.float32(-np.inf) else 0.0
        squares += apart * apart
    return mean, np.sqrt(squares / n), lowest


@kernel
def network_moments(user: Any, mean: Any, covariance: Any) -> Any:
    """Mean and standard deviation of a user vector's inner products with all item vectors, in closed form."""
    centre, variance = 0.0, 0.0
    for i in range(len(user)):
        centre += user[i] * mean[i]
        for j in range(len(user)):
            variance += user[i] * covariance[i, j] * user[j]
    return centre, np.sqrt(max(variance, 0.0))


@inlined
def usable(mean: Any, std: Any) -> Any:
    """One over the standard deviation; 1 where all scores are equal but for rounding."""
    return 1.0 / std if std > RESOLUTION * np.hypot(mean, std) else 1.0


@kernel
def network_line(user: Any, mean: Any, covariance: Any) -> Any:
    """The network's row of what `standards` writes, float64 [3]."""
    centre, std = network_moments(user, mean, covariance)
    line = np.zeros(3)
    line[0], line[1] = centre, usable(centre, std)
    return line


@kernel
def standards(user: Any, mean: Any, covariance: Any, members: Any, lines: Any) -> None:
    """How each member's scores are standardised: the network's in row 0, then those of `members`.

    Args:
        user: float32 [dim].
        mean: float64 [dim], of the item vectors.
        covariance: float64 [dim, dim].
        members: float32 [scorers, n], scores of the whole catalogue.
        lines: float64 [scorers + 1, 3], written: mean, one over the standard deviation, lowest.
    """
    lines[0] = network_line(user, mean, covariance)
    for row in range(len(members)):
        centre, std, lowest = moments(members[row])
        lines[row + 1, 0], lines[row + 1, 1], lines[row + 1, 2] = centre, usable(centre, std), lowest


@kernel
def fuse(vectors: Any, user: Any, members: Any, lines: Any, weights: Any, pool: Any, out: Any) -> None:
    """Fused scores of some items: the weighted sum of the members' standardised scores.

    `members` may hold the scores of the pool alone, in its order.

    Args:
        vectors: `Rows` of n items.
        user: float32 [dim].
        members: float32 [scorers, n].
        lines: see `standards`.
        weights: float32 [scorers + 1], the network's first.
        pool: int64 [m], the items, each once and ascending.
        out: float32 [m], written.
    """
    slope, offset = np.float32(weights[0] * lines[0, 1]), np.float32(-weights[0] * lines[0, 1] * lines[0, 0])
    inner_products(vectors, user, slope, offset, pool, out)
    aligned = len(pool) == members.shape[1]
    for number in range(len(members)):
        scores, lowest = members[number], np.float32(lines[number + 1, 2])
        centre, slope = np.float32(lines[number + 1, 0]), np.float32(weights[number + 1] * lines[number + 1, 1])
        if aligned:
            for place in range(len(pool)):
                score = scores[place] if scores[place] > np.float32(-np.inf) else lowest
                out[place] += (score - centre) * slope
        else:
            for place in range(len(pool)):
                score = scores[pool[place]]
                out[place] += ((score if score > np.float32(-np.inf) else lowest) - centre) * slope


@kernel
def standardised(vectors: Any, user: Any, members: Any, lines: Any, chosen: Any, places: Any) -> Any:
    """Each member's standardised scores of some items, float32 [scorers + 1, items]; arguments as in `fuse`.

    `places` says where the items stand in `members`, int64 [items].
    """
    out = np.empty((len(lines), len(chosen)), np.float32)
    for place in range(len(chosen)):
        out[0, place] = (inner_at(vectors, chosen[place], user) - lines[0, 0]) * lines[0, 1]
        for number in range(len(members)):
            score = members[number, places[place]]
            if score == -np.inf:
                score = np.float32(lines[number + 1, 2])
            out[number + 1, place] = (score - lines[number + 1, 0]) * lines[number + 1, 1]
    return out


@kernel
def best(scores: Any, pool: Any, allowed: Any, seen: Any, k: Any, items: Any, values: Any) -> Any:
    """The k best of some items that may be recommended, best first, ties by place in the pool.

    Args:
        scores: float32 [m].
        pool: int64 [m], items, ascending.
        allowed: bool [n], by dense id.
        seen: int32 [events], items that are left out.
        k: how many at most.
        items: int64 [k], written.
        values: float32 [k], written.

    Returns:
        How many there are; the rest of `items` and `values` has no meaning.
    """
    if not k:
        return 0
    blocked = ~allowed
    for item in seen:
        blocked[item] = True
    many = 0
    for place in range(len(pool)):
        score = scores[place]
        if many == k and not score > values[many - 1]:
            continue
        if blocked[pool[place]] or not score > -np.inf:
            continue
        if many < k:
            many += 1
        at = many - 1
        while at > 0 and score > values[at - 1]:
            values[at], items[at] = values[at - 1], items[at - 1]
            at -= 1
        values[at], items[at] = score, pool[place]
    return many
