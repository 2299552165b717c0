"""One changed bit is noticed wherever it is, and what was emptied, cut or deleted is made again as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.core import digests
from nightloom.core.digests import DAMAGED, check_file, digest, read_sealed, write_sealed
from nightloom.core.errors import DamagedError, InputError, NightloomError
from nightloom.core.files import write_json
from nightloom.data.preparation.stored import look_up
from nightloom.data.tables.pictures import take_in
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import read_snapshot, write_snapshot
from nightloom.encoders.text_cache import TextCache
from nightloom.encoders.vector_cache import Progress
from nightloom.encoders.weights import resolve
from nightloom.packaging.reader import BundleReader
from nightloom.packaging.served import check_click_files, write_click_files
from nightloom.promotion.earlier import earlier_nights
from nightloom.promotion.registry import FILES_TAG, Registry, Version
from nightloom.promotion.trim import old
from nightloom.runs.nights import check_copy, stages_whole
from nightloom.runs.stages import Night, run_stage
from nightloom.runs.storage import INDEX, STORE
from tests.small_bundle import headed_bundle, small_config

PLACES = 20
NAME = "shop"


def flips(path: Path, seed: int = 0) -> list[bytes]:
    """The file with one bit changed, at random places over its whole length; first and last byte are among them."""
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    places = [0, len(content) - 1, *rng.integers(0, len(content), PLACES - 2).tolist()]
    return [content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :] for at in places]


def noticed(path: Path, read: Callable[[], Any]) -> None:
    """Every flipped bit of a file is refused by who reads it, and so is a file that is cut, emptied or gone; the whole one is read."""
    whole = path.read_bytes()
    for damaged in (*flips(path), whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(DamagedError):
            read()
    path.unlink()
    with pytest.raises(InputError):
        read()
    path.write_bytes(whole)
    read()


def tables(users: int = 30) -> Tables:
    rng = np.random.default_rng(1)
    rows = {"user_id": [f"u{n:02d}" for n in range(users) for _ in range(5)], "item_id": [f"i{n}" for n in rng.integers(0, 9, 5 * users)]}
    at = pd.to_datetime(rng.integers(1_600_000_000, 1_700_000_000, 5 * users), unit="s", utc=True).as_unit("ms")
    events = pd.DataFrame(rows | {"timestamp": at, "event": "buy"})
    rejected = {"events": pd.DataFrame({"file": ["e.csv"], "row": [3], "raw": ["{}"], "reason": ["user_id is missing"]})}
    return Tables(
        events, pd.DataFrame({"item_id": [f"i{n}" for n in range(9)], "title": "é"}), rejected=rejected, features={"title": "text"}
    )


@pytest.mark.parametrize("name", ["events.parquet", "items.parquet", "rejected_events.parquet", "snapshot.json"])
def test_of_a_snapshot(tmp_path: Path, name: str) -> None:
    snapshot = write_snapshot(tables(), tmp_path, {"events": "é.csv"})
    noticed(snapshot.path / name, lambda: read_snapshot(snapshot.path))


def test_reversed_rows_of_a_table_are_noticed(tmp_path: Path) -> None:
    snapshot = write_snapshot(tables(), tmp_path, {})
    rows = pd.read_parquet(snapshot.path / "events.parquet")
    rows.iloc[::-1].to_parquet(snapshot.path / "events.parquet", index=False)
    with pytest.raises(DamagedError, match=r"events\.parquet: damaged, .* Run collect again"):
        read_snapshot(snapshot.path)
    with pytest.raises(DamagedError, match=r"events\.parquet: damaged"):
        look_up(snapshot.path / "events.parquet", ["u01"], {})


def test_a_damaged_snapshot_is_set_aside_and_made_again_from_the_sources(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = write_snapshot(tables(), tmp_path, {})
    expected = {path.name: digest(path) for path in made.path.glob("*.parquet")}
    for number, (name, damage) in enumerate(
        [("events.parquet", 0), ("events.parquet", 5), ("snapshot.json", None), ("items.parquet", None)], 1
    ):
        path, before = made.path / name, (made.path / name).read_bytes()
        path.unlink()
        if damage is not None:
            path.write_bytes(flips_of(before, damage))
        caplog.clear()
        again = write_snapshot(tables(), tmp_path, {})
        assert {path.name: digest(path) for path in again.path.glob("*.parquet")} == expected
        [said] = [record.getMessage() for record in caplog.records]
        assert f"{path}: damaged, " in said
        assert f"Set aside as {made.path.name}{DAMAGED}{number}; the snapshot is made again" in said
        assert (tmp_path / f"{made.path.name}{DAMAGED}{number}").is_dir()
    read_snapshot(made.path)


def flips_of(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


KINDS = ("model.safetensors", "reranker.json", "feature_spec.json", "meta.json", "bundle.json", "graph.npz", "item_counters.npz")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return headed_bundle(tmp_path_factory.mktemp("damage") / "bundle")


@pytest.mark.parametrize("name", [*KINDS, "catalogue.safetensors"])
def test_of_a_bundle(bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    noticed(folder / name, lambda: BundleReader.load(folder))


def test_a_bundle_of_the_format_before_has_no_digest_of_itself_and_is_read(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    said = read_sealed(folder / "bundle.json")
    write_json(folder / "bundle.json", said | {"format": 2})
    assert BundleReader.load(folder).manifest.weights == said["weights"]
    write_json(folder / "bundle.json", said)
    with pytest.raises(DamagedError, match=r"bundle\.json: damaged, it has no digest of itself"):
        BundleReader.load(folder)


def test_of_a_served_click_head(tmp_path: Path) -> None:
    for name in ("clicks.json", "clicks.safetensors", "impressions.npz", "impressions.json"):
        (tmp_path / name).write_bytes(name.encode() * 20)
    folder = write_click_files(tmp_path, tmp_path, tmp_path / "served")
    for path in sorted(folder.iterdir()):
        noticed(path, lambda: check_click_files(folder))


def night(root: Path, day: int = 1) -> Night:
    return Night(small_config(NAME), f"2026010{day}-020000", root)


def make(folder: Path) -> dict[str, int]:
    """A stage with each kind of file that stages write."""
    rng = np.random.default_rng(0)
    rows = {"user_id": [f"u{n}" for n in range(200)], "protocol": "temporal", "family": ["nightloom", "champion"] * 100, "rank": 1}
    pd.DataFrame(rows).to_parquet(folder / "per_user.parquet", index=False)
    np.savez(folder / "sequences_temporal.npz", items=rng.integers(0, 99, 500))
    np.save(folder / "text_vectors.npy", rng.normal(size=(20, 4)).astype(np.float32))
    (folder / "bundle").mkdir(exist_ok=True)
    write_json(folder / "bundle" / "meta.json", {"event_types": ["buy"], "has_time": True})
    return {"rows": 200}


OUTPUTS = ("per_user.parquet", "sequences_temporal.npz", "text_vectors.npy", "bundle/meta.json")


def never(_: Path) -> dict[str, int]:
    raise AssertionError("the stage is whole, and was made again")


@pytest.mark.parametrize("name", [*OUTPUTS, "manifest.json"])
def test_a_damaged_stage_is_made_again_as_it_was(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    first = run_stage(night(tmp_path), "evaluate", make, config={})
    path = first.path / name
    whole = path.read_bytes()
    damages = [*flips(path), whole[: len(whole) // 2], b"", None]
    for number, damaged in enumerate(damages, 1):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        caplog.clear()
        again = run_stage(night(tmp_path), "evaluate", make, config={})
        assert (again.status, again.digests, again.key) == ("done", first.digests, first.key)
        [said] = [record.getMessage() for record in caplog.records]
        assert f"{path}: damaged, " in said
        assert f"{first.key}{DAMAGED}{number}; the stage is made again" in said
    assert run_stage(night(tmp_path), "evaluate", never, config={}).status == "reused"
    assert len([one for one in first.path.parent.iterdir() if DAMAGED in one.name]) == len(damages)


def test_a_night_over_unchanged_data_looks_at_what_the_last_one_made(tmp_path: Path) -> None:
    last = night(tmp_path)
    made = run_stage(last, "evaluate", make, config={})
    last.latest.symlink_to(last.night)
    tonight = night(tmp_path, 2)
    assert stages_whole(tonight, ["evaluate"])
    for path, content in [
        (made.path / OUTPUTS[0], None),
        (made.path / "manifest.json", b""),
        (last.folder / "manifests/evaluate.json", b""),
    ]:
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        assert not stages_whole(tonight, ["evaluate"])
        path.write_bytes(before)
        assert stages_whole(tonight, ["evaluate"])
    shutil.rmtree(made.path)  # trimmed, or of another machine
    assert stages_whole(tonight, ["evaluate"])


def test_what_a_link_leads_to_is_checked_where_it_was_made(tmp_path: Path) -> None:
    place = tmp_path / "pictures.parquet"
    place.write_bytes(b"places of today")

    def body(folder: Path) -> dict[str, int]:
        (folder / "pictures.parquet").symlink_to(place)
        (folder / "warm").mkdir()
        (folder / "warm" / "model").write_bytes(b"weights")
        (folder / "first").symlink_to("warm")
        return {}

    made = run_stage(night(tmp_path), "prepare", body, config={})
    place.write_bytes(b"places of tomorrow")
    assert run_stage(night(tmp_path), "prepare", never, config={}).status == "reused"
    place.unlink()
    with pytest.raises(AssertionError):
        run_stage(night(tmp_path), "prepare", never, config={})
    place.write_bytes(b"places")
    run_stage(night(tmp_path), "prepare", body, config={})
    (made.path / "warm" / "model").write_bytes(b"Weights")
    assert run_stage(night(tmp_path), "prepare", body, config={}).status == "done"


def test_a_damaged_report_or_table_of_an_earlier_night(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = night(tmp_path)
    made = run_stage(last, "evaluate", make, config={})
    shutil.copyfile(made.path / "per_user.parquet", last.folder / "per_user.parquet")
    gate = {"gate": {"decision": "reject"}, "versions": {"champion": "1"}, "rows": {"events": 3}}
    write_json(last.folder / "report.json", gate)
    last.latest.symlink_to(last.night)
    tonight = night(tmp_path, 2)
    assert len(earlier_nights(last.folder.parent, tonight.night, "1", "temporal", "nightloom")) == 1
    assert tonight.last_rows() == {"events": 3}
    noticed(last.folder / "per_user.parquet", lambda: check_copy(last.folder, "evaluate", "per_user.parquet"))
    path = last.folder / "per_user.parquet"
    path.write_bytes(flips_of(path.read_bytes(), 100))
    assert earlier_nights(last.folder.parent, tonight.night, "1", "temporal", "nightloom") == []
    assert "do not count for the gate" in caplog.text
    (last.folder / "report.json").write_text("")
    assert tonight.last_rows() is None
    assert "report.json: it can not be read" in caplog.text


@pytest.mark.parametrize("stored", [True, False])
def test_a_damaged_stage_comes_back_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    monkeypatch.setenv(STORE, f"file://{tmp_path}/store")
    first = run_stage(night(tmp_path / "here"), "evaluate", make, config={})
    place = first.path.relative_to(tmp_path / "here")
    there = tmp_path / "store" / place
    (first.path / OUTPUTS[0]).write_bytes(b"")
    if stored:
        assert run_stage(night(tmp_path / "here"), "evaluate", never, config={}).status == "reused"
        for damaged in flips(there / OUTPUTS[1]):
            (there / OUTPUTS[1]).write_bytes(damaged)
            with pytest.raises(
                NightloomError, match=rf"{OUTPUTS[1]}: damaged, its SHA-256 begins with \w+, expected .*delete published\.json"
            ):
                run_stage(night(tmp_path / "other"), "evaluate", never, config={})
        (there / INDEX).write_text("")
        with pytest.raises(NightloomError, match=r"published\.json: damaged, it can not be read"):
            run_stage(night(tmp_path / "other"), "evaluate", never, config={})
        return
    sizes = {**first.outputs} | {"manifest.json": (there / "manifest.json").stat().st_size}
    write_json(there / INDEX, sizes)  # of a store of Nightloom 0.2, which says nothing of digests
    (there / OUTPUTS[1]).write_bytes(flips(there / OUTPUTS[1])[5])
    assert run_stage(night(tmp_path / "here"), "evaluate", make, config={}).digests == first.digests
    assert run_stage(night(tmp_path / "other"), "evaluate", never, config={}).digests == first.digests


def encode(texts: list[str], _: Progress) -> np.ndarray[Any, Any]:
    return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_of_the_vector_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TextCache(tmp_path)
    expected, _ = cache.vectors(["a", "bb", "ccc"], encode)
    [shard] = tmp_path.glob("*.npz")
    whole = shard.read_bytes()
    for damaged in [*flips(shard), whole[:-1], b"", None]:
        shard.unlink() if damaged is None else shard.write_bytes(damaged)
        vectors, encoded = cache.vectors(["a", "bb", "ccc"], encode)
        assert encoded == 3
        np.testing.assert_array_equal(vectors, expected)
        assert shard.read_bytes() == whole
    assert len(caplog.records) == PLACES + 2
    assert f"{shard}: damaged, its SHA-256 begins with " in caplog.text


def test_of_a_picture_that_came_as_bytes(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a"], "image": [b"a picture of a cat"]})
    [key] = take_in(items, ["image"], None, tmp_path)[0]["image"]
    path = tmp_path / key[:2] / key
    for damaged in [*flips(path), b""]:
        path.write_bytes(damaged)
        take_in(items, ["image"], None, tmp_path)
        assert path.read_bytes() == b"a picture of a cat"


def test_of_weights_in_the_hub_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 40
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    folder.mkdir(parents=True)
    blob = blobs / sha256(content).hexdigest()
    blob.write_bytes(content)
    (folder / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr("nightloom.encoders.weights._here", lambda _: (folder, "cache"))
    assert resolve("some/model").sha256 == blob.name
    for damaged in flips(blob):
        blob.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"model\.safetensors: damaged, its SHA-256 .*Delete .*fetched anew"):
            resolve("some/model")


@pytest.fixture(scope="module")
def registered(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Version, Path]:
    """A registry, a version in it, and where MLflow keeps the version's bundle."""
    root = tmp_path_factory.mktemp("registry") / "mlruns"
    registry = Registry(root)
    run = registry.tracking.client.create_run(registry.tracking.experiment(NAME)).info.run_id
    version = registry.register(NAME, bundle, run, {}, "card", [["i1"]])
    registry.promote(version)
    [place] = [path.parent for path in (root / "artifacts").rglob("bundle.json")]
    return registry, version, place


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json", "graph.npz", "language.txt"])
def test_a_damaged_fetched_version_is_fetched_again(
    registered: tuple[Registry, Version, Path], tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry, version, place = registered
    assert len(version.tags[FILES_TAG]) == 64
    folder = registry.fetch(version, tmp_path)
    if name == "language.txt":  # a file that was not registered
        (folder / name).write_bytes(b"more")
        registry.fetch(version, tmp_path)
        assert not (folder / name).exists()
    else:
        for damaged in [*flips(folder / name)[:4], b"", None]:
            (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
            assert registry.fetch(version, tmp_path) == folder
            assert (folder / name).read_bytes() == (place / name).read_bytes()
    assert f"{folder.name}{DAMAGED}1; version {version.version} is fetched again" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_champion_that_is_damaged_in_mlflow_is_named_with_the_way_back(
    registered: tuple[Registry, Version, Path], tmp_path: Path, name: str
) -> None:
    registry, version, place = registered
    whole = (place / name).read_bytes()
    try:
        for damaged in [*flips(place / name)[:4], b""]:
            (place / name).write_bytes(damaged)
            with pytest.raises(
                NightloomError, match=rf"nightloom-{NAME} version 1 is damaged where MLflow keeps it.*{name}: .*rollback {NAME}"
            ):
                registry.fetch(version, tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        (place / name).write_bytes(whole)


def test_a_bundle_that_was_exchanged_as_a_whole_is_noticed_by_the_version_s_tag(
    registered: tuple[Registry, Version, Path], tmp_path: Path
) -> None:
    registry, version, _ = registered
    folder = registry.fetch(version, tmp_path)
    said = read_sealed(folder / "bundle.json")
    write_sealed(folder / "bundle.json", said | {"weights": dict.fromkeys(said["weights"], 9.0)})
    BundleReader.load(folder)  # it is whole, but another
    assert BundleReader.load(registry.fetch(version, tmp_path)).weights == said["weights"]
    registry.fetch(replace(version, tags={}), tmp_path)  # of Nightloom 0.2
    with pytest.raises(NightloomError, match="over all files its SHA-256 begins with"):
        registry.fetch(replace(version, tags={FILES_TAG: "0" * 64}), tmp_path / "other")


def test_a_file_is_read_once_a_process_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read, real = tmp_path / "file", [], digests.hashlib.file_digest
    path.write_bytes(b"x" * 1000)
    expected = sha256(b"x" * 1000).hexdigest()
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *given: (read.append(1), real(*given))[1])
    assert [digest(path) for _ in range(3)] == [expected] * 3
    assert len(read) == 3  # it was changed a moment ago, and may be again within one tick of the file system's clock
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    assert [digest(path) for _ in range(3)] == [expected] * 3
    (tmp_path / "link").symlink_to(path)
    assert digest(tmp_path / "link") == expected
    assert len(read) == 4
    other = tmp_path / "other"
    other.write_bytes(b"y" * 1000)
    other.replace(path)
    assert digest(path) == sha256(b"y" * 1000).hexdigest()
    with pytest.raises(DamagedError, match=r"other: damaged, it is missing\."):
        check_file(other, 1, "")


def test_trim_is_not_led_astray_by_damage(tmp_path: Path) -> None:
    one, two = night(tmp_path, 1), night(tmp_path, 2)
    for tonight in (one, two):
        run_stage(tonight, "evaluate", make, config={}, salt=tonight.night)
        write_json(tonight.folder / "report.json", {"name": NAME, "data_hash": "a"})
    (tmp_path / "stages" / NAME / "load_pretrained" / f"k{DAMAGED}1").mkdir(parents=True)
    (tmp_path / "stages" / NAME / "load_pretrained" / f"k{DAMAGED}1" / "texts.json").write_text("[")
    TextCache(tmp_path / "cache" / "text" / "m").vectors(["a"], encode)
    [shard] = (tmp_path / "cache" / "text" / "m").glob("*.npz")
    shard.write_bytes(b"PK")
    old(tmp_path, 1, {})
    (two.folder / "manifests" / "evaluate.json").write_text("")
    with pytest.raises(DamagedError, match="nothing is deleted"):
        old(tmp_path, 1, {})


def test_a_warning_is_seen_where_nothing_is_set_up_to_show_it() -> None:
    """As by a command that runs no flow; a flow's console shows it among what stages say."""
    code = "from nightloom.runs.environment import telemetry_off\ntelemetry_off()\nimport mlflow\n"
    code += "from nightloom.core.digests import warn\nwarn('a line')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("", "a line\n")
