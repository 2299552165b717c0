"""Scores of the whole catalogue for many coalitions of one history's events, exactly those that the engine gives, in a few milliseconds.

A coalition is the history with the other events removed, not blanked: tokens move together, ages and gaps are those of what is left, and
fusion weights are those of its length. What makes this fast:

- coalitions are read in the order of their tokens, and each goes on from the keys and values of the beginning that it shares with the
  one before; the last block is computed for the last token alone (`coalition_vectors`);
- a scorer's scores are a few rows over the catalogue, times coefficients that depend on the coalition
  (`nightloom.serving.reasons.linear_scores`), so mean and spread are closed forms of the rows' sums and Gram matrix;
- then all is one matrix product; it depends on no item, so ten items cost what one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import RESOLUTION
from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories
from nightloom.models.scorers.score_fusion import weights_at
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.items.growing import aligned_empty
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.members import Member
from nightloom.serving.model.rerank import Reranker
from nightloom.serving.model.transformer import Network, Tokens, extend, rounded, tokens_of
from nightloom.serving.reasons.linear_scores import linear_scores
from nightloom.serving.reasons.reranking import RerankedCoalitions, spans_of

FloatArray = NDArray[np.float32]
Masks = NDArray[np.bool_]
CELLS = 4_000_000
"""Most scores (coalitions times items) in memory at once."""


class Coalitions:
    """One history of which coalitions of events are scored.

    Args:
        net: the encoder.
        max_history: most tokens that it reads.
        catalogue: the items.
        members: the scorers that have a weight, by name.
        weights: scorer -> its fusion weight for long histories; the network has the rest.
        newcomer_weights: the same scorers -> fusion weight without a history.
        reranker: reorders the best items; None without one.
        history: one history.
        allowed: bool [items], what may be recommended; the re-ranker's candidates are of these.
        lock: held while the re-ranker reads its counters, which events change.
        penalty: float32 [items], what is taken off final scores; None: nothing.

    Items and events that come later change nothing, so that another thread may go on with it.
    """

    def __init__(
        self,
        net: Network,
        max_history: int,
        catalogue: LiveCatalogue,
        members: Mapping[str, Member],
        weights: Mapping[str, float],
        newcomer_weights: Mapping[str, float],
        reranker: Reranker | None,
        history: Histories,
        allowed: NDArray[np.bool_] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        penalty: FloatArray | None = None,
    ) -> None:
        self.net, self.max_history = net, max_history
        self.history = subsets(history, np.ones((1, len(history.items)), dtype=np.bool_))
        self._vectors = catalogue.vectors
        self._mean, self._covariance = catalogue.mean, catalogue.covariance
        self.weights, self.newcomer_weights, self.reranker = weights, newcomer_weights, reranker
        self.penalty = penalty
        self._open = catalogue.open_to(allowed)
        self._tokens = tokens_of(self.history, self.events + 1, timed=len(net.gaps) > 0)
        self._parts = {name: linear_scores(member, self.history, len(catalogue)) for name, member in members.items()}
        self._rows = np.concatenate([np.zeros((0, len(catalogue)), np.float32), *(part.rows for part in self._parts.values())])
        self._reranked: RerankedCoalitions | None = None
        if reranker is not None:
            spans = spans_of(reranker.members, {name: len(part.rows) for name, part in self._parts.items()})
            known = self._vectors, self._rows, spans, self._open
            self._reranked = RerankedCoalitions(reranker, self.history, *known, lock or nullcontext())
        self.evaluations = 0
        """Coalitions that were scored so far."""

    @property
    def events(self) -> int:
        """Events of the history."""
        return len(self.history.items)

    def scores(self, keep: Masks) -> FloatArray:
        """Final scores of the catalogue, float32 [coalitions, items]: log-odds with a re-ranker, else fused scores.

        Args:
            keep: bool [coalitions, events], the events that take part.
        """
        self.evaluations += len(keep)
        users = self._user_vectors(keep)
        lengths = keep.sum(1)
        weights = weights_at(self.weights, self.newcomer_weights, lengths)
        own = np.ones(len(keep), np.float32) - sum(weights.values(), np.zeros(len(keep), np.float32))
        wide = users.astype(np.float64)
        centre = wide @ self._mean
        slope = _one_over(centre, np.sqrt(np.maximum(np.einsum("nd,nd->n", wide @ self._covariance, wide), 0)))
        fused: FloatArray = np.matmul(users * (own * slope).astype(np.float32)[:, None], self._vectors.T)
        shift: NDArray[np.float64] = own * slope * centre
        found = {name: part.coefficients(keep) for name, part in self._parts.items()}
        moments = {"network": (centre, slope)}
        factors = []
        for name, part in self._parts.items():
            mean, std = part.moments(found[name])
            moments[name] = mean, _one_over(mean, std)
            scale = weights[name] * moments[name][1]
            factors.append(found[name] * scale[:, None])
            shift = shift + scale * mean
        if factors:
            fused += np.concatenate(factors, axis=1, dtype=np.float32) @ self._rows
        fused -= shift.astype(np.float32)[:, None]
        if self._reranked is not None:
            coefficients = np.concatenate([np.zeros((len(keep), 0)), *found.values()], axis=1)
            means, slopes = (np.column_stack([moments[name][which] for name in self._reranked.members]) for which in (0, 1))
            fused = self._reranked(fused, keep, users, coefficients, means, slopes)
        if self.penalty is not None:
            fused -= self.penalty
        return fused

    def log_probabilities(self, keep: Masks, items: NDArray[np.integer]) -> NDArray[np.float64]:
        """Worth of items for coalitions, float64 [coalitions, items]: the logarithm of the softmax of final scores over the catalogue."""
        return np.concatenate([log_softmax(scores, items) for scores in self._blocks(keep)])

    def outcomes(
        self, keep: Masks, items: NDArray[np.integer], hidden: NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Worth of items for coalitions, and their ranks, [coalitions, items] both.

        Args:
            keep: bool [coalitions, events].
            items: dense items.
            hidden: items that are left out of the ranking, besides those that may not be recommended.
        """
        worth, ranks = [], []
        for scores in self._blocks(keep):
            worth.append(log_softmax(scores, items))
            ranks.append(self.ranks(scores, items, hidden))
        return np.concatenate(worth), np.concatenate(ranks)

    def ranks(self, scores: FloatArray, items: NDArray[np.integer], hidden: NDArray[np.integer]) -> NDArray[np.int64]:
        """Ranks of items by each row of `scores`, int64 [n, items]: 1 is best, ties by dense id; arguments as in `outcomes`."""
        places = self._rivals(hidden)
        theirs = scores[:, places]
        return np.stack([ranks_among(theirs, places, scores[:, item], item) for item in items.tolist()], axis=1)

    def ranks_of(
        self, keep: Masks, rows: NDArray[np.integer], items: NDArray[np.integer], hidden: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Rank of one item for each of some coalitions, int64 [n].

        Args:
            keep: bool [coalitions, events].
            rows: [n], whose coalition it is, ascending.
            items: dense items, [n].
            hidden: as in `outcomes`.
        """
        places = self._rivals(hidden)
        found, first = np.empty(len(rows), np.int64), 0
        for scores in self._blocks(keep):
            theirs = scores[:, places]
            for at in range(*np.searchsorted(rows, [first, first + len(scores)])):
                row, item = slice(rows[at] - first, rows[at] - first + 1), int(items[at])
                found[at] = ranks_among(theirs[row], places, scores[row, item], item)[0]
            first += len(scores)
        return found

    def _rivals(self, hidden: NDArray[np.integer]) -> NDArray[np.int64]:
        """The items that take part in a ranking, ascending; `hidden` as in `outcomes`."""
        rivals = self._open.copy()
        rivals[hidden] = False
        return np.flatnonzero(rivals)

    def _blocks(self, keep: Masks) -> Iterator[FloatArray]:
        """`scores` of so many coalitions at a time as memory allows; at least one block."""
        step = max(1, CELLS // max(len(self._vectors), 1))
        for at in range(0, max(len(keep), 1), step):
            yield self.scores(keep[at : at + step])

    def _user_vectors(self, keep: Masks) -> FloatArray:
        found = np.empty((len(keep), self.net.shape[1]), np.float32)
        room, (blocks, dim) = rounded(min(self.events + 1, self.max_history)), self.net.shape
        order = np.lexsort((~keep).T[::-1]) if self.events else np.arange(len(keep))  # like beginnings side by side
        keys, values = aligned_empty((blocks, dim, room)), aligned_empty((blocks, room, dim))
        now = int(self._tokens.asked[-1])
        coalition_vectors(self.net, self._vectors, self._tokens, keep, order, self.max_history, now, keys, values, found)
        return found


def history_players(events: int, most: int) -> tuple[int, NDArray[np.int64]]:
    """The players: each of the latest `most` events, and all older events together as one player, the first.

    Returns:
        The number of older events, and int64 [events], the player of each event.
    """
    older = max(0, events - most)
    return older, np.concatenate([np.zeros(older, dtype=np.int64), np.arange(events - older) + (older > 0)])


def log_softmax(scores: FloatArray, items: NDArray[np.integer]) -> NDArray[np.float64]:
    """Logarithm of the softmax over all columns, of some columns, float64 [n, items]."""
    highest = scores.max(1, keepdims=True)
    total = np.exp(scores - highest).sum(1, dtype=np.float64)
    return scores[:, items].astype(np.float64) - highest - np.log(total)[:, None]


def subsets(history: Histories, keep: Masks) -> Histories:
    """Copies of one history with some of its events removed, and the same request; `keep` is bool [n, events]."""
    flat = np.nonzero(keep)[1]
    links = None if history.links is None else history.links.take(np.zeros(len(keep), dtype=np.int64))
    asked = np.repeat(history.request_time, len(keep))
    return replace(history.of_events(flat, offsets_of(keep.sum(1))), request_time=asked, links=links)


def _one_over(mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `nightloom.serving.model.scoring.usable`, of many."""
    varies = std > RESOLUTION * np.hypot(mean, std)
    return np.where(varies, 1 / np.where(varies, std, 1), 1)


def ranks_among(theirs: FloatArray, places: NDArray[np.int64], mine: FloatArray, item: int) -> NDArray[np.int64]:
    """Ranks of one item, int64 [n]: 1 is best, ties by dense id.

    Args:
        theirs: float32 [n, rivals], scores of the items that take part.
        places: int64 [rivals], these items, ascending.
        mine: float32 [n], the item's scores.
        item: the item, dense; it may be among them.
    """
    split = np.searchsorted(places, item)
    before, after = theirs[:, :split] >= mine[:, None], theirs[:, split:] > mine[:, None]
    return 1 + np.count_nonzero(before, axis=1) + np.count_nonzero(after, axis=1)


@kernel
def coalition_vectors(
    net: Any, vectors: Any, tokens: Any, keep: Any, order: Any, max_history: Any, now: Any, keys: Any, values: Any, out: Any
) -> None:
    """User vectors of coalitions of one history.

    Args:
        net: `Network`.
        vectors: `Rows` of the items.
        tokens: `Tokens` of the whole history, BOS first.
        keep: bool [coalitions, events].
        order: int64 [coalitions], in which they are read: neighbours share long beginnings.
        max_history: most tokens of a window.
        now: time of the request.
        keys: float32 [blocks, dim, room], scratch.
        values: float32 [blocks, room, dim], scratch.
        out: float32 [coalitions, dim], written.
    """
    events = keep.shape[1]
    before, places, many_before = np.empty(events + 1, np.int64), np.empty(events + 1, np.int64), 0
    for row in order:
        many = 1
        places[0] = 0
        for event in range(events):
            if keep[row, event]:
                places[many] = event + 1
                many += 1
        first = max(many - max_history, 0)
        window = places[first:many]
        size = many - first
        shared = 0
        while shared < min(size, many_before) and window[shared] == before[shared]:
            shared += 1
        asked = np.empty(size, np.int64)
        asked[: size - 1] = tokens.times[window[1:]]
        asked[size - 1] = now
        part = Tokens(tokens.items[window], tokens.codes[window], tokens.negative[window], tokens.times[window], asked)
        out[row] = extend(net, vectors, part, max(shared - 1, 0), keys, values, True)  # another token follows the last shared one
        before[:size] = window
        many_before = size
