"""The store behind the mlruns folder: on disk, in memory, and on a real S3 server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from nightloom.cli import app
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.files import write_json
from nightloom.promotion.registry import Registry
from nightloom.promotion.trim_store import old_places
from nightloom.runs.locks import in_use
from nightloom.runs.nights import fetch_latest, finish, publish_folder
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.storage import INDEX, STORE, Storage, files_in
from nightloom.runs.tracking import Tracking
from tests.s3_server import s3_server
from tests.small_bundle import small_bundle, small_config

NAME = "shop"
CONTENT = {"model.bin": b"weights" * 1000, "plots/curve.png": b"picture", "empty.txt": b""}
KINDS = ("file", "memory", "s3")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty store, which nights then use."""
    url = {"file": f"file://{tmp_path}/shared/store", "memory": f"memory://{uuid.uuid4().hex}/store"}.get(request.param)
    if url is None:
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        bucket = f"store-{uuid.uuid4().hex}"
        fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
        url = f"s3://{bucket}/nightloom"
    monkeypatch.setenv(STORE, url)
    return url


every_store = pytest.mark.parametrize("address", KINDS, indirect=True)
stores_of_other_processes = pytest.mark.parametrize("address", ["file", "s3"], indirect=True)


def night(root: Path, day: int = 1) -> Night:
    return Night(small_config(NAME), f"2026010{day}-020000", root)


def make(content: Mapping[str, bytes] = CONTENT) -> Callable[[Path], dict[str, int]]:
    def body(folder: Path) -> dict[str, int]:
        for name, what in content.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(what)
        return {"files": len(content)}

    return body


def never(_: Path) -> dict[str, int]:
    raise AssertionError("the stage is done, and was made again")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


@every_store
def test_another_machine_finds_a_stage_done(address: str, tmp_path: Path) -> None:
    here, there = (night(tmp_path / name) for name in ("here", "there"))
    made = run_stage(here, "fine_tune", make(), config={"a": 1})
    found = run_stage(there, "fine_tune", never, config={"a": 1})
    assert (made.status, found.status) == ("done", "reused")
    assert found.path == there.root / "stages" / NAME / "fine_tune" / made.key
    assert contents(found.path) == contents(made.path)
    assert INDEX not in contents(made.path)
    assert (found.outputs, found.figures) == (made.outputs, made.figures)
    assert Manifest.load(there.folder / "manifests" / "fine_tune.json").folder == str(found.path)
    assert run_stage(there, "fine_tune", make(), config={"a": 2}).status == "done"


@every_store
def test_what_each_night_does_for_itself_stays_out_of_the_store(address: str, tmp_path: Path) -> None:
    """The next night has a key of its own: nobody would look for it, or delete what a kill left there by halves."""
    tonight, tomorrow = night(tmp_path), night(tmp_path, 2)
    first, second = (run_stage(one, "promote", make(), config={}, own=True) for one in (tonight, tomorrow))
    assert first.key != second.key
    assert run_stage(tonight, "promote", never, config={}, own=True).status == "reused"
    assert tonight.storage.names("stages") == []


def test_without_a_store_nothing_but_the_stage_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE, raising=False)
    tonight = night(tmp_path)
    made = run_stage(tonight, "fine_tune", make(), config={})
    finish(tonight)
    fetch_latest(tonight)
    assert set(files_in(made.path.parent)) == {f"{made.key}.lock", *(f"{made.key}/{name}" for name in ("manifest.json", *CONTENT))}
    assert tonight.latest.resolve() == tonight.folder
    assert {path.name for path in tmp_path.iterdir()} == {".in-use", "stages", "nights"}


KILLED = """
import os, signal, sys
from pathlib import Path
from nightloom.runs.storage import Storage
storage, place, after = Storage.of(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
kind = type(storage._fs)
name = "_put_file" if hasattr(kind, "_put_file") else "put_file"
whole, done = getattr(kind, name), []
def counted(self, *given, **named):
    if len(done) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(given)
    return whole(self, *given, **named)
setattr(kind, name, counted)
storage.publish(place)
"""


@stores_of_other_processes
@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_publish_killed_between_files_ends_the_same_when_run_again(address: str, after: int, tmp_path: Path) -> None:
    here, there = (night(tmp_path / name) for name in ("here", "there"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(STORE)
        made = run_stage(here, "fine_tune", make(), config={})
    place = made.path.relative_to(here.root).as_posix()
    paths = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", KILLED, str(here.root), place, str(after)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert there.storage.fetch(place) is False
    assert not (there.root / place).exists()
    assert run_stage(here, "fine_tune", never, config={}).status == "reused"
    found = run_stage(there, "fine_tune", never, config={})
    assert contents(found.path) == contents(made.path)
    assert there.storage.index(place) == files_in(made.path)


@every_store
def test_what_a_half_publish_left_does_not_mix_with_what_is_published(address: str, tmp_path: Path) -> None:
    """Another machine trained anew: its files have the same names and sizes, and other bytes."""
    here, there = (night(tmp_path / name) for name in ("here", "there"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(STORE)
        made = run_stage(here, "fine_tune", make({"model.bin": b"mine"}), config={})
    place = made.path.relative_to(here.root).as_posix()
    fs, path = fsspec.url_to_fs(f"{address}/{place}")
    fs.makedirs(path, exist_ok=True)
    fs.pipe({f"{path}/model.bin": b"half", f"{path}/checkpoint.bin": b"left"})
    run_stage(here, "fine_tune", never, config={})
    found = run_stage(there, "fine_tune", never, config={})
    assert contents(found.path) == contents(made.path)


@every_store
def test_a_published_folder_that_lost_a_file_is_named(address: str, tmp_path: Path) -> None:
    made = run_stage(night(tmp_path / "here"), "fine_tune", make(), config={})
    place = made.path.relative_to(tmp_path / "here").as_posix()
    fs, path = fsspec.url_to_fs(f"{address}/{place}")
    fs.rm_file(f"{path}/model.bin")
    with pytest.raises(NightloomError, match=r"fine_tune/.*files are gone or cut short, for example .*delete published\.json"):
        run_stage(night(tmp_path / "there"), "fine_tune", never, config={})
    assert not list((tmp_path / "there").rglob("*.bin"))
    fs.rm_file(f"{path}/{INDEX}")
    assert run_stage(night(tmp_path / "there"), "fine_tune", make(), config={}).status == "done"


@every_store
def test_the_last_finished_night_is_that_of_the_store(address: str, tmp_path: Path) -> None:
    first, second, refused = (night(tmp_path / "here", day) for day in (1, 2, 3))
    for one in (first, second, refused):
        write_json(one.folder / "report.json", {"night": one.night})
        (one.folder / "data_docs").mkdir()
        (one.folder / "data_docs" / "index.html").write_text("docs")
    finish(first)
    elsewhere = night(tmp_path / "there", 4)
    fetch_latest(elsewhere)
    assert elsewhere.latest.resolve().name == first.night
    finish(second)
    publish_folder(refused)
    fetch_latest(elsewhere)
    assert contents(elsewhere.latest) == contents(second.folder)
    assert elsewhere.storage.names(f"nights/{NAME}") == [first.night, second.night, refused.night]
    write_json(second.folder / "report.json", {"night": "told again"})
    finish(second)
    fetch_latest(night(tmp_path / "third", 4))
    assert b"told again" in (tmp_path / "third" / "nights" / NAME / "latest" / "report.json").read_bytes()


def test_a_study_stays_on_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE, f"file://{tmp_path}/store")
    study = replace(night(tmp_path / "here"), run_directory="tuning/shop")
    write_json(study.folder / "trial.json", {})
    publish_folder(study)
    assert not (tmp_path / "store").exists()


def live(root: Path, day: int, shared: str) -> dict[str, Manifest]:
    """A finished night with a stage that nights of the same `shared` share, and one of its own."""
    tonight = night(root, day)
    write_json(root / "snapshots" / NAME / shared / "snapshot.json", {"hash": shared})
    tonight.storage.publish(f"snapshots/{NAME}/{shared}")
    collected = Manifest("collect", shared, str(root / "snapshots" / NAME / shared))
    checked = run_stage(tonight, "validate", make(), inputs=[collected], config={})
    tuned = run_stage(tonight, "fine_tune", make(), inputs=[checked], config={}, salt=tonight.night)
    write_json(tonight.folder / "report.json", {"name": NAME, "data_hash": shared})
    finish(tonight)
    return {"validate": checked, "fine_tune": tuned}


@every_store
def test_a_store_is_trimmed_by_the_nights_that_it_holds(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nights came from two machines; this one has seen the last alone."""
    made = [live(tmp_path / ("there" if day < 4 else "here"), day, shared) for day, shared in ((1, "a"), (2, "b"), (3, "a"), (4, "c"))]
    places = {day: {stage: f"stages/{NAME}/{stage}/{one.key}" for stage, one in night.items()} for day, night in enumerate(made, 1)}
    storage = Storage.of(tmp_path / "here")
    assert old_places(storage, 2, {}) == []  # all of it is younger than the nights by their names
    monkeypatch.setattr("nightloom.promotion.trim_store.began", lambda _: 4e9)
    gone = {places[1]["fine_tune"], *places[2].values(), f"snapshots/{NAME}/b"}
    found = old_places(storage, 2, {})
    assert {one.place for one in found} == gone
    assert {one.bytes > 7000 for one in found if "stages" in one.place} == {True}
    in_use.cache_clear()
    arguments = ["trim", "--keep", "2", "--root", str(tmp_path / "here")]
    trial = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert trial.exit_code == 0, trial.output
    assert f"in 4 folders would be deleted under {address}" in trial.output
    assert {one.place for one in old_places(storage, 2, {})} == gone
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert old_places(storage, 2, {}) == []
    fs, path = fsspec.url_to_fs(address)
    assert not any(fs.exists(f"{path}/{place}") for place in gone)
    third = Night(small_config(NAME), "20260105-020000", tmp_path / "third")
    kept = Manifest("collect", "a", "")
    assert run_stage(third, "validate", never, inputs=[kept], config={}).status == "reused"
    in_use.cache_clear()


@pytest.mark.parametrize("address", ["file", "s3"], indirect=True)
def test_mlflow_keeps_files_in_the_store(address: str, tmp_path: Path) -> None:
    tracking = Tracking(tmp_path / "mlruns")
    (tmp_path / "table.csv").write_text("rows")
    with tracking.night(night(tmp_path / "mlruns"), {}) as run:
        tracking.client.log_artifact(run, str(tmp_path / "table.csv"))
    fs, path = fsspec.url_to_fs(f"{address}/artifacts")
    assert [fs.cat_file(one) for one in fs.find(path)] == [b"rows"]
    found = tracking.download(run, "table.csv", tmp_path / "down")
    assert found is not None
    assert found.read_text() == "rows"
    registry, bundle = Registry(tmp_path / "mlruns"), small_bundle(tmp_path / "bundle")
    version = registry.register(NAME, bundle, run, {}, "card", [["i1"]])
    assert contents(registry.fetch(version, tmp_path / "cache")) == contents(bundle)
    assert not (tmp_path / "mlruns" / "artifacts").exists()


@pytest.mark.parametrize("address", ["memory"], indirect=True)
def test_mlflow_keeps_files_here_where_it_does_not_know_the_store(address: str, tmp_path: Path) -> None:
    assert Storage.of(tmp_path).artifacts == f"file://{tmp_path}/artifacts"


@pytest.mark.parametrize("address", ["s3"], indirect=True)
def test_a_store_that_can_not_be_reached(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE, "s3://no-such-bucket/nightloom")
    with pytest.raises(NightloomError, match=r"NIGHTLOOM_STORE=s3://no-such-bucket/nightloom: the store can not be reached .*bucket"):
        run_stage(night(tmp_path), "fine_tune", make(), config={})
    monkeypatch.setenv(STORE, address)
    assert run_stage(night(tmp_path), "fine_tune", never, config={}).status == "reused"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/folder", r"no protocol\. Write file:///absolute/folder or s3://bucket/folder"),
        ("sftp://user:hunter2@host/folder", "holds a password or key. Leave it out"),
        ("s3://bucket/folder?to%6ben=hunter2", "holds a password or key. Leave it out"),
        ("user:hunter2@host", r"no protocol\. Write file:///absolute/folder or s3://bucket/folder"),
        ("nothing://bucket", "NIGHTLOOM_STORE=nothing://bucket: .*Install what fsspec names"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE, url)
    with pytest.raises(InputError, match=said) as refused:
        run_stage(night(tmp_path), "fine_tune", make(), config={})
    assert "hunter2" not in str(refused.value)
