"""A re-ranker through a whole training run: chosen before the refit, kept in the bundle, counting what the refit knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.core.queries import Query
from nightloom.core.sequences import Sequences
from nightloom.models.heads.item_counters import KEPT_DAYS, ItemCounters, midnight
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.unit.training.conftest import N_ITEMS, write_prepared

USERS, DAY = 300, 86_400


def every_sixty_days(folder: Path) -> Any:
    """A shop in which the item bought first is bought again sixty days later, in the validation part, and once more in the test part."""
    made = write_prepared(folder)
    random = np.random.default_rng(3)
    items = np.array([random.permutation(N_ITEMS)[:6] for _ in range(USERS)])
    items = np.column_stack([items, items[:, 0], items[:, 0]]).astype(np.int32)
    between = np.sort(random.integers(60, 100, (USERS, 5)), axis=1)
    days = np.column_stack([np.full(USERS, 50), between, np.full(USERS, 110), np.full(USERS, 170)])
    offsets, n = np.arange(USERS + 1) * 8, items.size
    ends = offsets[1:] - 2, offsets[1:] - 1
    times = 1_700_000_000 + days.ravel() * DAY
    Sequences(offsets, items.ravel(), times, np.zeros(n, dtype=np.int16), np.ones(n, dtype=bool), *ends, N_ITEMS).save(
        made.prepared / "sequences_temporal.npz"
    )
    return made


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return every_sixty_days(tmp_path_factory.mktemp("again"))


def settings_of(build: Any, **model: Any) -> Any:
    config = build(epochs=1, learning_rate=1e-5, model={"scorers": ["popularity"], **model})
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"exclude_seen": False})})


def test_a_head_is_chosen_kept_and_counts_what_the_refit_knows(tmp_path: Path, settings, write_run, shop: Any) -> None:
    figures = Training(Run.load(write_run(settings_of(settings), tmp_path)), World())()
    assert figures["reranker"]["kept"]
    assert figures["reranker"]["queries"] == USERS
    recommender = Bundle.load(tmp_path / "bundle").recommender
    sequences = Sequences.load(shop.prepared / "sequences_temporal.npz")
    queries = sequences.queries("validation", exclude_seen=False)
    assert (recommender.scores(queries.histories).argmax(1) == queries.targets).mean() > 0.6
    assert recommender.reranker is not None
    known = sequences.train(with_validation=True)
    counted = recommender.reranker.item_counters.until(np.arange(N_ITEMS), np.full(N_ITEMS, midnight(known.times.max()) + 1))
    np.testing.assert_array_equal(counted, np.bincount(known.items, minlength=N_ITEMS))


def test_newer_events_are_counted_as_the_split_needs_it(tmp_path: Path, settings, write_run, shop: Any) -> None:
    """Under leave-one-out a query comes at any time: whoever counts anew keeps every event, as training does."""
    Training(Run.load(write_run(settings_of(settings), tmp_path)), World())()
    recommender = Bundle.load(tmp_path / "bundle").recommender
    known = Sequences.load(shop.prepared / "sequences_temporal.npz").train(with_validation=True)
    known = replace(known, times=known.times + 3 * (known.times - known.times.min()))  # over more days than are kept
    assert recommender.reranker is not None
    for days in (None, KEPT_DAYS):
        recommender.reranker.item_counters = before = ItemCounters.of(known, N_ITEMS, days)
        after = recommender.fit(known, N_ITEMS).reranker
        assert after is not None
        for name in before.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(after.item_counters, name), getattr(before, name), err_msg=f"{days} {name}")


def test_on_another_catalogue_known_items_keep_their_counters(tmp_path: Path, settings, write_run) -> None:
    """By the network alone: items of equal popularity would change places, since ties fall by id."""
    Training(Run.load(write_run(settings_of(settings, scorers=[]), tmp_path)), World())()
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.recommender.reranker is not None
    turned = bundle.items.iloc[::-1].reset_index(drop=True)
    other = bundle.reindex(turned, None)
    times = ([1_710_000_000, 1_710_100_000], [1_710_000_000])
    histories = bundle.histories(
        [Query(["i3", "i4"], times[0], request_time=times[0][-1]), Query(["i7"], times[1], request_time=times[1][-1])]
    )
    there = bundle.histories(  # the same items, turned
        [Query(["i26", "i25"], times[0], request_time=times[0][-1]), Query(["i22"], times[1], request_time=times[1][-1])]
    )
    np.testing.assert_allclose(other.scores(there)[:, ::-1], bundle.recommender.scores(histories), rtol=1e-4, atol=1e-4)


def test_it_can_be_switched_off(tmp_path: Path, settings, write_run) -> None:
    figures = Training(Run.load(write_run(settings_of(settings, reranker=False), tmp_path)), World())()
    assert not figures["reranker"]["kept"]
    assert Bundle.load(tmp_path / "bundle").recommender.reranker is None
