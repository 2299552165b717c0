"""Stages of a night: idempotent folders with a manifest.

A stage's folder is named by a key made of what went in: what the stages before it made (by content, not by their keys), the values
of the config that it reads (`nightloom.runs.keys`), and the code that it runs (`nightloom.runs.code`). The same key gives the same
folder, so a night that was killed and started again finds what was done and goes on from there. A stage that is made anew and gives
the same files leaves the stages after it as they are.

    mlruns/stages/<name>/<stage>/<key>/manifest.json + outputs      finished
    mlruns/stages/<name>/<stage>/<key>.partial/                     being made, or left by a kill

    mlruns/stages/<name>/<stage>/<key>.damaged-1/           no longer what was written: set aside, and made again

Before a finished folder is used again, each file's size is compared with the manifest, and its digest once in the life of a process.

With a store (`nightloom.runs.storage`) a finished folder is published there, and one that another machine published is fetched.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from nightloom.config import RunConfig, hash_json
from nightloom.core.digests import check_file, digest, read_sealed, set_aside, warn, write_sealed
from nightloom.core.disk import disk_of
from nightloom.core.errors import DamagedError, InputError
from nightloom.runs.backfill import FOLDER, as_of_that_day
from nightloom.runs.code import code_of
from nightloom.runs.locks import in_use, stage_lock
from nightloom.runs.processes import cpu_seconds
from nightloom.runs.storage import Storage, files_in

MANIFEST = "manifest.json"
"""Written last: without it a stage is not finished."""


@dataclass(frozen=True)
class Manifest:
    """What one stage took in, made and measured; small enough to hand from task to task.

    Attributes:
        stage: name of the stage.
        key: hash of all that went in; also the folder's name.
        folder: where the outputs are.
        inputs: stage or source name -> key or content hash.
        outputs: file name, relative to the folder -> size in bytes.
        digests: file name -> SHA-256 of its content.
        content: hash of the outputs that later stages read; empty where the key says all (a snapshot is named by its content).
        figures: what the stage measured (JSON values).
        seconds: wall time of making it.
        peak_mb: peak resident memory of this process and its children, in MiB.
        cpu_seconds: of this process and of its children that ended meanwhile, on all cores together.
        status: "done" when made now, "reused" when found finished.
    """

    stage: str
    key: str
    folder: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    content: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: float = 0.0
    cpu_seconds: float = 0.0
    status: str = "done"

    @property
    def path(self) -> Path:
        """The stage's folder."""
        return Path(self.folder)

    @property
    def made(self) -> str:
        """What was made, for the keys of the stages that read it."""
        return self.content or self.key

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_sealed(path, asdict(self))

    @classmethod
    def load(cls, path: Path, *, may_lack_seal: bool = True) -> Manifest:
        """Read a manifest written by `save`.

        Args:
            path: the file.
            may_lack_seal: whether it may be of a night of Nightloom 0.2, whose manifests held no digest of themselves.

        Raises:
            DamagedError: it is missing, or not what was written.
        """
        content = read_sealed(path, may_lack_seal=may_lack_seal)
        try:
            return cls(**content)
        except TypeError as error:
            raise DamagedError(path, f"it is no manifest ({error})") from error

    def check(self, folder: Path) -> None:
        """Check that a folder holds the outputs as they were made: sizes each time, digests once in the life of a process.

        What links lead to outside of the folder counts by its place alone, as in `content`: it is checked where it was made.

        Raises:
            DamagedError: an output is missing, or holds something else.
        """
        home = folder.resolve()
        for name, size in self.outputs.items():
            if (folder / name).resolve().is_relative_to(home):
                check_file(folder / name, size, self.digests[name])
            elif not (folder / name).is_file():
                raise DamagedError(folder / name, "what it links to is missing")


@dataclass(frozen=True)
class Night:
    """One run of the chain: its config, its name in time, and where its files go.

    Attributes:
        config: the run's configuration.
        night: id of this night, sortable by time (for example 20261124-020000).
        root: the mlruns folder.
        force: train and decide again even where the inputs are those of the last night.
        run_directory: folder under `root` that takes the place of the night's; for chains that are no night, such as a tuning.
        started_by: who started it by hand, where that is known.
        as_of: the past day that it is a night of (`nightloom.runs.backfill`); None for tonight.
    """

    config: RunConfig
    night: str
    root: Path
    force: bool = False
    run_directory: str | None = None
    started_by: str = ""
    as_of: date | None = None

    @classmethod
    def start(cls, config: RunConfig, root: Path, *, force: bool = False, run_directory: str | None = None, started_by: str = "") -> Night:
        """Name a new night by the clock, in UTC; no folder is made yet."""
        return cls(config, datetime.now(UTC).strftime("%Y%m%d-%H%M%S"), root.resolve(), force, run_directory, started_by)

    @classmethod
    def past(cls, config: RunConfig, root: Path, day: date, *, started_by: str = "") -> Night:
        """Name a new night of a past day.

        Raises:
            InputError: the day is still to come, or no event was before it.
        """
        tonight = cls.start(as_of_that_day(config, day), root, started_by=started_by)
        return replace(tonight, run_directory=f"nights/{config.name}/{FOLDER}{day}-{tonight.night}", as_of=day)

    @property
    def now(self) -> datetime:
        """The moment at which it counts as run: the beginning of a past day."""
        return datetime.combine(self.as_of, time(), UTC) if self.as_of else datetime.now(UTC)

    @property
    def storage(self) -> Storage:
        """The mlruns folder, and the store behind it where there is one."""
        return Storage.of(self.root)

    @property
    def folder(self) -> Path:
        """`mlruns/nights/<name>/<night>`, where report.json and what a person reads go."""
        return self.root / (self.run_directory or f"nights/{self.config.name}/{self.night}")

    @property
    def latest(self) -> Path:
        """The link to the last finished night of this name (may not exist)."""
        return self.root / "nights" / self.config.name / "latest"

    def last_rows(self) -> dict[str, int] | None:
        """Rows per table of the last finished night, or None on the first; a past day has none to compare with."""
        if self.as_of:
            return None
        counts: dict[str, int] | None = (self.last_report() or {}).get("rows")
        return counts

    def last_report(self) -> dict[str, Any] | None:
        """What the last finished night reported; None on the first, or where the report can not be read, which is said."""
        report = self.latest / "report.json"
        if not report.exists():
            return None
        try:
            return dict(json.loads(report.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            warn(f"{report}: it can not be read ({error}), so tonight counts as the first night.")
            return None


def run_stage(
    night: Night,
    stage: str,
    body: Callable[[Path], Mapping[str, Any]],
    *,
    inputs: Sequence[Manifest] = (),
    config: Mapping[str, Any],
    code: Sequence[Callable[..., Any] | str] = (),
    results: Sequence[str] = ("*",),
    salt: str = "",
    resumable: bool = False,
    own: bool = False,
) -> Manifest:
    """Make a stage's folder, or find it made: here, or in the store.

    Args:
        night: the night that runs.
        stage: name of the stage.
        body: writes the outputs into the folder that it gets, and returns the stage's figures.
        inputs: manifests of the stages that this one reads.
        config: what of the config shapes the result, by name: `ReadKeys.values`, and plain values (JSON).
        code: the functions that `body` calls for its result, or names of modules; see `code_of`. `body` itself is
            only wiring and does not count.
        results: patterns of the outputs that later stages read; times, logs and pages for people are none.
        salt: anything else that tells results apart (a content hash, a forced night's id).
        resumable: whether `body` can go on from what a killed run left in the folder.
        own: whether each night does it for itself; then its folder stays out of the store, where nobody would look for it.

    Returns:
        The manifest, also copied into the night's folder under manifests/.

    Raises:
        InputError: another run is making the same stage now, or the disk is full or read-only.
        NightloomError: the store can not be reached.
    """
    if own:
        salt = night.night
    key = hash_json([stage, [[one.stage, one.made] for one in inputs], dict(config), salt, code_of(code)])[:16]
    storage, place = night.storage, f"stages/{night.config.name}/{stage}/{key}"
    final = night.root / place
    with disk_of(final.parent), stage_lock(final.with_name(f"{key}.lock")):
        in_use(night.root.resolve())
        manifest = _finished(final)
        fetched = manifest is None and not own and storage.fetch(place)
        if fetched:
            manifest = _finished(final)
        if manifest is None:
            if not resumable:
                _delete_left(final)
            inputs_said = {one.stage: one.key for one in inputs} | ({"salt": salt} if salt else {})
            manifest = _make(final, stage, body, inputs_said, results, resumable=resumable)
        if not own:
            storage.publish(place, again=fetched and manifest.status == "done")  # what came from there was damaged
        copies = night.folder / "manifests"
        copies.mkdir(parents=True, exist_ok=True)
        manifest.save(copies / f"{stage}.json")
    return manifest


def _delete_left(final: Path) -> None:
    """Delete what killed runs left of a stage under other keys, which nobody goes on with; a run that is at work holds its lock."""
    for partial in final.parent.glob("*.partial"):
        if partial.stem != final.name:
            lock = partial.with_suffix(".lock")
            with suppress(InputError), stage_lock(lock):
                shutil.rmtree(partial)
                lock.unlink()


def _finished(folder: Path) -> Manifest | None:
    """The manifest of a stage that is finished and whole; what is damaged is set aside."""
    if not folder.exists():
        return None
    try:
        manifest = Manifest.load(folder / MANIFEST, may_lack_seal=False)
        manifest.check(folder)
    except DamagedError as damage:
        set_aside(folder, damage, "the stage is made again")
        return None
    return replace(manifest, folder=str(folder), status="reused")


def _make(
    final: Path,
    stage: str,
    body: Callable[[Path], Mapping[str, Any]],
    inputs: Mapping[str, str],
    results: Sequence[str],
    *,
    resumable: bool,
) -> Manifest:
    """Run a stage's body in a partial folder, which becomes the final one when all is there.

    What a failed body leaves is kept only where it is gone on with: on a full disk it would be in the way.
    """
    partial = final.with_name(f"{final.name}.partial")
    if partial.exists() and not resumable:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    try:
        with Usage() as usage:
            figures = dict(body(partial))
        outputs = {name: size for name, size in files_in(partial).items() if name != MANIFEST}
        digests = {name: digest(partial / name) for name in outputs}
        manifest = Manifest(
            stage=stage,
            key=final.name,
            folder=str(final),
            inputs=inputs,
            outputs=outputs,
            digests=digests,
            content=_content(partial, digests, results),
            figures=figures,
            seconds=round(perf_counter() - began, 3),
            peak_mb=round(usage.peak_mb, 1),
            cpu_seconds=round(usage.cpu_seconds, 2),
        )
        manifest.save(partial / MANIFEST)
        partial.rename(final)
    except Exception:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _content(folder: Path, digests: Mapping[str, str], results: Sequence[str]) -> str:
    """Hash of the outputs that later stages read.

    A link counts by the folder and the name of what it leads to: a snapshot's folder is named by its content, and may be moved.
    """
    read = {name: digest for name, digest in digests.items() if any(fnmatch(name, one) for one in results)}
    for name in read:
        if (folder / name).is_symlink():
            target = (folder / name).resolve()
            read[name] = f"{target.parent.name}/{target.name}"
    return hash_json(read or dict(digests))


class Usage:
    """What the block uses: peak resident memory of this process and its children, sampled ten times a second, and CPU seconds.

    Attributes:
        peak_mb: in MiB.
        cpu_seconds: of this process and of its children that ended in the block, on all cores together.
    """

    def __enter__(self) -> Usage:
        self.peak_mb, self.cpu_seconds, self._began = 0.0, 0.0, cpu_seconds()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_seconds = cpu_seconds() - self._began

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)
            if self._stop.wait(0.1):
                return
