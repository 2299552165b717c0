"""The label head through training: learnt in retrieval's loss, alike for any number of workers, calibrated, and no change without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nightloom.core.click_metrics import auc
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.evaluation.labels import measure_labels
from nightloom.models.sequential.windows import Windows
from nightloom.packaging.bundle import Bundle
from nightloom.report.parts import labelled
from nightloom.training.distributed import World
from nightloom.training.label_task import LabelTask, both_labels, calibrate
from nightloom.training.remap_weights import IDS
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from nightloom.training.warm_start import WarmStart
from tests.unit.training.conftest import N_ITEMS, write_prepared

USERS, EVENTS = 80, 12


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Readers of whom half like nearly all that they read and half nearly nothing, which their own labels say and nothing else does."""
    made = write_prepared(tmp_path_factory.mktemp("liked"))
    random = np.random.default_rng(5)
    items = ((random.integers(0, N_ITEMS, (USERS, 1)) + np.arange(EVENTS)) % N_ITEMS).astype(np.int32)
    positive = random.random(items.shape) < np.where(random.random((USERS, 1)) < 0.5, 0.95, 0.05)
    hours = np.cumsum(random.integers(1, 9, items.shape), axis=1)
    offsets, times = np.arange(USERS + 1) * EVENTS, 1_700_000_000 + 3600 * hours.ravel()
    for protocol in ("temporal", "leave_one_out"):
        Sequences(
            offsets, items.ravel(), times, np.zeros(items.size, dtype=np.int16), positive.ravel(), offsets[1:] - 4, offsets[1:] - 2, N_ITEMS
        ).save(made.prepared / f"sequences_{protocol}.npz")
    return made


def trained(config: Any, write_run: Any, out: Path, protocol: str = "temporal") -> dict[str, Any]:
    return Training(Run.load(write_run(config, out, protocol)), World())()


def test_tastes_are_learnt_and_their_chances_kept(tmp_path: Path, settings, write_run, shop: Any) -> None:
    quick = {"epochs": 12, "patience": 12, "model": {"scorers": [], "reranker": False, "max_history": 14}}
    trained(settings(label_weight=1.0, **quick), write_run, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    search = [line["label_loss"] for line in lines if line["phase"] == "search"]
    assert search[-1] < search[0] - 0.1
    assert all("label_loss" not in line for line in json.loads((tmp_path / "curves.json").read_text()))
    recommender = Bundle.load(tmp_path / "bundle").recommender
    sequences = Sequences.load(shop.prepared / "sequences_temporal.npz")
    asked = LabelQuestions.of(sequences, "test")
    probabilities = recommender.probabilities(asked.histories, asked.owner, asked.items)
    assert auc(asked.positive, probabilities) > 0.8
    found = measure_labels(recommender, sequences, tmp_path / "labels.png", "Probabilities")
    assert found["auc"] == auc(asked.positive, probabilities)
    assert f"AUC {found['auc']:.3f}" in labelled({"label_probabilities": found})
    assert labelled({}) == ""
    forgotten = replace(asked.histories, positive=np.ones_like(asked.histories.positive))
    assert auc(asked.positive, recommender.probabilities(forgotten, asked.owner, asked.items)) < 0.65


def test_leave_one_out_calibrates_nothing(tmp_path: Path, settings, write_run, shop: Any) -> None:
    trained(settings(label_weight=0.5, epochs=1, model={"scorers": []}), write_run, tmp_path, "leave_one_out")
    recommender = Bundle.load(tmp_path / "bundle").recommender
    assert recommender.net.label_head is not None
    assert recommender.labels is None


def test_a_step_is_the_same_for_one_worker_and_for_many(tmp_path: Path, settings, write_run, shop: Any) -> None:
    training = Training(Run.load(write_run(settings(label_weight=0.7, model={"dropout": 0.2}), tmp_path)), World())
    _, fitter = training._start(training.sequences.train(), 0)
    task = fitter.labels
    assert task is not None
    windows = Windows.to_train(fitter.histories, 6, np.random.default_rng(0), labels=True)
    batch = windows.take(np.arange(9))
    fitter.net.train()
    whole = fitter._losses(batch, batch, fitter.white, 3)
    parts = [fitter._losses(batch, batch.take(np.arange(rank, len(batch), 2)), fitter.white, 3) for rank in range(2)]
    for place in range(2):
        assert sum(part[place].item() for part in parts) == pytest.approx(whole[place].item(), rel=1e-5)
    asked = np.concatenate([windows.following[task.asked(windows)]])
    assert len(np.unique(asked)) == len(asked) <= len(fitter.histories.items)
    assert set(np.flatnonzero(fitter.histories.positive)) & set(asked) != set()
    assert (windows.targets[task.asked(windows)] == -1).any(), "events in negative are asked about too"


def test_without_two_labels_there_is_no_task(tmp_path: Path, settings, write_run, shop: Any) -> None:
    training = Training(Run.load(write_run(settings(label_weight=0.7), tmp_path)), World())
    histories = training.sequences.train()
    liked = replace(histories, positive=np.ones_like(histories.positive))
    assert both_labels(histories)
    assert not both_labels(liked)
    assert not both_labels(Histories.of_items([]))
    recommender, fitter = training._start(liked, 0)
    assert LabelTask.of(recommender.net, liked, N_ITEMS, 7) is None
    assert np.isfinite(fitter.run_epoch())
    assert fitter.label_loss is None
    assert calibrate(recommender, training.sequences, liked, 0) is None


def test_sampled_negatives_know_the_items_that_are_asked_about(tmp_path: Path, settings, write_run, shop: Any) -> None:
    training = Training(Run.load(write_run(settings(label_weight=0.7, negatives=3), tmp_path)), World())
    _, fitter = training._start(training.sequences.train(), 0)
    assert np.isfinite(fitter.run_epoch())
    assert fitter.label_loss is not None
    assert 0 < fitter.label_loss < 2


def test_a_champion_without_a_head_leaves_it_as_it_was(tmp_path: Path, settings, write_run, shop: Any) -> None:
    training = Training(Run.load(write_run(settings(label_weight=0.7), tmp_path)), World())
    recommender, _ = training._start(training.sequences.train(), 0)
    state = {name: value.clone() for name, value in recommender.net.state_dict().items()}
    theirs = {f"search.{name}": torch.ones_like(value) for name, value in state.items() if not name.startswith("label_head.")}
    theirs[f"search.{IDS}"] = torch.ones(N_ITEMS + 1, recommender.config.dim)
    WarmStart(theirs).into(recommender.net, 0, np.arange(len(state[IDS]) - 1))
    for name, value in recommender.net.state_dict().items():
        assert torch.equal(value, state[name]) == name.startswith("label_head.") or (state[name] == 1).all()
    del theirs["search.log_scale"]
    with pytest.raises(KeyError):
        WarmStart(theirs).into(recommender.net, 0, np.arange(len(state[IDS]) - 1))
