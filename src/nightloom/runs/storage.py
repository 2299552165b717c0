"""Where finished folders are kept: the mlruns folder alone, or a store behind it that several machines share.

Work is always done in the mlruns folder of the machine (NIGHTLOOM_ROOT): databases, locks and links need a file system, and libraries
read files by path. NIGHTLOOM_STORE is any address that fsspec knows (`s3://bucket/nightloom`, `file:///mnt/shared`). Each finished
folder is published there under the same place, and is fetched where the local folder lacks it. Without it nothing is copied.

    <store>/stages/<name>/<stage>/<key>/...      immutable, like snapshots/<name>/<hash>/
    <store>/nights/<name>/<night>/...            the report and what else a person reads; latest.json beside it names the last one
    <store>/.../published.json                   the folder's files, sizes and digests, written last: without it the folder is not there

What each night does for itself, such as its promotion, stays here. A store has no locks. One writer at a time is what Prefect's concurrency
limit of 1 gives. A publish that was killed is repeated from its beginning. A folder whose index is there is left as it is, since its name
is made from what went in.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from nightloom.core.digests import differs, digest
from nightloom.core.disk import FULL
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.files import whole_folder, write_json
from nightloom.core.secrets import has_secret, hidden, secrets_hidden

STORE = "NIGHTLOOM_STORE"
INDEX = "published.json"
"""File of a published folder that lists the others: relative name -> `{"size": bytes, "sha256": hex}`; bytes alone in Nightloom 0.2."""


@dataclass(frozen=True)
class Storage:
    """The mlruns folder and, where one is set, the store behind it.

    Places are relative to both, with slashes: `stages/movies/prepare/0123456789abcdef`.

    Attributes:
        root: the mlruns folder.
        url: address of the store; None where the mlruns folder is all there is.
    """

    root: Path
    url: str | None = None

    @classmethod
    def of(cls, root: Path) -> Storage:
        """The storage of an mlruns folder, with the store that NIGHTLOOM_STORE names.

        Raises:
            InputError: the address holds a password, or has no protocol.
        """
        url = os.environ.get(STORE, "").rstrip("/") or None
        if url and "://" not in url:
            raise InputError(
                f"{STORE}={hidden(f'x://{url}').removeprefix('x://')}: no protocol. Write file:///absolute/folder or s3://bucket/folder; "
                "a local folder is NIGHTLOOM_ROOT."
            )
        if url and has_secret(url):
            raise InputError(f"{STORE} holds a password or key. Leave it out: the store's library reads secrets from its own variables.")
        return cls(root, url)

    @property
    def artifacts(self) -> str:
        """Address under which MLflow keeps files of new experiments."""
        if self.url and not self.url.startswith("memory:"):  # of one process alone, and unknown to MLflow
            return f"{self.url}/artifacts"
        return (self.root.resolve() / "artifacts").as_uri()

    def publish(self, place: str, *, again: bool = False) -> None:
        """Copy a finished folder to the store, its index last; nothing where there is no store, or where it has the folder.

        Args:
            place: of the folder, which is finished in the mlruns folder.
            again: whether a folder that is there is written over; for those whose name does not tell their content.

        Raises:
            NightloomError: the store can not be written.
        """
        if self.url is None:
            return
        with self._reached():
            if self._fs.exists(self._path(f"{place}/{INDEX}")) and not again:
                return
            sizes = files_in(self.root / place)
            if sizes:
                self._fs.put([str(self.root / place / name) for name in sizes], [self._path(f"{place}/{name}") for name in sizes])
            files = {name: {"size": size, "sha256": digest(self.root / place / name)} for name, size in sizes.items()}
            self.write_json(f"{place}/{INDEX}", files)

    def fetch(self, place: str) -> bool:
        """Copy a published folder from the store into the mlruns folder, where it appears whole.

        Args:
            place: of the folder, which the mlruns folder lacks.

        Returns:
            Whether the folder is there now; False where the store has none, or where there is no store.

        Raises:
            NightloomError: the store can not be read, or lacks a file that the folder's index names, or a file there is damaged.
        """
        files = self._index(place)
        if files is None:
            return False
        sizes = {name: int(said["size"]) for name, said in files.items()}
        with whole_folder(self.root / place) as scratch, self._reached():
            try:
                for parent in {(scratch / name).parent for name in sizes}:
                    parent.mkdir(parents=True, exist_ok=True)
                if sizes:
                    self._fs.get([self._path(f"{place}/{name}") for name in sizes], [str(scratch / name) for name in sizes])
                found = files_in(scratch)
            except FileNotFoundError:
                found = {}
            remedy = f"Bring them back, or delete {INDEX} there so that the folder is made anew."
            if lost := sorted(name for name, size in sizes.items() if found.get(name) != size):
                raise NightloomError(
                    f"{self.url}/{place}: {len(lost)} of {len(sizes)} files are gone or cut short, for example {lost[0]}. {remedy}"
                )
            for name, said in files.items():
                if "sha256" in said and (content := digest(scratch / name)) != said["sha256"]:
                    found_here = differs(content, str(said["sha256"]))
                    raise NightloomError(f"{self.url}/{place}/{name}: damaged, {found_here}. {remedy}")
        return True

    def index(self, place: str) -> dict[str, int] | None:
        """Files of a published folder and their bytes; None where the store has no such folder, or where there is no store."""
        files = self._index(place)
        return None if files is None else {name: int(said["size"]) for name, said in files.items()}

    def _index(self, place: str) -> dict[str, dict[str, Any]] | None:
        """The index of a published folder, as it is written now."""
        said = self.read_json(f"{place}/{INDEX}") if self.url else None
        return None if said is None else {name: one if isinstance(one, dict) else {"size": one} for name, one in said.items()}

    def read_json(self, place: str) -> Any:
        """Content of a small file in the store; None where it is not there."""
        with self._reached():
            try:
                content = self._fs.cat_file(self._path(place))
            except FileNotFoundError:
                return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise NightloomError(
                f"{self.url}/{place}: damaged, it can not be read ({error}). Delete it, so that it is made anew."
            ) from error

    def write_json(self, place: str, content: Any) -> None:
        """Write a small file in the store, which readers see whole or not at all."""
        path = self._path(place)
        with self._reached():
            if self._on_disk:
                write_json(Path(path), content)
            else:  # one request: the object is there when it ends
                self._fs.pipe_file(path, json.dumps(content, indent=2).encode())

    def names(self, place: str) -> list[str]:
        """Names of the folders directly under a place of the store, in order; none where there is no store."""
        if self.url is None:
            return []
        with self._reached():
            try:
                found = self._fs.ls(self._path(place), detail=True)
            except FileNotFoundError:
                return []
            return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory")

    def written(self, place: str) -> float:
        """When a folder of the store was last written to, in seconds since 1970."""
        with self._reached():
            return max((self._fs.modified(path).timestamp() for path in self._fs.find(self._path(place))), default=0.0)

    def delete(self, place: str) -> None:
        """Delete a folder of the store, its index first: what a kill leaves by halves does not look published."""
        path = self._path(place)
        with self._reached():
            if self._fs.exists(f"{path}/{INDEX}"):
                self._fs.rm_file(f"{path}/{INDEX}")
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    @cached_property
    def _fs(self) -> Any:
        protocol = urlsplit(self.url or "").scheme
        options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
        try:  # listings are not cached: other machines write too
            return fsspec.filesystem(protocol, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            remedy = "Run: pip install 'nightloom[s3]'" if protocol == "s3" else "Install what fsspec names, or write another address."
            raise InputError(f"{STORE}={self.url}: {error}. {remedy}") from error

    @property
    def _on_disk(self) -> bool:
        return "file" in self._fs.protocol

    def _path(self, place: str) -> str:
        return f"{self._fs._strip_protocol(self.url).rstrip('/')}/{place}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say plainly that the store can not be reached; each library behind fsspec has errors of its own."""
        with secrets_hidden():
            try:
                yield
            except NightloomError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (*FULL, errno.EROFS):
                    raise
                raise NightloomError(
                    f"{STORE}={self.url}: the store can not be reached ({type(error).__name__}: {error}). "
                    "Check the address, the rights and the connection, then start again: finished stages are kept."
                ) from error


def files_in(folder: Path) -> dict[str, int]:
    """Files of a folder, those behind links included: relative name -> bytes, in order."""
    found = (Path(home, name) for home, _, names in os.walk(folder, followlinks=True) for name in names)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(found) if path.is_file()}
