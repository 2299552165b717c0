"""MovieLens in its two forms, GroupLens' own archives and the tables in the wheels of RecBole, as the same tables.

Column names are canonical, cells are text. The item id of MovieLens-1M is its title with the year in both forms, since
the wheel has no other.
"""

from __future__ import annotations

import csv
import io
from hashlib import sha256

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

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


def from_wheel(ratings: bytes, movies: bytes, users: bytes) -> dict[str, pd.DataFrame]:
    """Tables from the .inter, .item and .user files of a RecBole wheel."""
    return _same(*(_wheel_table(content) for content in (ratings, movies, users)))


def from_archive_100k(ratings: bytes, movies: bytes, people: bytes) -> dict[str, pd.DataFrame]:
    """Tables from u.data, u.item and u.user of GroupLens' ml-100k.zip."""
    events = _table(ratings, "\t", ["user_id", "item_id", "rating", "timestamp"])
    items = _table(movies, "|", ["item_id", "title", "released", "video", "address", *GENRES], "latin-1")
    flags = items[list(GENRES)] == "1"
    items["year"] = ""
    items["genre"] = [" ".join(genre for genre, flag in zip(GENRES, row, strict=True) if flag) for row in flags.to_numpy()]
    users = _table(people, "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    return _same(events, items, users)


def from_archive_1m(ratings: bytes, movies: bytes, people: bytes) -> dict[str, pd.DataFrame]:
    """Tables from ratings.dat, movies.dat and users.dat of GroupLens' ml-1m.zip."""
    events, items, users = (
        _table(content.replace(b"::", b"\t"), "\t", names, "latin-1")
        for content, names in (
            (ratings, ["user_id", "movie", "rating", "timestamp"]),
            (movies, ["movie", "item_id", "genre"]),
            (people, ["user_id", "gender", "age", "occupation", "zip_code"]),
        )
    )
    events["item_id"] = events["movie"].map(items.set_index("movie")["item_id"])
    items["title"], items["year"] = items["item_id"], ""
    items["genre"] = items["genre"].str.replace("|", " ")
    return _same(events, items, users)


def ratings_hash(events: pd.DataFrame) -> str:
    """SHA-256 (hex) of the ratings as sorted lines of user, item, rating and timestamp, parted by tabs."""
    columns = [pa.array(events[column], type=pa.string()) for column in ("user_id", "item_id", "value", "timestamp")]
    lines = pc.binary_join_element_wise(*columns, "\t")
    return sha256("\n".join(lines.take(pc.sort_indices(lines)).to_pylist()).encode()).hexdigest()


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
    """Columns are headed `name:type`."""
    frame = _table(content, "\t")
    frame.columns = pd.Index([column.partition(":")[0] for column in frame.columns])
    return frame.rename(columns={"movie_title": "title", "release_year": "year", "class": "genre"})


def _year_apart(items: pd.DataFrame) -> pd.DataFrame:
    """Part "Toy Story (1995)" into title and year, where the year does not already stand apart."""
    parts = items["title"].str.extract(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)(?: \(V\))?\s*$")
    apart = items["year"].str.fullmatch(r"\d{4}")
    return items.assign(
        title=items["title"].where(apart, parts["title"].fillna(items["title"])), year=items["year"].where(apart, parts["year"])
    )


def _same(events: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables that are the same from every source: ids without RecBole's prefix, what is unknown as missing."""
    prefix, items = "1m_", _year_apart(items)
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
                "year": items["year"],
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
