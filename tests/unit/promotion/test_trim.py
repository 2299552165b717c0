"""Trimming on real folders: stages that stages made, snapshots, a real registry, a real text cache."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nightloom.cli import app
from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.data.tables.kept import keeping, kept_home, take
from nightloom.data.tables.pictures import STORE, take_in
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import Snapshot, write_snapshot
from nightloom.encoders.text_cache import TextCache
from nightloom.encoders.vector_cache import VectorCache
from nightloom.promotion.registered import CLICKS, Version
from nightloom.promotion.registry import Registry
from nightloom.promotion.trim import TRIMMED, Old, aliased, delete, old
from nightloom.runs.locks import in_use, not_in_use
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.storage import Storage
from tests.small_bundle import small_bundle, small_config

NAME = "shop"
DAYS = range(1, 6)


@dataclass
class Made:
    """A night as it lies on the disk: what it read, and the folders of its stages."""

    night: Night
    snapshot: Snapshot
    stages: dict[str, Path]


def live(root: Path, day: int, rows: int, titles: Sequence[str], name: str = NAME) -> Made:
    """A night whose stages write something of its snapshot; nights with the same rows and titles share stages."""
    night = Night(small_config(name), f"2026010{day}-020000", root)
    events = pd.DataFrame({"user_id": ["u"] * rows, "item_id": [f"i{n}" for n in range(rows)], "event": "buy", "order": range(rows)})
    snapshot = write_snapshot(Tables(events), root / "snapshots" / name, {})
    collected = Manifest("collect", snapshot.hash[:16], str(snapshot.path))

    def write(folder: Path) -> dict[str, int]:
        (folder / "out.bin").write_bytes(snapshot.hash.encode().ljust(1000))
        return {}

    def encode(folder: Path) -> dict[str, int]:
        cache = TextCache(root / "cache" / "text" / "bert-mean-64")
        cache.vectors(titles, lambda texts, _: np.ones((len(texts), 4), dtype=np.float32))
        write_json(folder / "texts.json", [*titles, None])
        return {}

    checked = run_stage(night, "validate", write, inputs=[collected], config={})
    texts = run_stage(night, "load_pretrained", encode, inputs=[checked], config={})
    tuned = run_stage(night, "fine_tune", write, inputs=[texts], config={}, salt=night.night)
    collected.save(night.folder / "manifests" / "collect.json")
    write_json(night.folder / "report.json", {"name": name, "data_hash": snapshot.hash})
    night.latest.unlink(missing_ok=True)
    night.latest.symlink_to(night.night)
    return Made(night, snapshot, {one.stage: one.path for one in (checked, texts, tuned)})


def leave_unused() -> None:
    """Give the lock back that this process took by working, as its end would."""
    in_use.cache_clear()


def set_back(path: Path, day: int) -> None:
    """All files of a folder as if written on a day."""
    at = datetime(2026, 1, day, 2, 30, tzinfo=UTC).timestamp()
    for one in [path, *path.rglob("*")]:
        os.utime(one, (at, at), follow_symlinks=False)


@pytest.fixture
def nights(tmp_path: Path) -> Iterator[list[Made]]:
    """Five nights: each has data of its own but the fifth, which has the first one's."""
    made = [live(tmp_path, day, rows=day % 5, titles=[f"title {day % 5}", "all have it"]) for day in DAYS[:-1]]
    made.append(live(tmp_path, 5, rows=1, titles=["title 1", "all have it"]))
    for one, day in zip(made, DAYS, strict=True):
        for folder in (one.snapshot.path, *one.stages.values()):
            set_back(folder, day)
    for shard in (tmp_path / "cache" / "text").rglob("*.npz"):
        set_back(shard, 1)
    leave_unused()
    yield made
    leave_unused()


def places(found: list[Old], kind: str) -> set[Path]:
    return {one.path for one in found if one.kind == kind}


def test_what_the_last_nights_share_with_old_ones_stays(nights: list[Made], tmp_path: Path) -> None:
    found = old(tmp_path, 2, {})
    assert places(found, "snapshots") == {one.snapshot.path for one in nights[1:3]}
    gone = {folder for one in nights[1:3] for folder in one.stages.values()} | {nights[0].stages["fine_tune"]}
    assert places(found, "stages") == gone  # the fifth night found the first one's validate and load_pretrained
    assert all(one.bytes >= 1000 for one in found if one.kind == "stages" and one.path.parent.name != "load_pretrained")
    reports = sorted((tmp_path / "nights").rglob("report.json"))
    delete(found)
    assert not any(one.path.exists() or one.path.with_name(f"{one.path.name}.lock").exists() for one in found)
    assert sorted((tmp_path / "nights").rglob("report.json")) == reports
    assert old(tmp_path, 2, {}) == []
    again = live(tmp_path, 6, rows=1, titles=["title 1", "all have it"])
    assert again.stages["validate"] == nights[4].stages["validate"]


def test_no_more_nights_than_are_kept_are_left_alone(nights: list[Made], tmp_path: Path) -> None:
    assert old(tmp_path, 5, {}) == []
    live(tmp_path, 1, rows=9, titles=["x"], name="other")
    assert {one.path.relative_to(tmp_path).parts[1] for one in old(tmp_path, 4, {}) if one.kind in ("stages", "snapshots")} == {NAME}


def test_parts_that_no_night_takes_up_any_more_go(nights: list[Made], tmp_path: Path) -> None:
    for stage, day in (("collect", 1), ("validate", 5)):
        with keeping(kept_home(tmp_path, NAME) / stage, "key", {}) as folder:
            (folder / "000000.parquet").write_bytes(b"rows")
        set_back(kept_home(tmp_path, NAME) / stage, day)
    home = kept_home(tmp_path, NAME) / "collect"
    assert places(old(tmp_path, 2, {}), "parts") == {home}
    (tmp_path / "into").mkdir()
    assert take(home, "key", tmp_path / "into")
    assert places(old(tmp_path, 2, {}), "parts") == set()  # a night found it of use


def test_text_vectors_of_no_catalogue_that_stays_go(nights: list[Made], tmp_path: Path) -> None:
    """A night writes a shard of its new texts; the first one's holds the text that all have."""
    shards = places(old(tmp_path, 2, {}), "text")
    assert len(shards) == 2
    delete(old(tmp_path, 2, {}))
    asked: list[str] = []

    def encode(texts: list[str], _: object) -> np.ndarray:
        asked.extend(texts)
        return np.ones((len(texts), 4), dtype=np.float32)

    TextCache(tmp_path / "cache" / "text" / "bert-mean-64").vectors([f"title {n}" for n in range(1, 5)] + ["all have it"], encode)
    assert asked == ["title 2", "title 3"]


def test_registered_versions_with_an_alias_keep_their_night_and_snapshot(nights: list[Made], tmp_path: Path) -> None:
    registry, bundle = Registry(tmp_path), small_bundle(tmp_path / "bundle")
    for made in nights[:3]:
        run = registry.tracking.client.create_run(registry.tracking.experiment(NAME)).info.run_id
        tags = {"nightloom.night": made.night.night, "nightloom.data_hash": made.snapshot.hash}
        registry.promote(registry.register(NAME, bundle, run, tags, "card", [["i1"]]), best=True)
        registry.fetch(registry.versions(NAME)[0], tmp_path / "cache" / "champions")
    found = old(tmp_path, 1, aliased(Storage(tmp_path), registry))
    assert places(found, "snapshots") == {nights[3].snapshot.path}
    assert places(found, "stages") == {nights[0].stages["fine_tune"], *nights[3].stages.values()}
    (champion,) = places(found, "champions")
    assert champion.name.startswith("nightloom-shop-v1-")


def test_models_without_a_version_go_and_those_of_other_names_stay(nights: list[Made], tmp_path: Path) -> None:
    """Of three models one has a version, one a version of another name, and one was left by a kill; a young one stays."""
    registry, at = Registry(tmp_path), datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    client, experiment = registry.client, registry.tracking.experiment(NAME)
    logged = []
    for _ in range(4):
        run = client.create_run(experiment).info.run_id
        logged.append(client.create_logged_model(experiment, "model", run))
        client.log_model_artifacts(logged[-1].model_id, str(nights[0].stages["validate"]))
    for (name, part), model in zip(((f"nightloom-{NAME}", ""), ("ours", "/part")), logged, strict=False):
        client.create_registered_model(name)
        client.create_model_version(name, model.artifact_location + part, model.source_run_id, model_id=model.model_id)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for model in logged[:3]:
            database.execute("UPDATE logged_models SET creation_timestamp_ms = ? WHERE model_id = ?", (int(at * 1000), model.model_id))
    command = ["trim", "--keep", "2", "--root", str(tmp_path)]
    trial = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "1 models in MLflow without a version would be deleted" in trial.output
    assert len(client.search_logged_models([experiment])) == 4
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert {one.model_id for one in client.search_logged_models([experiment])} == {logged[at].model_id for at in (0, 1, 3)}
    there = [Path(model.artifact_location.removeprefix("file://")).exists() for model in logged]
    assert there == [True, True, False, True]
    assert "without a version" not in CliRunner().invoke(app, command).output


class OfThese(Registry):
    """A registry of what it is given: MLflow's database takes seconds to make."""

    def __init__(self, *versions: Version) -> None:
        self.held = versions

    def versions(self, name: str) -> list[Version]:
        return [one for one in self.held if one.name == name]


def test_click_heads_are_kept_and_go_as_recommenders_do(nights: list[Made], tmp_path: Path) -> None:
    heads, home, serving = list[Version](), tmp_path / "cache" / "champions", tmp_path / "cache" / "serving"
    for number in (1, 3):
        (serving / f"nightloom-{NAME}{CLICKS}-v{number}-abcdabcd").mkdir(parents=True)
    for number, (made, aliases) in enumerate(zip(nights, ((), ("previous",), ("champion", "challenger")), strict=False), 1):
        tags = {"nightloom.night": made.night.night, "nightloom.data_hash": made.snapshot.hash}
        heads.append(Version(f"nightloom-{NAME}{CLICKS}", str(number), "abcdabcd", tags, aliases))
        (home / f"{heads[-1].model}-v{number}-abcdabcd").mkdir(parents=True)
    (home / f"nightloom-other{CLICKS}-v1-abcdabcd").mkdir()  # of a name without nights here
    found = old(tmp_path, 1, aliased(Storage(tmp_path), OfThese(*heads)))
    assert places(found, "champions") == {place / f"nightloom-{NAME}{CLICKS}-v1-abcdabcd" for place in (home, serving)}
    assert places(found, "snapshots") == {nights[3].snapshot.path}
    assert places(found, "stages") == {nights[0].stages["fine_tune"], *nights[3].stages.values()}


def test_what_is_young_stays_whoever_made_it_and_old_halves_go(nights: list[Made], tmp_path: Path) -> None:
    home = tmp_path / "stages" / NAME / "fine_tune"
    for name in ("killed.partial", "resumed.partial", f"{TRIMMED}cut-off"):
        (home / name).mkdir()
        (home / name / "checkpoint.bin").write_bytes(b"x")
    set_back(home / "killed.partial", 1)
    young = write_snapshot(
        Tables(pd.DataFrame({"user_id": ["u"], "item_id": ["z"], "event": "e", "order": [1]})), tmp_path / "snapshots" / NAME, {}
    )
    found = old(tmp_path, 1, {})
    assert {path.name for path in places(found, "stages")} >= {"killed.partial", f"{TRIMMED}cut-off"}
    assert "resumed.partial" not in {path.name for path in places(found, "stages")}
    assert young.path not in places(found, "snapshots")


def test_pictures_go_when_no_snapshot_that_stays_names_them(tmp_path: Path) -> None:
    """The second night's data name one picture of the first one's and one of their own."""
    home, shown = tmp_path / "snapshots" / NAME, ([b"both", b"first"], [b"both", b"second"], [b"both"])
    for day, cells in enumerate(shown, 1):
        live(tmp_path, day, rows=day, titles=[])
        items = pd.DataFrame({"item_id": [f"i{n}" for n in range(len(cells))], "photo": pd.Series(cells, dtype=object)})
        items, pictures = take_in(items, ["photo"], None, home / STORE)
        events = pd.DataFrame({"user_id": ["u"], "item_id": ["i0"], "event": ["buy"], "order": [day]})
        snapshot = write_snapshot(Tables(events, items, features={"photo": "image"}), home, {}, pictures=pictures)
        Manifest("collect", snapshot.hash[:16], str(snapshot.path)).save(
            tmp_path / "nights" / NAME / f"2026010{day}-020000" / "manifests" / "collect.json"
        )
    cache = VectorCache(tmp_path / "cache" / "images" / "clip", 1)  # a shard for each
    digests = {cell: sha256(cell).digest() for cells in shown for cell in cells}
    cache.by_key(list(digests.values()), lambda keys, _: np.ones((len(keys), 4), dtype=np.float32))
    (cache.folder / ".7.9.tmp").write_bytes(b"left by a kill")
    set_back(cache.folder, 1)
    (home / STORE / "ab").mkdir()
    (home / STORE / "ab" / "abc.partial").write_bytes(b"left by a kill")
    set_back(tmp_path / "snapshots", 1)
    leave_unused()
    names = {cell: sha256(cell).hexdigest() for cells in shown for cell in cells}
    assert {path.name for path in places(old(tmp_path, 2, {}), "pictures")} == {names[b"first"], "abc.partial"}
    assert len(places(old(tmp_path, 2, {}), "images")) == 2  # the first night's own, and what the kill left
    found = old(tmp_path, 1, {})
    assert home / STORE not in {one.path for one in found}
    done = CliRunner().invoke(app, ["trim", "--keep", "1", "--root", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"snapshots/{NAME}/{STORE} (some of it)" in done.output
    assert [path.read_bytes() for path in sorted((home / STORE).glob("*/*"))] == [b"both"]
    asked: list[bytes] = []
    cache.by_key(list(digests.values()), lambda keys, _: asked.extend(keys) or np.ones((len(keys), 4), dtype=np.float32))
    assert set(asked) == {digests[b"first"], digests[b"second"]}


def test_a_study_keeps_what_it_goes_on_from(nights: list[Made], tmp_path: Path) -> None:
    study = replace(nights[1].night, run_directory="tuning/shop")
    shutil.copytree(nights[1].night.folder / "manifests", study.folder / "manifests")
    found = old(tmp_path, 1, {})
    assert not {nights[1].snapshot.path, *nights[1].stages.values()} & {one.path for one in found}


def test_folders_that_were_moved_are_known_by_their_place(nights: list[Made], tmp_path: Path) -> None:
    before = {one.path.relative_to(tmp_path) for one in old(tmp_path, 2, {})}
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("nights", "stages", "snapshots", "cache"):
        (tmp_path / name).rename(moved / name)
    assert {one.path.relative_to(moved) for one in old(moved, 2, {})} == before


def test_a_kill_while_deleting_leaves_nothing_that_looks_finished(
    nights: list[Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        (path / "out.bin").unlink(missing_ok=True)
        raise KeyboardInterrupt

    found = old(tmp_path, 2, {})
    with monkeypatch.context() as patch:
        patch.setattr("nightloom.promotion.trim.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            delete(found)
    assert not found[0].path.exists()
    left = [one for one in old(tmp_path, 2, {}) if TRIMMED in one.path.name]
    assert len(left) == 1
    delete(left)
    assert not left[0].path.exists()


WORK = """
import sys
from pathlib import Path
from nightloom.runs.stages import Night, run_stage
from tests.small_bundle import small_config
night = Night(small_config("shop"), "20260109-020000", Path(sys.argv[1]))
run_stage(night, "validate", lambda folder: {}, config={"another": 1})
print("between two stages", flush=True)
sys.stdin.read()
"""


def test_nothing_is_trimmed_while_a_night_runs(nights: list[Made], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nightloom.cli", "trim", "--keep", "2", "--root", str(tmp_path)]
    everything = sorted(tmp_path.rglob("*"))
    with subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as night:
        assert night.stdout is not None
        assert night.stdout.readline() == "between two stages\n"
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert set(everything) <= set(tmp_path.rglob("*"))
        night.kill()
    assert refused.returncode == 2
    assert "at work under" in refused.stderr
    trial = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    assert trial.returncode == 0, trial.stderr
    assert set(everything) <= set(tmp_path.rglob("*"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = trial.stdout.strip().splitlines()
    assert said[:-1] == done.stdout.strip().splitlines()[:-1]
    assert "would be deleted" in said[-1]
    assert f"stages/shop/fine_tune/{nights[0].stages['fine_tune'].name}" in done.stdout
    assert not nights[0].stages["fine_tune"].exists()


def test_who_starts_while_another_trims_waits_and_two_do_not_trim(tmp_path: Path) -> None:
    with not_in_use(tmp_path):
        with pytest.raises(InputError, match="at work"), not_in_use(tmp_path):
            pass
        waiting = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
    assert waiting.communicate(timeout=60)[0] == "between two stages\n"
    with pytest.raises(InputError, match="no such folder"), not_in_use(tmp_path / "none"):
        pass
