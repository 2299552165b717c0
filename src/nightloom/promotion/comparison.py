"""The challenger against one other model: on tonight's users and, where these are too few to tell, on those of earlier nights too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.metrics import from_frame, whole_ranks
from nightloom.evaluation.score_interval import Spread, holm, loss_p_value
from nightloom.evaluation.statistics import Difference, pair_rows, paired

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig

Rows = Mapping[str, pd.DataFrame]
"""Model -> its rows of per_user.parquet, of one protocol and one night."""
CHALLENGER = "challenger"
LOW_POWER = 0.5
"""Chance that an equal model passes below which earlier nights are pooled."""
SLICE_LOSS, SLICE_POWER = 0.2, 0.8
"""A small slice guards where it would show a loss of this share with this probability."""


@dataclass(frozen=True)
class Comparison:
    """The challenger against the champion on one slice, or against the anchor or one baseline.

    Attributes:
        name: the slice or the model.
        users: users that both were measured on.
        challenger: the challenger's mean.
        other: the mean of what it is compared with.
        difference: challenger - other.
        relative: difference / other; None when other is 0.
        low: lower end of the difference's interval.
        high: upper end.
        guards: whether it counts.
        passed: False when it stands against promotion.
        nights: nights that the users are from; more than one where tonight's alone are too few.
        smallest_loss: smallest loss that these users can show, as a share of `other`; None when `other` is 0.
        equal_passes: probability that an equal model passes the margin on such users.
        queries: of these users, which the means are over; 0 where only users were counted.
    """

    name: str
    users: int
    challenger: float
    other: float
    difference: float
    relative: float | None
    low: float
    high: float
    guards: bool
    passed: bool
    nights: int = 1
    smallest_loss: float | None = None
    equal_passes: float = 0.0
    queries: int = 0


@dataclass(frozen=True)
class Pair:
    """The deciding metric of the challenger and of another model, user by user.

    Attributes:
        users: object [n], user ids.
        mine: float64 [n], the challenger's: each user's part of the mean over queries (`nightloom.core.metrics.parts_of_users`).
        its: float64 [n], the other's.
        same: whether both give every held-out item the same rank in the whole catalogue: as far as anyone can see, one model.
        nights: nights that the users are from.
        queries: int64 [n], queries of each user; None: one each.
    """

    users: NDArray[np.object_]
    mine: NDArray[np.float64]
    its: NDArray[np.float64]
    same: bool = False
    nights: int = 1
    queries: NDArray[np.int64] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.queries is None:
            object.__setattr__(self, "queries", np.ones(len(self.users), dtype=np.int64))

    @classmethod
    def of(cls, mine: pd.DataFrame, its: pd.DataFrame, metric: str) -> Pair:
        """From rows that hold the same held-out items."""
        found = from_frame(mine)
        a, b = (one[metric].to_numpy(dtype=np.float64) for one in (found, from_frame(its)))
        same = bool(np.array_equal(whole_ranks(mine["rank"]), whole_ranks(its["rank"])))
        return cls(found.index.to_numpy(dtype=object), a, b, same, queries=found["queries"].to_numpy(dtype=np.int64))

    def with_earlier(self, other: Pair) -> Pair:
        """These users, and those of an earlier night who are not among them."""
        fresh = ~np.isin(other.users.astype(str), self.users.astype(str))
        if not fresh.any():
            return self
        users, queries = (np.concatenate([getattr(self, name), getattr(other, name)[fresh]]) for name in ("users", "queries"))
        # Parts are of each night's own mean number of queries a user; together they are of that of all.
        each = queries.mean()
        scales = self.queries.mean() / each, other.queries.mean() / each
        mine, its = (np.concatenate([getattr(self, name) * scales[0], getattr(other, name)[fresh] * scales[1]]) for name in ("mine", "its"))
        return Pair(users, mine, its, self.same and other.same, self.nights + 1, queries)

    def difference(self, config: PromotionConfig, seed: int) -> Difference:
        """The difference of the means with its interval; users who agree on hits alone do not show that nobody would lose one."""
        metric: str = config.metric
        a, b = {metric: self.mine}, {metric: self.its}
        found = paired(a, b, queries=self.queries, confidence=config.confidence, resamples=config.resamples, seed=seed, same=self.same)
        return found[metric]

    def equal_passes(self, margin: float, confidence: float) -> float:
        """Probability that an equal model would be found not inferior within `margin`, a share of the other's mean."""
        return 1.0 if self.same else Spread.of(self.mine, self.its).probability(margin * float(self.its.mean()), confidence)


def compare(name: str, tonight: Pair, earlier: Iterator[Pair], margin: float, config: PromotionConfig, seed: int) -> Comparison:
    """The challenger against one model; earlier nights are added, the latest first, until an equal model would pass half of the time.

    Whether it `passed` is that the whole interval lies at or above -margin times the other's mean.
    """
    pair = tonight
    while pair.equal_passes(margin, config.confidence) < LOW_POWER and (before := next(earlier, None)) is not None:
        pair = pair.with_earlier(before)
    one = pair.difference(config, seed)
    return described(name, pair, one, margin, config, guards=True, passed=one.low >= -margin * one.b)


def described(name: str, pair: Pair, one: Difference, margin: float, config: PromotionConfig, *, guards: bool, passed: bool) -> Comparison:
    """A comparison with what its users could show."""
    least = Spread.of(pair.mine, pair.its).half_width(config.confidence) / one.b if one.b else None
    return Comparison(
        name,
        one.users,
        one.a,
        one.b,
        one.difference,
        one.relative,
        one.low,
        one.high,
        guards,
        passed,
        pair.nights,
        least,
        pair.equal_passes(margin, config.confidence),
        one.queries,
    )


def earlier_pairs(name: str, nights: Sequence[Rows], metric: str) -> Iterator[Pair]:
    """The challengers of earlier nights against one model, the latest night first; nights without that model are passed over."""
    for night in nights:
        if name in night and CHALLENGER in night:
            mine, its = pair_rows(night[CHALLENGER], night[name])
            if len(mine):
                yield Pair.of(mine, its, metric)


def slices_of(mine: pd.DataFrame, its: pd.DataFrame, config: PromotionConfig, seed: int) -> list[Comparison]:
    """Challenger against champion on every slice, by name; the two frames hold the same rows. See `guarded`."""
    pairs = {name: Pair.of(mine[rows], its[rows], config.metric) for name, rows in sorted(_masks(mine).items())}
    return guarded(pairs, config, seed)


def guarded(pairs: Mapping[str, Pair], config: PromotionConfig, seed: int) -> list[Comparison]:
    """Challenger against champion on every slice.

    A slice guards where it has enough users, or would show a loss of a fifth with probability .8. It stands against promotion where it
    lost more than the margin, significantly: by the paired randomisation test, with Holm's correction over all slices that guard. So
    a harmless challenger is stopped by any slice in at most 1 - confidence of the nights.
    """
    guarding = [name for name, pair in pairs.items() if _guards(pair, config)]
    p_values = [loss_p_value(pairs[name].mine - pairs[name].its) for name in guarding]
    lost = {name for name, fell in zip(guarding, holm(p_values, 1 - config.confidence), strict=True) if fell}
    found = []
    for name, pair in pairs.items():
        one = pair.difference(config, seed)
        passed = name not in lost or one.difference >= -config.slice_margin * one.b
        found.append(described(name, pair, one, config.slice_margin, config, guards=name in guarding, passed=passed))
    return found


def _guards(pair: Pair, config: PromotionConfig) -> bool:
    if len(pair.users) >= config.min_slice_users:
        return True
    return Spread.of(pair.mine, pair.its).probability(SLICE_LOSS * float(pair.its.mean()), config.confidence) >= SLICE_POWER


def _masks(frame: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Slice name -> bool [rows]: rows of the slice's users, or of its held-out items."""
    masks: dict[str, NDArray[np.bool_]] = {}
    if "slices" in frame:
        joined, names = pd.factorize(frame["slices"])
        for code, labels in enumerate(names):
            for name in filter(None, str(labels).split("|")):
                masks[name] = masks.get(name, np.zeros(len(frame), dtype=bool)) | (joined == code)
    if "item_slice" in frame:
        masks |= {str(name): (frame["item_slice"] == name).to_numpy(dtype=bool) for name in frame["item_slice"].dropna().unique()}
    return masks
