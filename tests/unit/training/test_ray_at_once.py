"""Trials of a tuning side by side on a Ray cluster of two nodes. `make test-ray` runs what is marked `cluster`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nightloom.training.budget import Budget
from tests.unit.training.test_ray import cluster, jobs
from tests.unit.training.test_search import small, trials_of, tuner, workers_in

__all__ = ["cluster"]


def under(folder: Path) -> list[Any]:
    """The jobs that train below a folder."""
    return [job for job in jobs() if (job.metadata or {}).get("run", "").startswith(str(folder))]


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_trials_train_on_the_nodes_at_once_and_a_cancel_stops_their_jobs(cluster: Any, shop: SimpleNamespace, tmp_path: Path) -> None:
    config = small(epochs=12, patience=12, launcher="ray")
    seen = set[int]()

    def cancel(number: int, line: Any) -> None:
        seen.add(number)
        if seen == {0, 1, 2}:
            raise KeyboardInterrupt

    folder, budget = tmp_path / "study", Budget(minutes=30, trials=3, at_once=2)
    with pytest.raises(KeyboardInterrupt):
        tuner(config, shop, folder, budget).run(on_epoch=cancel)
    assert [job.status for job in under(folder)].count("STOPPED") >= 1
    assert all(job.status.is_terminal() for job in under(folder))
    assert not workers_in(folder)
    tuned = tuner(config, shop, folder, budget).run()
    assert [one.state for one in tuned.attempts] == ["complete"] * 3
    assert len({one.params["training.learning_rate"] for one in trials_of(folder)}) == 3, "those that were cancelled go on"
    assert len(list((folder / "trials").iterdir())) == 3
    here = tuner(small(epochs=12, patience=12), shop, tmp_path / "here", Budget(minutes=30, trials=1)).run()
    assert tuned.given.ndcg == here.given.ndcg
