"""Tuning: a study of real trainings: what it finds, what it cuts short, and how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import psutil
import pytest

from nightloom.config import RunConfig, config_from_dict, load_config
from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.core.threads import cores
from nightloom.training.budget import Budget
from nightloom.training.launch import LEAST_ALLOWED, WORKERS_A_CORE
from nightloom.training.search import Tuned, Tuner
from nightloom.training.search_space import SPACE, Choice, Range, space_of, value_of, with_values, write_preset
from tests.waiting import until

TRIALS = Budget(minutes=30, trials=2)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return small(epochs=2, patience=2)


def small(**training: Any) -> RunConfig:
    sections = {
        "model": {"dim": 16, "blocks": 1, "heads": 2, "max_history": 6},
        "training": {"batch_users": 8, "workers": 1, "learning_rate": 0.01} | training,
    }
    return config_from_dict({"name": "shop", "data": {"events": "e.csv"}, **sections})


def tuner(config: RunConfig, shop: SimpleNamespace, folder: Path, budget: Budget = TRIALS) -> Tuner:
    return Tuner(config, shop.prepared, shop.pretrained, folder, budget)


def own(config: RunConfig) -> dict[str, Any]:
    return {part.key: value_of(config, part.key) for part in space_of(config)}


def trials_of(folder: Path) -> list[Any]:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db").trials


def workers_in(folder: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if any(str(folder) in part for part in one.info["cmdline"] or [])]


@pytest.fixture(scope="module")
def done(config: RunConfig, shop: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    folder = tmp_path_factory.mktemp("done") / "study"
    return folder, tuner(config, shop, folder).run()


@pytest.fixture
def study(done: tuple[Path, Tuned], tmp_path: Path) -> tuple[Path, Tuned]:
    """A copy of a study of two trials."""
    return Path(shutil.copytree(done[0], tmp_path / "study")), done[1]


def test_the_first_trial_is_the_config_as_given_and_the_best_is_at_least_as_good(
    config: RunConfig, shop: SimpleNamespace, study: tuple[Path, Tuned]
) -> None:
    folder, tuned = study
    assert tuned.given.values == own(config)
    assert len(tuned.attempts) == 2
    assert tuned.best.ndcg is not None
    assert tuned.best.ndcg >= (tuned.given.ndcg or 0.0)
    assert [line["epoch"] for line in tuned.given.curve] == [1, 2]
    assert not list(folder.rglob("bundle"))
    # Asked again it has nothing left to do; a larger budget goes on; another config is refused, since trials would not compare.
    assert tuner(config, shop, folder).run() == tuned
    with pytest.raises(InputError, match="--study"):
        tuner(with_values(config, {"training.epochs": 3}), shop, folder).run()


def test_a_trial_that_falls_behind_is_cut_and_its_workers_end(config: RunConfig, shop: SimpleNamespace, study: tuple[Path, Tuned]) -> None:
    folder, before = study
    seen: list[Any] = []

    def on_epoch(number: int, line: Any) -> None:
        seen.append((number, line["epoch"]))

    long = Budget(minutes=30, trials=3)
    hopeless = optuna.pruners.ThresholdPruner(lower=2.0)  # no NDCG is as good
    tuned = tuner(config, shop, folder, long).run(on_epoch=on_epoch, pruner=hopeless)
    assert tuned.attempts[:2] == before.attempts
    cut = tuned.attempts[2]
    assert (cut.state, cut.ndcg) == ("pruned", None)
    assert seen == [(2, 1)]
    assert not workers_in(folder)
    assert tuned.best == before.best


def test_trials_side_by_side_once_the_config_as_given_has_trained(config: RunConfig, shop: SimpleNamespace, tmp_path: Path) -> None:
    """Each has a folder, workers and a share of the cores of its own, and what is told of them comes one after the other."""
    told: list[tuple[int, int]] = []
    heard, threads = set[int](), set[str]()

    def on_epoch(number: int, line: Any) -> None:
        told.append((number, line["epoch"]))
        heard.add(threading.get_ident())
        for worker in workers_in(folder):
            with suppress(psutil.Error):  # it has ended
                threads.add(worker.environ()["OMP_NUM_THREADS"])

    folder = tmp_path / "study"
    tuned = tuner(config, shop, folder, Budget(minutes=30, trials=4, at_once=3)).run(on_epoch=on_epoch)
    assert [(one.number, one.state) for one in tuned.attempts] == [(number, "complete") for number in range(4)]
    assert told[:2] == [(0, 1), (0, 2)]
    assert sorted(told) == [(number, epoch) for number in range(4) for epoch in (1, 2)]
    assert heard == {threading.get_ident()}
    assert threads == {str(max(1, cores() // 3))}
    began = sorted(one.datetime_start for one in trials_of(folder))
    ended = sorted(one.datetime_complete for one in trials_of(folder))
    assert ended[0] < began[1]
    assert began[3] < ended[1], "the three others were under way at once"
    assert tuner(config, shop, folder).run().best == tuned.best  # it goes on one by one, and has nothing left to do


def test_far_more_trainings_than_cores_are_refused_at_once(config: RunConfig, shop: SimpleNamespace, tmp_path: Path) -> None:
    crowd = max(LEAST_ALLOWED, WORKERS_A_CORE * cores()) + 1
    with pytest.raises(InputError, match=f"--at-once {crowd}, training.workers 1: {crowd} processes"):
        tuner(config, shop, tmp_path / "study", Budget(minutes=30, at_once=crowd)).run()
    assert not (tmp_path / "study").exists()
    fewer = Budget(minutes=30, trials=1, at_once=crowd)  # of which one alone ever trains
    assert len(tuner(config, shop, tmp_path / "study", fewer).run().attempts) == 1


def test_a_cancel_ends_all_that_are_under_way(shop: SimpleNamespace, tmp_path: Path) -> None:
    folder, long = tmp_path / "study", small(epochs=30, patience=30)
    under_way = set[int]()

    def on_epoch(number: int, line: Any) -> None:
        under_way.add(number)
        if under_way == {0, 1, 2}:
            raise KeyboardInterrupt

    budget = Budget(minutes=30, trials=3, at_once=2)
    with pytest.raises(KeyboardInterrupt):
        tuner(long, shop, folder, budget).run(on_epoch=on_epoch)
    assert not workers_in(folder)
    assert [one.state.name for one in trials_of(folder)] == ["COMPLETE", "RUNNING", "RUNNING"]
    # Asked again, both go on in their folders.
    assert len(tuner(long, shop, folder, budget).run().attempts) == 3
    _, *cut, third, fourth = trials_of(folder)
    assert [one.params for one in cut] == [third.params, fourth.params]
    assert len(list((folder / "trials").iterdir())) == 3


def test_time_that_is_up_ends_the_trial_under_way_but_never_the_first(config: RunConfig, shop: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    tuned = tuner(config, shop, folder, Budget(minutes=1e-6)).run()
    assert [one.state for one in tuned.attempts] == ["complete"]
    spent = tuned.given.seconds / 60
    again = tuner(config, shop, folder, Budget(minutes=spent + 1e-6)).run()
    assert [one.state for one in again.attempts] == ["complete"]
    assert not workers_in(folder)
    # The trial that was under way is not lost: with more time it goes on.
    further = tuner(config, shop, folder, TRIALS).run()
    assert len(list((folder / "trials").iterdir())) == len(further.attempts) == 2


def test_a_first_trial_that_was_cancelled_with_no_time_left_comes_to_its_end(
    config: RunConfig, shop: SimpleNamespace, tmp_path: Path
) -> None:
    def cancel(number: int, line: Any) -> None:
        raise KeyboardInterrupt

    folder, none_left = tmp_path / "study", Budget(minutes=1e-6)
    with pytest.raises(KeyboardInterrupt):
        tuner(config, shop, folder, none_left).run(on_epoch=cancel)
    assert [(one.state.name, "seconds" in one.user_attrs) for one in trials_of(folder)] == [("RUNNING", True)]
    assert [one.state for one in tuner(config, shop, folder, none_left).run().attempts] == ["complete"]


def test_a_trial_that_is_found_done_gives_no_time_back(config: RunConfig, shop: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    given = tuner(config, shop, folder, Budget(minutes=30, trials=1)).run().given
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db")
    study.enqueue_trial(dict(given.values))  # as one is that was killed between its training and its end
    assert len(tuner(config, shop, folder, TRIALS).run().attempts) == 2
    tuner(config, shop, folder, Budget(minutes=given.seconds / 120)).run()
    assert len(trials_of(folder)) == 2


@pytest.mark.timeout(300)
def test_trials_that_fail_before_their_first_epoch_spend_time(
    config: RunConfig, shop: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    before = tuner(config, shop, folder, Budget(minutes=30, trials=1)).run()
    monkeypatch.setenv("PYTHONHASHSEED", "refused")  # with which no worker starts
    tuned = tuner(config, shop, folder, Budget(minutes=(before.given.seconds + 1) / 60, at_once=2)).run()
    assert tuned.attempts == before.attempts
    failed = trials_of(folder)[1:]
    assert {one.state.name for one in failed} == {"FAIL"}
    assert all(one.user_attrs["seconds"] > 0 for one in failed)


@pytest.mark.parametrize(
    "given",
    [{"minutes": 0}, {"minutes": float("nan")}, {"minutes": 1, "trials": 0}, {"minutes": 1, "seeds": 0}, {"minutes": 1, "at_once": 0}],
)
def test_a_budget_with_which_nothing_is_tried_is_refused_by_its_name(given: dict[str, Any]) -> None:
    *_, (name, number) = given.items()
    with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} {number:g}: nothing"):
        Budget(**given)


def test_the_mean_of_several_seeds_counts_where_asked_for(config: RunConfig, shop: SimpleNamespace, tmp_path: Path) -> None:
    tuned = tuner(config, shop, tmp_path / "study", Budget(minutes=30, trials=1, seeds=2)).run()
    alone = [json.loads(path.read_text())["validation_ndcg_at_10"] for path in tmp_path.rglob("figures.json")]
    assert len(alone) == 2
    assert tuned.given.ndcg == pytest.approx(np.mean(alone))


def test_the_held_out_test_part_changes_nothing(
    config: RunConfig, shop: SimpleNamespace, tmp_path: Path, study: tuple[Path, Tuned]
) -> None:
    prepared = Path(shutil.copytree(shop.prepared, tmp_path / "prepared"))
    sequences = Sequences.load(prepared / "sequences_streaming.npz")
    items = sequences.items.copy()
    items[sequences.offsets[1:] - 1] = 0  # each user's last event is the test
    replace(sequences, items=items).save(prepared / "sequences_streaming.npz")
    other = Tuner(config, prepared, shop.pretrained, tmp_path / "other", Budget(30, 1)).run()
    assert other.given.ndcg == study[1].given.ndcg


def test_the_space_becomes_a_config(config: RunConfig) -> None:
    assert {type(part) for part in SPACE} == {Range, Choice}
    space = {part.key: part for part in space_of(config)}
    assert "training.lm_learning_rate" not in space  # the language model is frozen
    assert 16 in space["model.dim"].values  # type: ignore[union-attr]  # the config's own
    wide = with_values(config, {"model.heads": 16, "model.dropout": 0.9, "training.tuning": "lora"})
    space = {part.key: part for part in space_of(wide)}
    assert all(value % 16 == 0 for value in space["model.dim"].values)  # type: ignore[union-attr]
    assert space["model.dropout"].high == 0.9  # type: ignore[union-attr]
    assert "training.lm_learning_rate" in space
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    values = {part.key: part.suggest(trial) for part in space_of(config)}
    assert own(with_values(config, values)) == values


def test_a_preset_reads_back_as_what_was_found(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "e.csv").touch()
    (tmp_path / "shop.yaml").write_text("name: shop\ndata: {events: e.csv}\n")
    mine, values = load_config(tmp_path / "shop.yaml"), {"training.learning_rate": 0.00123456789, "model.dim": 64, "model.dropout": 0.31}
    write_preset(tmp_path / "best.yaml", mine, values, "Found by a study.\nSecond line.")
    assert load_config(tmp_path / "best.yaml") == with_values(mine, values)
    text = (tmp_path / "best.yaml").read_text()
    assert text.startswith("# Found by a study.\n# Second line.\n")
    assert "events: e.csv" in text  # the folder can be moved
    assert "dim: 64" in text  # said although it is the default: defaults may change


KILLED = """
import sys
from pathlib import Path
from nightloom.config import load_config
from nightloom.training.budget import Budget
from nightloom.training.search import Tuner
config, prepared, pretrained, folder = sys.argv[1:]
Tuner(load_config(config), Path(prepared), Path(pretrained), Path(folder), Budget(30, 2)).run()
"""


def test_a_killed_study_goes_on_where_it_was(shop: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_preset(tmp_path / "slow.yaml", small(epochs=40, patience=40), {}, "slow")
    arguments = [str(tmp_path / "slow.yaml"), str(shop.prepared), str(shop.pretrained), str(folder)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], env=env)
    until(lambda: list(folder.glob("trials/*/seed-0/curves.jsonl")) or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    until(lambda: not workers_in(folder / "trials"))
    config = load_config(tmp_path / "slow.yaml")
    tuned = tuner(config, shop, folder, Budget(30, 1)).run()
    (home,) = (folder / "trials").iterdir()
    assert tuned.given.values == own(config)
    assert [line["epoch"] for line in tuned.given.curve] == list(range(1, 41))
    stored = optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db")
    assert [trial.state.name for trial in stored.trials] == ["FAIL", "COMPLETE"]
    assert stored.trials[0].user_attrs["folder"] == stored.trials[1].user_attrs["folder"] == home.name
