"""The item table of a large catalogue: rows that catch up are those of dense Adam."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nightloom.training import item_table
from nightloom.training.item_table import ItemTable
from nightloom.training.optimizer import make_optimizer

ROWS, DIM, STEPS = 40, 8, 300


def dense(start: torch.Tensor, steps: list[tuple[np.ndarray, torch.Tensor, float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and their average after steps of the optimizer that all other weights have."""
    weight = torch.nn.Parameter(start.clone())
    optimizer = make_optimizer("adamw", [{"params": [weight], "lr": 0.0, "weight_decay": 0.0}])
    average = start.clone()
    for number, (rows, gradient, rate, decay) in enumerate(steps, start=1):
        weight.grad = torch.zeros_like(start).index_copy_(0, torch.from_numpy(rows), gradient)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        get_ema_multi_avg_fn(decay)([average], [weight.detach()], number)
    return weight.detach(), average


def drawn() -> tuple[torch.Tensor, list[tuple[np.ndarray, torch.Tensor, float, float]]]:
    """A table, and steps that need a few rows each; the first and the last row are never learned from."""
    random = np.random.default_rng(5)
    steps = []
    for number in range(1, STEPS + 1):
        rows = np.sort(1 + random.choice(ROWS - 2, 4, replace=False))
        gradient = torch.from_numpy(random.normal(scale=0.1, size=(4, DIM)).astype(np.float32))
        steps.append((rows, gradient, 0.01 * min(1, number / 50), min(0.99, number / (number + 9))))
    return torch.from_numpy(random.normal(size=(ROWS, DIM)).astype(np.float32)), steps


def learn(table: ItemTable, rows: np.ndarray, gradient: torch.Tensor, rate: float, decay: float) -> torch.Tensor:
    """One step; gives the rows as they were before it."""
    given = table.fetch(rows)
    assert given.rows.tolist() == [0, *rows.tolist()]
    given.weights.grad = torch.cat([torch.zeros(1, DIM), gradient])
    table.step(given, rate, decay)
    return given.weights.detach()[given.place]


def test_rows_that_were_left_behind_end_where_dense_adam_ends(monkeypatch) -> None:
    monkeypatch.setattr(item_table, "BLOCK_ROWS", 16)
    start, steps = drawn()
    table = ItemTable(start.clone())
    for number, one in enumerate(steps):
        learn(table, *one)
        if number == 99:
            table.settle()
    table.settle()
    weight, average = dense(start, steps)
    assert torch.allclose(table.weight, weight, atol=2e-5)
    assert torch.allclose(table.average, average, atol=2e-5)
    assert torch.equal(table.weight[-1], start[-1])
    assert (weight - start).abs()[1:-1].mean() > 0.1, "there was something to learn"


def test_a_row_is_up_to_date_when_it_is_fetched() -> None:
    start, steps = drawn()
    table = ItemTable(start.clone())
    for number, one in enumerate(steps[:150]):
        before = learn(table, *one)
        if number % 25 == 24:
            assert torch.allclose(before, dense(start, steps[:number])[0][torch.from_numpy(one[0])], atol=1e-5)


def test_a_table_goes_on_from_its_state() -> None:
    start, steps = drawn()

    def run(table: ItemTable, some: list) -> None:
        for one in some:
            learn(table, *one)
        table.settle()

    whole = ItemTable(start.clone())
    run(whole, steps[:120])
    again = ItemTable(whole.weight.clone())
    again.average.copy_(whole.average)
    again.load(whole.state())
    run(whole, steps[120:])
    run(again, steps[120:])
    assert torch.equal(whole.weight, again.weight)
    assert torch.equal(whole.average, again.average)
