from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nightloom.config import TrainingConfig
from nightloom.core.sequences import Histories
from nightloom.models.sequential.batches import FIRST_SEED, MASK_ROWS, dropout_masks, mask_rows, plan_epoch
from nightloom.models.sequential.windows import BOS, NO_TARGET, Windows


@given(st.lists(st.lists(st.booleans(), max_size=30), min_size=1, max_size=8), st.integers(1, 7), st.integers(0, 5))
def test_each_positive_event_is_asked_for_exactly_once_and_only_from_what_came_before(positives: list, most: int, seed: int) -> None:
    lists = [list(range(100 * user, 100 * user + len(marks))) for user, marks in enumerate(positives)]
    histories = Histories.of_items(lists)
    histories = Histories(
        histories.offsets,
        histories.items,
        histories.items.astype(np.int64),
        histories.event_types,
        np.array([mark for marks in positives for mark in marks], dtype=bool),
        histories.request_time,
    )
    windows = Windows.to_train(histories, most, np.random.default_rng(seed))
    assert sorted(windows.targets[windows.targets != NO_TARGET]) == sorted(histories.items[histories.positive])
    assert (windows.lengths <= most).all()
    for window in range(len(windows)):
        one = windows.take(np.array([window]))
        assert one.n_targets > 0
        for item, target in zip(one.items, one.targets, strict=True):
            if target != NO_TARGET:  # items are numbered in time order, user by user
                assert (item == BOS and target % 100 == 0) or item == target - 1
        np.testing.assert_array_equal(one.request_times[one.targets != NO_TARGET], one.targets[one.targets != NO_TARGET])


def test_an_empty_history_is_asked_from_bos_alone() -> None:
    windows = Windows.to_answer(Histories.of_items([[], [4, 5, 6]], request_time=9), 2)
    assert windows.items.tolist() == [BOS, 5, 6]
    assert windows.request_times.tolist()[-1] == 9


def test_no_events_at_all_can_be_asked() -> None:
    windows = Windows.to_answer(Histories.of_items([[], []]), 5)
    assert windows.items.tolist() == [BOS, BOS]


def test_a_plan_has_every_window_once() -> None:
    plan = plan_epoch(np.arange(1, 24), 5, np.random.default_rng(0))
    assert sorted(np.concatenate(plan)) == list(range(23))
    assert max(map(len, plan)) == 5


def test_dropout_of_a_window_does_not_depend_on_its_company() -> None:
    windows = Windows.to_answer(Histories.of_items([[1, 2], [3], [4, 5, 6]]), 9)
    cpu = torch.device("cpu")
    together = dropout_masks(windows, 3, 4, 0.5, 11, cpu, run_seed=7)
    alone = dropout_masks(windows.take(np.array([2])), 3, 4, 0.5, 11, cpu, run_seed=7)
    torch.testing.assert_close(together[:, -4:], alone)
    assert set(together.unique().tolist()) == {0.0, 2.0}
    assert dropout_masks(windows, 3, 4, 0.0, 11, cpu, run_seed=7) is None
    filled = dropout_masks(windows, 3, 4, 0.5, 11, cpu, fillers=2, run_seed=7)
    torch.testing.assert_close(filled[:, :-2], together)
    assert not filled[:, -2:].any()


def test_runs_of_other_seeds_have_other_masks() -> None:
    windows, cpu = Windows.to_answer(Histories.of_items([[1, 2], [3], [4, 5, 6]]), 9), torch.device("cpu")
    rows = [mask_rows(64, 0.5, seed, cpu)[:-1] for seed in (7, 8, 1_000_007)]
    for one, other in combinations(rows, 2):
        assert 0.45 < float((one == other).float().mean()) < 0.55  # as often alike as two coins
    masks = [dropout_masks(windows, 3, 64, 0.5, 11, cpu, run_seed=seed) for seed in (7, 7, 8)]
    torch.testing.assert_close(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_masks_of_the_default_seed_are_those_that_results_were_measured_by() -> None:
    assert TrainingConfig().seed == FIRST_SEED
    before = torch.rand(MASK_ROWS + 1, 64, generator=torch.Generator().manual_seed(64)) >= 0.2
    torch.testing.assert_close(mask_rows(64, 0.2, FIRST_SEED, torch.device("cpu"))[:-1], before[:-1].float() / 0.8)
