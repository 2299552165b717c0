"""Training from a prepared folder: the same whatever the workers and however often it is cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from nightloom.core.errors import InputError, TrainingError
from nightloom.core.sequences import Sequences
from nightloom.data.subsets.held_out_users import Search
from nightloom.packaging.bundle import Bundle
from nightloom.training import checkpoint
from nightloom.training import run as run_module
from nightloom.training.distributed import World
from nightloom.training.fine_tune import fine_tune
from nightloom.training.launch import launch
from nightloom.training.run import Training
from nightloom.training.run_json import Run

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

GOLDEN = [3.68209, 2.64310]
"""Mean loss of the first epochs at seed 7 without dropout; changes only with a change of the model or its training."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in json.loads((out / "curves.json").read_text())]


def test_the_loss_at_a_fixed_seed_is_golden(tmp_path: Path, settings, write_run) -> None:
    Training(Run.load(write_run(settings(epochs=2, model={"dropout": 0.0, "id_dropout": 0.0}), tmp_path)), World())()
    assert losses(tmp_path) == pytest.approx(GOLDEN, abs=1e-4)


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path, settings, write_run) -> None:
    figures = Training(Run.load(write_run(settings(epochs=30, patience=3, learning_rate=0.05), tmp_path)), World())()
    assert figures["best_epoch"] < figures["epochs"]
    assert figures["validation_alone"]["network"] == pytest.approx(figures["best_validation_ndcg_at_10"], abs=1e-9)


def test_people_who_are_held_out_choose_the_epoch_and_are_then_learned_from(tmp_path: Path, settings, shop, write_run) -> None:
    """Leave-one-out keeps no events back from the last fit either, since who is asked about the test is not who chose."""
    part = tmp_path / "part"
    shutil.copytree(shop.prepared, part)
    sequences = Sequences.load(part / "sequences_leave_one_out.npz")
    search = Search.of(sequences, 1, alone=True)
    search.save(part, "leave_one_out")
    path = write_run(settings(epochs=8, patience=2), tmp_path / "out", "leave_one_out")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prepared": str(part)}))
    figures = Training(Run.load(path), World())()
    lines = [json.loads(line) for line in (tmp_path / "out" / "curves.jsonl").read_text().splitlines()]
    assert figures["refitted"]
    assert [line["epoch"] for line in lines if line["phase"] == "refit"] == list(range(1, figures["best_epoch"] + 1))
    ids = Bundle.load(tmp_path / "out" / "bundle").recommender.shape.n_ids
    assert ids == len(np.unique(sequences.train(with_validation=True).items))

    other = replace(search.held_out, items=(search.held_out.items + 1) % 28)  # as if those who are held out had had other things
    replace(search, held_out=other).save(part, "leave_one_out")
    path = write_run(settings(epochs=8, patience=2), tmp_path / "again", "leave_one_out")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prepared": str(part)}))
    Training(Run.load(path), World())()
    both = min(len(losses(tmp_path / name)) for name in ("out", "again"))
    assert losses(tmp_path / "again")[:both] == losses(tmp_path / "out")[:both]  # nothing of theirs was in the search


def test_bfloat16_learns_as_float32_does(tmp_path: Path, settings, write_run) -> None:
    for precision in ("fp32", "bf16"):
        config = settings(epochs=3, precision=precision, model={"dropout": 0.0, "id_dropout": 0.0})
        Training(Run.load(write_run(config, tmp_path / precision)), World())()
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), abs=0.03)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


def test_two_workers_give_the_curve_of_one(tmp_path: Path, settings, shop) -> None:
    """Dropout is on: its masks belong to windows, not to workers."""
    heard = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        figures = fine_tune(settings(epochs=3, workers=workers), "temporal", shop.prepared, shop.pretrained, out, heard.append)
        assert figures["workers"] == workers
        assert figures["refitted"]
    curves = [json.loads((tmp_path / name / "curves.json").read_text()) for name in ("1", "2")]
    for key in ("loss", "validation_ndcg_at_10"):
        np.testing.assert_allclose([line[key] for line in curves[0]], [line[key] for line in curves[1]], rtol=1e-5, atol=1e-6)
    assert [line["epoch"] for line in heard if line["phase"] == "search"] == [1, 2, 3] * 2
    queries = Sequences.load(shop.prepared / "sequences_temporal.npz").queries("test")
    one, two = (Bundle.load(tmp_path / name / "bundle").recommender.scores(queries.histories) for name in ("1", "2"))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


class Killed(Exception):
    """What stands for a kill."""


def die_after(saves: int, monkeypatch) -> None:
    """Let a run end once it has written so many checkpoints."""
    really_save = checkpoint.save

    def save_then_die(folder: Path, state: dict) -> None:
        nonlocal saves
        really_save(folder, state)
        saves -= 1
        if not saves:
            raise Killed

    monkeypatch.setattr(run_module.checkpoint, "save", save_then_die)


@pytest.mark.parametrize("cut_after", [1, 3, 5])
def test_a_run_that_is_cut_off_ends_like_one_that_is_not(cut_after: int, tmp_path: Path, settings, write_run, monkeypatch) -> None:
    """Cut in the search (after epoch 1 and 3 of 4) and in the refit."""
    config = settings(epochs=4, patience=9)
    whole = Training(Run.load(write_run(config, tmp_path / "whole")), World())()
    path = write_run(config, tmp_path / "cut")
    with monkeypatch.context() as patch:
        die_after(cut_after, patch)
        with pytest.raises(Killed):
            Training(Run.load(path), World())()
    again = Training(Run.load(path), World())()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert again["best_epoch"] == whole["best_epoch"]
    first, second = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("whole", "cut"))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_search_that_was_over_when_the_run_was_cut_off_stays_over(tmp_path: Path, settings, write_run, monkeypatch) -> None:
    quality = iter([0.1, 0.3, 0.2, 0.1, 0.9])
    monkeypatch.setattr(run_module, "network_ndcg", lambda *_, **__: next(quality))
    path = write_run(settings(epochs=9, patience=2), tmp_path / "cut")
    with monkeypatch.context() as patch:
        die_after(4, patch)
        with pytest.raises(Killed):
            Training(Run.load(path), World())()
    figures = Training(Run.load(path), World())()
    assert (figures["best_epoch"], figures["epochs"]) == (2, 4)


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"run": "r", "epoch": epoch, "weights": torch.arange(1000.0)})
    assert checkpoint.load(tmp_path, "r")["epoch"] == 2
    path = tmp_path / checkpoint.NAMES[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert checkpoint.load(tmp_path, "r")["epoch"] == 1
    path.write_bytes(content[:100])
    assert checkpoint.load(tmp_path, "r")["epoch"] == 1
    assert checkpoint.load(tmp_path, "another run") is None


def test_training_needs_no_part_of_the_night(tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(epochs=1), tmp_path)
    code = (
        "import sys; from nightloom.training.__main__ import main; assert main(['--config', sys.argv[1]]) == 0; "
        "print([m for m in ('pydantic', 'prefect', 'mlflow', 'great_expectations', 'scipy', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_frozen_run_does_not_need_pyarrow(tmp_path: Path, settings, write_run) -> None:
    """pandas takes pyarrow when it is there; a machine without it trains too."""
    path = write_run(settings(epochs=1), tmp_path)
    code = (
        "import sys; sys.modules['pyarrow'] = None; from nightloom.training.__main__ import main; sys.exit(main(['--config', sys.argv[1]]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert (tmp_path / "bundle" / "catalogue.safetensors").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_vectors_of_another_catalogue_are_refused(workers: int, tmp_path: Path, settings, shop) -> None:
    other = tmp_path / "pretrained"
    other.mkdir()
    np.save(other / "text_vectors.npy", np.zeros((3, 4), dtype=np.float32))
    np.save(other / "text_mask.npy", np.zeros(3, dtype=bool))
    with pytest.raises(InputError, match="3 text vectors for 30 items"):
        fine_tune(settings(workers=workers), "temporal", shop.prepared, other, tmp_path / "out")


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, settings, shop) -> None:
    config = settings(optimizer="sgd", epochs=2)
    training = config.training.model_copy(update={"learning_rate": 1e30})  # the config would refuse it
    config = config.model_copy(update={"training": training})
    with pytest.raises(TrainingError, match=r"Lower training\.learning_rate"):
        fine_tune(config, "temporal", shop.prepared, shop.pretrained, tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("negatives", [None, 8])
def test_every_optimizer_and_loss_learns(optimizer: str, negatives: int | None, tmp_path: Path, settings, write_run) -> None:
    rate = 0.3 if optimizer == "sgd" else 0.01
    config = settings(optimizer=optimizer, negatives=negatives, learning_rate=rate, epochs=6, patience=6, label_smoothing=0.05)
    Training(Run.load(write_run(config, tmp_path, "leave_one_out")), World())()
    found = losses(tmp_path)
    assert found[-1] < found[0] - 0.1


def test_a_worker_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path, settings, shop) -> None:
    broken = tmp_path / "prepared"
    broken.mkdir()
    with pytest.raises(TrainingError, match=r"sequences_temporal\.npz"):
        fine_tune(settings(), "temporal", broken, shop.pretrained, tmp_path / "out")


def test_finished_training_is_not_done_again(tmp_path: Path, settings, shop) -> None:
    first = fine_tune(settings(epochs=1), "temporal", shop.prepared, shop.pretrained, tmp_path)
    stamp = (tmp_path / "bundle" / "model.safetensors").stat().st_mtime_ns
    assert fine_tune(settings(epochs=1), "temporal", shop.prepared, shop.pretrained, tmp_path) == first
    assert (tmp_path / "bundle" / "model.safetensors").stat().st_mtime_ns == stamp


def workers(path: Path) -> list[int]:
    """Living processes that train this run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"nightloom.training\0--config\0" + str(path).encode() in command:
            found.append(int(place.name))
    return found


def waited(condition: Callable[[], bool], seconds: float = 180.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


CALLER = """
import sys
from pathlib import Path
from nightloom.training.launch import launch
launch(Path(sys.argv[1]), 2, Path(sys.argv[1]).parent / "log.txt")
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_caller(number: signal.Signals, tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(epochs=100_000, patience=100_000), tmp_path)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(path)], env=os.environ | {"PYTHONPATH": "src"})
    try:
        assert waited((tmp_path / "curves.jsonl").exists)
        assert len(workers(path)) == 3  # torch.distributed.run and its two
    finally:
        caller.send_signal(number)
        caller.wait()
    assert waited(lambda: not workers(path))


@linux
def test_a_cancel_ends_the_workers(tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(epochs=100_000, patience=100_000), tmp_path)

    class Cancelled(BaseException):
        pass

    def cancel(line: dict) -> None:
        assert len(workers(path)) == 3
        raise Cancelled

    with pytest.raises(Cancelled):
        launch(path, 2, tmp_path / "log.txt", cancel)
    assert waited(lambda: not workers(path))


@linux
def test_a_killed_worker_is_started_again_and_goes_on(tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(epochs=6, patience=6, workers=2), tmp_path)
    killed = []

    def kill_one(line: dict) -> None:
        if not killed and line["epoch"] == 2:
            killed.append(workers(path)[-1])
            os.kill(killed[0], signal.SIGKILL)

    launch(path, 2, tmp_path / "log.txt", kill_one)
    assert killed
    undisturbed = write_run(settings(epochs=6, patience=6), tmp_path / "undisturbed")
    Training(Run.load(undisturbed), World())()
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "undisturbed"), rel=1e-5)
