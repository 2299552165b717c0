"""How alike groups of people are served, and how well lists keep to what people choose among categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from nightloom.core.sequences import Histories
from nightloom.core.streaming import Prefixes
from nightloom.data.preparation.items import FeatureSpec, ItemFeatures
from nightloom.evaluation.statistics import resampled_means, weights_of

FloatArray = NDArray[np.float64]
HISTORY = "history"
"""Name of the attribute that tells people with a history from those without."""
MOST_CATEGORIES = 200
"""Values of a column beyond which it is no set of categories."""
ALPHA = 0.01
"""Weight of the history's share in that of a list, which keeps the divergence finite (Steck 2018)."""


def group_gaps(
    values: FloatArray,
    users: NDArray[np.integer],
    masks: Mapping[str, NDArray[np.bool_]],
    lengths: NDArray[np.int64],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A metric by group, and of each attribute the gap between the group that is served best and the one served worst.

    Args:
        values: float64 [n], the metric of each query.
        users: int [n], whose query it is.
        masks: slices of queries, bool [n] each; those named `<attribute>=<value>` are groups of people.
        lengths: int64 [n], events of each history: queries with and without one are groups, too.
        confidence: of the intervals, by a bootstrap that draws users with all their queries.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        For each attribute with two groups or more `attribute`, `groups` (name, users, value, low, high), `best`, `worst`, and the `gap`
        between the two, with `low` and `high`. `sure` is a lower end for whichever two groups chance might have made best and worst: that
        of the interval widened for all pairs of groups (Bonferroni).
    """
    of: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for name, mask in masks.items():
        attribute, mark, value = name.partition("=")
        if mark:
            of.setdefault(attribute, {})[value] = mask
    of[HISTORY] = {"with": lengths > 0, "without": lengths == 0}
    return [
        _gap(attribute, groups, values, users, confidence, resamples, seed)
        for attribute, groups in of.items()
        if sum(bool(mask.any()) for mask in groups.values()) > 1
    ]


def _gap(
    attribute: str,
    groups: Mapping[str, NDArray[np.bool_]],
    values: FloatArray,
    users: NDArray[np.integer],
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    tail = 100 * (1 - confidence) / 2
    rows, drawn = list[dict[str, Any]](), dict[str, FloatArray]()
    for number, (name, mask) in enumerate(groups.items()):
        if not mask.any():
            continue
        _, owner, many = np.unique(users[mask], return_inverse=True, return_counts=True)
        parts = np.bincount(owner, values[mask]) / many.mean()
        drawn[name] = resampled_means(parts[:, None], resamples, seed + number, weights_of(many))[:, 0]
        low, high = np.percentile(drawn[name], [tail, 100 - tail])
        rows.append({"name": name, "users": len(many), "value": float(values[mask].mean()), "low": float(low), "high": float(high)})
    best, worst = max(rows, key=lambda row: row["value"]), min(rows, key=lambda row: row["value"])
    pairs, gap = len(rows) * (len(rows) - 1) / 2, best["value"] - worst["value"]
    apart = drawn[best["name"]] - drawn[worst["name"]]
    low, high = np.percentile(apart, [tail, 100 - tail])
    fewest = min(best["users"], worst["users"])
    wide = student.ppf(1 - tail / 100 / pairs, fewest - 1) if fewest > 1 else np.inf  # so far out there are too few resamples
    sure = gap - wide * apart.std() * np.sqrt(fewest / max(fewest - 1, 1))  # a bootstrap knows no degrees of freedom
    return {
        "attribute": attribute,
        "groups": rows,
        "best": best["name"],
        "worst": worst["name"],
        "gap": gap,
        "low": float(low),
        "high": float(high),
        "sure": float(min(low, sure)),
    }


def miscalibration(shown: NDArray[np.integer], histories: Histories | Prefixes, categories: NDArray[np.float64]) -> float | None:
    """How far lists are from the histories' shares of categories: the mean Kullback-Leibler divergence (Steck 2018, Calibrated
    recommendations, equations 1 to 5); 0 where each list has the shares of its history.

    Args:
        shown: int [n, k], recommended items; -1 where there is none.
        histories: [n], of the same queries; those without an event with a category are left out.
        categories: float64 [items, categories], each item's share of each; rows sum to 1, or 0 where nothing is known.

    Returns:
        None where no query counts.
    """
    p = np.column_stack([histories.totals(column) for column in categories.T])
    listed = np.column_stack([np.where(shown >= 0, column[shown], 0).sum(1) for column in categories.T])
    counted = (p.sum(1) > 0) & (listed.sum(1) > 0)
    if not counted.any():
        return None
    p, q = (one[counted] / one[counted].sum(1, keepdims=True) for one in (p, listed))
    q = (1 - ALPHA) * q + ALPHA * p
    return float((np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0)).sum(1).mean())


def categories_of(features: ItemFeatures, spec: FeatureSpec) -> tuple[str, FloatArray] | None:
    """The column whose values are categories, and each item's share of each: the first with tags, else the first with categories.

    Args:
        features: of the catalogue.
        spec: of the same catalogue.

    Returns:
        None where no column has between 2 and `MOST_CATEGORIES` values.
    """
    first, found = 0, list[tuple[bool, str, int, int]]()
    for column, vocabulary in spec.vocabularies.items():
        if 2 <= len(vocabulary) <= MOST_CATEGORIES:
            found.append((spec.kinds[column] != "tags", column, first, first + len(vocabulary)))
        first += len(vocabulary)
    if not found:
        return None
    _, column, low, high = min(found, key=lambda one: one[0])
    table = np.zeros((len(features), high - low))
    owner = np.repeat(np.arange(len(features)), np.diff(features.offsets))
    mine = (features.codes >= low) & (features.codes < high)
    table[owner[mine], features.codes[mine] - low] = 1
    return column, table / np.maximum(table.sum(1, keepdims=True), 1)
