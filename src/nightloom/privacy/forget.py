"""Forgetting a person: the store, snapshots, stages, nights and MLflow's files, and which registered versions had seen the person.

Every step may be repeated. The hash goes to the list first, so that no later collect reads the person again. The versions are marked
before anything is taken out of the snapshots by which they are found. Whoever was killed starts again, with the id, and ends the same.

What has learned from the person is not unlearned: the versions are marked (`SAW_FORGOTTEN`), no night starts from one or measures its
challenger by one, and the next one that passes its gate takes their place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from nightloom.core.digests import check_listing, listing, read_sealed, write_sealed
from nightloom.core.files import PARTIAL
from nightloom.core.names import check_name
from nightloom.core.privacy_key import hashes_in, key_of_environment, privacy_key
from nightloom.core.pseudonyms import Pseudonyms
from nightloom.data.tables.kept import drop, kept_home
from nightloom.data.tables.snapshot import SAID
from nightloom.data.tables.without_people import PEOPLE
from nightloom.privacy.redact import redact, without_rows
from nightloom.privacy.remote_files import redact_runs
from nightloom.promotion.registered import CLICKS, SAW_FORGOTTEN, Version
from nightloom.promotion.registry import Registry
from nightloom.promotion.trim import TRIMMED
from nightloom.runs.forgotten import Forgotten
from nightloom.runs.locks import not_in_use
from nightloom.runs.service_store import central_address, store_file
from nightloom.runs.storage import Storage
from nightloom.serving.settings import rebuilt_files
from nightloom.serving.store.erase import compact, erase_from_base, erase_from_store, marks_in

KEPT_STAGES = ("load_pretrained",)
"""Stages that read nothing of people. The others are deleted: they are made again from what is left."""
HOMES = ("nights", "serving", "tuning", "replay", "transfer", "clicks", "baselines", "bench", "logs")
"""Folders under the mlruns folder with folders of recommenders, in which files are gone through."""
SCRATCH = ".forget"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """What was done.

    Attributes:
        rows: of the service's store.
        files: that held the id, or were deleted with all that was made of the person's events.
        versions: registered versions that had seen the person, or may have.
        left: what could not be reached, in sentences.
    """

    rows: int
    files: int
    versions: tuple[Version, ...]
    left: tuple[str, ...] = ()


def forget(name: str, user: str, root: Path, progress: Progress = lambda _: None, *, elsewhere: bool = False) -> Done:
    """Take a person out of everything that is kept of a recommender.

    Args:
        name: of the recommender.
        user: the id, as the sources have it.
        root: the mlruns folder.
        progress: gets a line for each step, never the id.
        elsewhere: whether another machine that shares the store has cleared it: what the person did since counts.

    Raises:
        InputError: it is no name, a night is at work, or the list of forgotten people was made by another key.
        NightloomError: MLflow or the store can not be reached.
    """
    check_name(name)
    root, done = root.resolve(), list[Done]()
    for one in (user, *_pseudonyms(user)):
        done.append(_forget(name, one, root, progress, elsewhere=elsewhere))
    versions = {(one.model, one.version): one for part in done for one in part.versions}
    left = tuple(dict.fromkeys(line for part in done for line in part.left))
    return Done(sum(one.rows for one in done), sum(one.files for one in done), tuple(versions.values()), left)


def _pseudonyms(user: str) -> tuple[str, ...]:
    """The pseudonym that an id has by the environment's key, if there is one: files may hold either."""
    key = key_of_environment()
    return () if key is None else (Pseudonyms(key)(user),)


def forgotten_elsewhere(name: str, root: Path) -> list[str]:
    """Ids in this machine's snapshots of people whom another machine that shares the store has forgotten; the others go to the list.

    Raises:
        InputError: the machines have different keys.
        NightloomError: the store can not be reached.
    """
    root = root.resolve()
    marks = marks_in(store_file(root, name), central_address())
    if not marks:
        return []
    listed = Forgotten.load(root, name)
    known = {act.hash for act in listed.acts if act.done}
    new = hashes_in(marks, privacy_key(root), "people who were forgotten on another machine") - known
    here: dict[str, str] = {}
    if new:
        _delete_kept(root, name)
        for snapshot in _snapshots(root, name):
            for table, columns in PEOPLE.items():
                if (path := snapshot / f"{table}.parquet").exists():
                    ids = {one for column in columns for one in pq.read_table(path, columns=[column])[column].unique().to_pylist() if one}
                    here |= {listed.hash(one): one for one in ids}
    for hash_ in sorted(new - set(here)):
        listed = listed.noted_by_hash(hash_, done=True)
    return [here[hash_] for hash_ in sorted(new & set(here))]


def _forget(name: str, user: str, root: Path, progress: Progress, *, elsewhere: bool) -> Done:
    """The same of one name of a person: the id, or a pseudonym."""
    with not_in_use(root):
        listed = Forgotten.load(root, name).noted(user)
        progress("noted by its keyed hash")
        registry = Registry(root) if _registered(root) else None
        versions = _mark(registry, name, user, root) if registry else ()
        listed = listed.noted(user, [one.version for one in versions])
        rows, files = 0, 0
        if elsewhere:
            compact(store_file(root, name))
        else:
            rows = erase_from_store(store_file(root, name), user, listed.mark(user), central_address())
        progress(f"{rows:,} rows of the service's store deleted")
        for snapshot in _snapshots(root, name):
            files += _redact_snapshot(snapshot, user)
        files += sum(erase_from_base(path, user) for path in store_file(root, name).parent.glob(f"{name}-base-*.db"))
        files += _delete_kept(root, name)
        progress("snapshots gone through")
        files += _delete_stages(root, name)
        progress("stages deleted, they are made again")
        files += _delete_rebuilt(root, name)
        files += sum(redact(path, user) for home in _homes(root, name) for path in _files(home))
        progress("nights gone through")
        left = list[str]()
        if registry:
            files += _redact_artifacts(registry, name, user, left)
            progress("files of MLflow gone through")
        files += _publish(root, name)
        if central_address():
            left.append("Other machines that share PostgreSQL have their own files: their next night goes through them.")
        elif Storage.of(root).url:
            left.append("Other machines that share the store have files and a list of their own: forget the person there, too.")
        listed.noted(user, done=True)
    return Done(rows, files, versions, tuple(left))


def saw(snapshot: Path, user: str) -> bool:
    """Whether a snapshot holds rows of a person; one that is gone may have."""
    if not (snapshot / SAID).is_file():
        return True
    for table, columns in PEOPLE.items():
        path = snapshot / f"{table}.parquet"
        if path.exists():
            for column in columns:
                if pq.read_table(path, columns=[column], filters=[(column, "==", user)]).num_rows:
                    return True
    return False


def _registered(root: Path) -> bool:
    return "NIGHTLOOM_MLFLOW_URI" in os.environ or (root / "mlflow.db").exists()


def _mark(registry: Registry, name: str, user: str, root: Path) -> tuple[Version, ...]:
    """Mark the versions that had seen the person. One that was marked for another person before counts only where it had seen this one."""
    found = list[Version]()
    known = Forgotten.load(root, name).act(user)
    for kind in (name, name + CLICKS):
        for version in registry.versions(kind):
            place = root / "snapshots" / name / version.tags.get("nightloom.data_hash", "none")[:16]
            if (known and kind == name and version.version in known.versions) or saw(place, user):
                registry.mark(version, SAW_FORGOTTEN, datetime.now(UTC).strftime("%Y-%m-%d"))
                found.append(version)
    return tuple(one for one in found)


def _snapshots(root: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in (root / "snapshots" / name).glob(f"*/{SAID}"))


def _redact_snapshot(folder: Path, user: str) -> int:
    """Take a person's rows out of a snapshot; it keeps its name, by which versions know it. Gives the number of files that changed."""
    scratch = folder / SCRATCH
    if not (scratch / SAID).is_file():
        shutil.rmtree(scratch, ignore_errors=True)
        said = read_sealed(folder / SAID)
        check_listing(folder, said["files"])
        scratch.mkdir()
        for name in filter(_of_people, said["files"]):
            table = pq.read_table(folder / name)  # one after the other: parts of events are many
            kept = without_rows(table, user)
            if not (gone := len(table) - len(kept)):
                continue
            (scratch / name).parent.mkdir(exist_ok=True)
            pq.write_table(kept, scratch / name)
            kind, what = ("rejected", name.removeprefix("rejected_")) if name.startswith("rejected_") else ("counts", name)
            table_name = Path(what).parts[0].removesuffix(".parquet")
            said[kind] = {**said[kind], table_name: said[kind][table_name] - gone}
        if not any(scratch.iterdir()):
            scratch.rmdir()
            return 0
        said["files"] = {**said["files"], **listing(scratch, SAID)}
        said["redacted"] = int(said.get("redacted", 0)) + 1
        write_sealed(scratch / SAID, said)  # last: with it the scratch folder is whole
    names = sorted((path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file()), key=lambda one: one.name == SAID)
    for name in names:
        (scratch / name).replace(folder / name)
    shutil.rmtree(scratch)
    return len(names)


def _of_people(file: str) -> bool:
    return file.endswith(".parquet") and Path(file).parts[0].removeprefix("rejected_").removesuffix(".parquet") in PEOPLE


def _delete_rebuilt(root: Path, name: str) -> int:
    """Delete what the service built of everybody's events; it is built anew."""
    found = rebuilt_files(root / "serving" / name)
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _delete_stages(root: Path, name: str) -> int:
    """Delete what stages made of people's events; the number of files."""
    home, storage, many = root / "stages" / name, Storage.of(root), 0
    for stage in sorted(home.glob("*")):
        if stage.name in KEPT_STAGES:
            continue
        for folder in sorted(path for path in stage.iterdir() if path.is_dir()):
            many += sum(path.is_file() for path in folder.rglob("*"))
            away = folder.with_name(folder.name if folder.name.startswith(TRIMMED) else TRIMMED + folder.name)
            folder.rename(away)
            shutil.rmtree(away)
    for stage_name in storage.names(f"stages/{name}"):
        if stage_name not in KEPT_STAGES:
            storage.delete(f"stages/{name}/{stage_name}")
    return many


def _delete_kept(root: Path, name: str) -> int:
    """Delete what stages keep of people's events from night to night, and what a killed collect left; the number of files."""
    many = 0
    for home in sorted([*kept_home(root, name).glob("*"), *(root / "snapshots" / name).glob(f"{PARTIAL}*")]):
        many += sum(path.is_file() for path in home.rglob("*"))
        drop(home)
    return many


def _homes(root: Path, name: str) -> Iterator[Path]:
    for home in HOMES:
        for one in (name, name + CLICKS):
            if (root / home / one).is_dir():
                yield root / home / one


def _files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file() and not path.is_symlink())


def _redact_artifacts(registry: Registry, name: str, user: str, left: list[str]) -> int:
    """Take the id out of the files that MLflow keeps of a recommender's runs; the models themselves hold no id."""
    many = 0
    for experiment in registry.experiments(name):
        at = urlsplit(experiment.artifact_location)
        folder = Path(unquote(at.path)) if at.scheme in ("", "file") else None
        if folder is None:
            many += redact_runs(registry, experiment.experiment_id, user)
        elif folder.is_dir():
            many += sum(redact(path, user) for path in _files(folder) if "models" not in path.parts)
        elif registry.tracking.uri.startswith("http"):
            left.append(f"Files of MLflow in {folder} were not gone through: that folder is not on this machine.")
    return many


def _publish(root: Path, name: str) -> int:
    """Write what changed over what the store has."""
    storage, many = Storage.of(root), 0
    if storage.url is None:
        return 0
    for kind in ("snapshots", "nights"):
        for one in storage.names(f"{kind}/{name}"):
            place = f"{kind}/{name}/{one}"
            if (root / place).is_dir():
                storage.publish(place, again=True)
            else:
                storage.delete(place)  # it can not be gone through here, and nothing here needs it; a kill may have left it by halves
            many += 1
    return many
