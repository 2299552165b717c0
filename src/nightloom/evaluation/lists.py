"""Metrics of the recommended lists as a whole: coverage, novelty, popularity and exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightloom.core.metrics import KS
from nightloom.core.sequences import Histories
from nightloom.core.streaming import Prefixes
from nightloom.evaluation.slices import item_slices


def measure(top: NDArray[np.integer], histories: Histories | Prefixes, popularity: NDArray[np.int64]) -> dict[str, float]:
    """All list metrics at each depth, as far as the lists reach.

    Args:
        top: int [n, longest], recommended items, best first; -1 where there is none.
        histories: [n], of the same users.
        popularity: int64 [items], positive events of each item in training.

    Returns:
        Metric name -> value; empty when nothing was recommended. A popularity bias without any history is left out.
    """
    found: dict[str, float] = {}
    for k in KS:
        shown = top[:, :k]
        if not (shown >= 0).any():
            continue
        found[f"coverage_at_{k}"] = coverage(shown, len(popularity))
        found[f"novelty_at_{k}"] = novelty(shown, popularity)
        bias = popularity_bias(shown, histories, popularity)
        if bias is not None:
            found[f"popularity_bias_at_{k}"] = bias
        found[f"gini_at_{k}"] = gini(shown, len(popularity))
        found |= {f"{name}_at_{k}": value for name, value in of_the_tail(shown, popularity).items()}
    return found


def coverage(shown: NDArray[np.integer], n_items: int) -> float:
    """Share of the catalogue that is in at least one list, 0 to 1."""
    return len(np.unique(shown[shown >= 0])) / n_items


def novelty(shown: NDArray[np.integer], popularity: NDArray[np.int64]) -> float:
    """Mean self-information of the recommended items, in bits: -log2 of an item's share of the events.

    After Zhou et al. 2010, Solving the apparent diversity-accuracy dilemma. One event is added to each
    item, so that an item without any has a finite value.
    """
    share = (popularity + 1) / (popularity.sum() + len(popularity))
    return float(-np.log2(share[shown[shown >= 0]]).mean())


def popularity_bias(shown: NDArray[np.integer], histories: Histories | Prefixes, popularity: NDArray[np.int64]) -> float | None:
    """How much more popular the lists are than the histories of the same users: 0 as popular, 1 twice as popular.

    (R - H) / H, where R is the mean over users of the mean popularity of their list, and H that of their history.
    It is delta GAP of Abdollahpouri et al. 2019, The unfairness of popularity bias in recommendation. Users without a history or
    a list are left out; None when no user or no popularity is left.
    """
    listed = shown >= 0
    lengths = histories.lengths
    counted = (lengths > 0) & listed.any(axis=1)
    known = histories.totals(popularity)[counted] / lengths[counted]
    if not known.any():
        return None
    given = np.where(listed, popularity[shown], 0)[counted].sum(axis=1) / listed[counted].sum(axis=1)
    return float(given.mean() / known.mean() - 1)


def of_the_tail(shown: NDArray[np.integer], popularity: NDArray[np.int64]) -> dict[str, float]:
    """What lists show of popular and of rare items (Abdollahpouri et al. 2019, Managing popularity bias in recommender systems with
    personalized re-ranking).

    Args:
        shown: int [n, k], recommended items, best first; -1 where there is none, at least one is one.
        popularity: int64 [items], positive events of each item in training.

    Returns:
        `arp`: mean over lists of the mean popularity (average recommendation popularity). `aplt`: mean over lists of the share of tail
        items, those never seen included. `mid_exposure` and `tail_exposure`: shares of the exposure, an item at rank r having
        1 / log2(1 + r). `tail_items`: how many different tail items are shown.
    """
    listed, level = shown >= 0, item_slices(popularity)
    some = listed.any(axis=1)
    shown, listed = shown[some], listed[some]
    many = listed.sum(axis=1)
    tail, mid = (np.isin(level, names)[shown] & listed for names in (["tail items", "unseen items"], ["mid items"]))
    seen = np.where(listed, 1 / np.log2(np.arange(2, shown.shape[1] + 2)), 0)
    return {
        "arp": float((np.where(listed, popularity[shown], 0).sum(axis=1) / many).mean()),
        "aplt": float((tail.sum(axis=1) / many).mean()),
        "mid_exposure": float(seen[mid].sum() / seen.sum()),
        "tail_exposure": float(seen[tail].sum() / seen.sum()),
        "tail_items": float(len(np.unique(shown[tail]))),
    }


def tail_shares(shown: NDArray[np.integer], popularity: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of tail items, those never seen included, in each list, float64 [n]; 0 for an empty one. `aplt` is their mean."""
    tail = np.isin(item_slices(popularity), ["tail items", "unseen items"])
    listed = shown >= 0
    found: NDArray[np.float64] = (tail[shown] & listed).sum(axis=1) / np.maximum(listed.sum(axis=1), 1)
    return found


def gini(shown: NDArray[np.integer], n_items: int) -> float:
    """Gini index of how often each item of the catalogue is shown: 0 all alike, towards 1 always the same few."""
    exposure = np.sort(np.bincount(shown[shown >= 0], minlength=n_items))
    position = np.arange(1, n_items + 1)
    return float(((2 * position - n_items - 1) * exposure).sum() / (n_items * exposure.sum()))
