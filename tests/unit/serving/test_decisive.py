"""Which events decide together: found by trying, and true of the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import Contributions, Estimator, contributions
from nightloom.serving.reasons.coalitions import history_players
from nightloom.serving.reasons.decisive import ALIKE, FAR, TOGETHER, TRIED, VALUE, Decisive, decisive
from tests.serving_bundle import known_histories, serving_bundle


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root: Path = tmp_path_factory.mktemp("decisive")
    write_serving(serving_bundle(root / "bundle"), root / "serving")
    return Engine.open(root / "serving")


class Ranked:
    """Stands for coalitions: the item's rank is a function of the events that are gone, its worth of those that are there."""

    def __init__(self, events: int, rank: Any, worth: Any = lambda there: 0.0) -> None:
        self.events, self.rank, self.worth, self.asked = events, rank, worth, 0

    def ranks_of(self, keep: np.ndarray, rows: np.ndarray, items: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        self.asked += len(keep)
        return np.array([self.rank(set(np.flatnonzero(~keep[row]).tolist())) for row in rows])

    def log_probabilities(self, keep: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.array([[self.worth(set(np.flatnonzero(row).tolist()))] * len(items) for row in keep])


def searched(game: Any, values: list[float], first: int = 0) -> Decisive:
    """The search over a game whose ranks without one event are asked as leave-one-out has them."""
    owner, many = np.arange(game.events), len(values)
    ranks = np.array([[game.rank(gone)] for gone in [set(), *({one} for one in range(many))]])
    nothing = np.zeros((many, 1))
    alone = np.array([[game.worth({one})] for one in range(many)])
    found = Contributions(nothing, np.stack([nothing] * 2), alone, np.zeros(1), np.zeros(1), ranks)
    nobody = np.zeros(0, np.int64)
    (answer,) = decisive(game, owner, np.array([0]), nobody, found, np.array(values)[:, None], first=first)
    return answer


def test_two_that_stand_in_for_each_other_come_together() -> None:
    """Without either alone the item stays; by value the third event, which decides nothing, would come second."""
    game = Ranked(4, lambda gone: 8 if {0, 3} <= gone else 2 if 0 in gone else 1)
    found = searched(game, [0.5, 0.4, 0.3, 0.2])
    assert found.order[:2] == [0, 3]
    assert sorted(found.order) == [0, 1, 2, 3]
    assert found.ranks[frozenset({0, 3})] == 8


def test_where_nothing_decides_the_order_is_that_of_the_values_which_speak_for_the_item() -> None:
    game = Ranked(5, lambda gone: 1)
    assert searched(game, [0.1, -0.2, 0.5, 0.0, 0.3]).order == [2, 4, 0]
    assert searched(game, [0.9, 0.2, 0.5, -1.0, 0.3], first=1).order == [2, 4, 1]
    assert searched(game, [-1.0] * 5).order == []


def test_of_events_that_count_alike_the_one_that_says_more_with_those_before_it_comes_first() -> None:
    def worth(there: set[int]) -> float:
        return 2.0 if there == {1} else 3.0 if there == {1, 3} else 0.0

    game = Ranked(4, lambda gone: 1, worth)
    assert searched(game, [0.5, 0.5, 0.49, 0.49]).order[:2] == [1, 3]
    assert searched(game, [0.5, 0.3, 0.2, 0.1]).order == [0, 1, 2, 3], "values that differ count more"


def test_what_is_gone_is_not_looked_at_further() -> None:
    last = TRIED - 1
    game = Ranked(30, lambda gone: FAR + 1 if last in gone else FAR + 2 if TRIED in gone else 1)
    found = searched(game, [1.0] * 30)
    assert found.order == [last, *(event for event in range(30) if event != last)]
    assert game.asked == 0


def test_each_step_tries_a_few_and_takes_that_without_which_the_real_item_falls_furthest(engine: Engine) -> None:
    histories, moved = known_histories(12, seed=9), 0
    for at in range(12):
        game = engine.coalitions_of(histories.take(slice(at, at + 1)))
        _, owner = history_players(game.events, 50)
        scores = game.scores(np.ones((1, game.events), bool))[0].copy()
        scores[game.history.items] = -np.inf
        items = np.argsort(-scores)[:4]
        asked = game, owner, items, game.history.items
        found = contributions(*asked)
        values = found.values(Estimator())
        before = game.evaluations
        answers = decisive(*asked, found, values)
        assert game.evaluations - before <= 2 * (TOGETHER - 1) * TRIED * len(items)
        for place, one in enumerate(answers):
            speaks = [int(event) for event in np.argsort(-values[:, place], kind="stable") if values[event, place] > 0]
            assert sorted(one.order) == sorted(speaks)
            moved += one.order != speaks
            for gone, rank in one.ranks.items():
                keep = np.ones((1, game.events), bool)
                keep[0, list(gone)] = False
                assert game.outcomes(keep, items, game.history.items)[1][0, place] == rank
            for there, worth in one.alone.items():
                keep = np.zeros((1, game.events), bool)
                keep[0, list(there)] = True
                nobody = found.none[place] if len(there) == 1 else 0.0
                assert game.log_probabilities(keep, items)[0, place] == pytest.approx(nobody + worth, abs=1e-5)
            rest = speaks
            for step, event in enumerate(one.order[:TOGETHER]):
                if step and one.ranks[frozenset(one.order[:step])] > FAR:
                    break
                sets = {other: frozenset([*one.order[:step], other]) for other in rest[:TRIED]}
                size = values[:, place].max()
                counts = {other: VALUE * values[other, place] / size - 1 / np.log2(one.ranks[gone] + 1) for other, gone in sets.items()}
                alike = [other for other, count in counts.items() if count >= max(counts.values()) - ALIKE]
                assert event in alike
                assert len(alike) == 1 or one.alone[sets[event]] == max(one.alone[sets[other]] for other in alike)
                rest = [other for other in rest if other != event]
    assert moved > 10
