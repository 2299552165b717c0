"""Amazon reviews of 2018, two categories (office, industrial): who rated what, when, and the text of the products.

The files hold test cases of a sequential recommender, each a user's last ten reviews and the one that followed. The reviews are
rebuilt from them: a user's cases overlap, so his first history and then each next target give his reviews in their order.
That order counts, since times are days: within a day it is all there is.

Source of the data: Ni, Li and McAuley, Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects,
EMNLP 2019.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.sources.sets.files import Content, FileSet

LICENCE = (
    "Amazon review data (2018), collected by Jianmo Ni, Jiacheng Li and Julian McAuley, UC San Diego: for research; no licence is stated. "
    "Please cite Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects, EMNLP 2019."
)
PUBLISHER = (
    "github.com/zhukaiyue2005/Engram4Rec at 6aa5f35 (data/Amazon/valid/*.csv as *.valid.csv, data/Amazon/test/*.csv as *.test.csv, "
    "data/Amazon/info/*.txt as *.info.txt) and github.com/AkaliKong/MiniOneRec at 81b4ba9 (data/Amazon/index/*.item.json)"
)
WINDOW = 10
"""Longest history of a case."""
TWICE = "the same review again (user, product, time and rating)"
NO_TITLES = ("Industrial & Scientific", "Office Products")
"""Names of categories, which stand where the title of a page could not be read."""
MARKUP = re.compile(r"<[^<>]*>|\bBr><br\b|\"\s*/>\s*$")


def read(valid: Path, test: Path, info: Path, described: Path) -> Content:
    """Tables from two files of cases (the earlier first), the numbered titles of the catalogue, and the descriptions.

    A product that nobody has reviewed in the cases is known by its number alone: its id is `number-<n>`.
    """
    cases = pd.concat([_cases(path) for path in (valid, test)], ignore_index=True)
    events, numbers = _events(cases)
    first = ~events.duplicated(["user_id", "item_id", "timestamp", "value"])
    kept = events[first].sort_values("timestamp", kind="stable", ignore_index=True)
    return Content({"events": kept, "items": _items(info, described, numbers)}, {TWICE: int((~first).sum())})


def _cases(path: Path) -> pd.DataFrame:
    """One row a case; lists are written as Python lists."""
    frame = pd.read_csv(path, dtype="str")
    for column in ("item_asins", "history_item_id", "history_rating", "history_timestamp"):
        frame[column] = [ast.literal_eval(cell) for cell in frame[column]]
    return frame


def _events(cases: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """All reviews, user by user in their order, and product id -> its number in the catalogue.

    Raises:
        InputError: a case's history does not continue the case before.
    """
    reviews: dict[str, list[tuple[str, str, str]]] = {}
    numbers: dict[str, str] = {}
    targets = zip(cases["item_asin"], cases["item_id"], cases["rating"], cases["timestamp"], strict=True)
    histories = zip(cases["item_asins"], cases["history_item_id"], cases["history_rating"], cases["history_timestamp"], strict=True)
    for user, (asin, number, rating, time), (asins, known, ratings, times) in zip(cases["user_id"], targets, histories, strict=True):
        history = [(one, str(at), str(value)) for one, at, value in zip(asins, times, ratings, strict=True)]
        before = reviews.setdefault(user, list(history))
        if before[-WINDOW:] != history:
            raise InputError(f"Amazon reviews: a case of user {user} does not continue the case before; the rows are not in their order.")
        before.append((asin, time, rating))
        numbers |= {one: str(n) for one, n in zip(asins, known, strict=True)} | {asin: number}
    rows = [(user, *review) for user, found in reviews.items() for review in found]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "value"], dtype="str").astype({"timestamp": "int64"})
    return events.assign(event="rating"), numbers


def _items(info: Path, described: Path, numbers: dict[str, str]) -> pd.DataFrame:
    """The whole catalogue in the order of its numbers; text is joined by title, since the two sources number differently."""
    text: dict[str, dict[str, str]] = {}
    for product in json.loads(described.read_text(encoding="utf-8")).values():
        if not text.get(product["title"], {}).get("description"):  # of products of one name, the one that is described
            text[product["title"]] = product
    asins = {number: asin for asin, number in numbers.items()}
    rows = []
    for line in info.read_text(encoding="utf-8").splitlines():
        title, _, number = line.rpartition("\t")
        product = text.get(title, {})
        clean = plain(title)
        rows.append(
            {
                "item_id": asins.get(number, f"number-{number}"),
                "title": None if clean in NO_TITLES else clean,
                "brand": plain(product.get("brand", "")),
                "description": plain(" ".join(_parts(product.get("description", "")))),
            }
        )
    return pd.DataFrame(rows).astype("str")


def _parts(written: str) -> Iterable[str]:
    """Paragraphs of a description, each once; it is written as a Python list, and some are cut short."""
    try:
        parts = ast.literal_eval(written) if written else []
    except (SyntaxError, ValueError):
        parts = [written.strip("[]'\"").replace("\\n", " ")]
    return dict.fromkeys(parts)


def plain(text: str) -> str | None:
    """Text without markup and entities, blanks as one; None where nothing is left."""
    return " ".join(MARKUP.sub(" ", html.unescape(text)).split()) or None


def _set(title: str, category: str, name: str, digests: tuple[str, str, str, str]) -> FileSet:
    files = (f"{name}.valid.csv", f"{name}.test.csv", f"{name}.info.txt", f"{category}.item.json")
    return FileSet(title, "amazon2018-office-industrial", dict(zip(files, digests, strict=True)), PUBLISHER, LICENCE, read)


OFFICE = _set(
    "Amazon 2018 Office Products",
    "Office_Products",
    "Office_Products_5_2016-10-2018-11",
    (
        "da5847ecb789d88a8fb5ed9d8f3d10ad5b540bd6e01673572551a065dac36703",
        "5bc859f03154341ec39319567b7210b68493f9c9b4337b5e9e966ca9fbdd5818",
        "4d8c87c9b5ffd7c424d90859d1ab171985187198efd99efde25b86a40b482cbb",
        "398cb2bb7868bedf2ed8ed6b24d25e172f21b7022554d1f8ea52200478494c1c",
    ),
)
INDUSTRIAL = _set(
    "Amazon 2018 Industrial and Scientific",
    "Industrial_and_Scientific",
    "Industrial_and_Scientific_5_1996-10-2018-11",
    (
        "9a2e00e45a2c02dedf36aa76f2a3804fa563c839ca6f54566309df12b87bbecf",
        "0b9a6b6b6e43cd8ce2546c1df02ad73d3851492b5bc906aa9d42a02762daf582",
        "cb1efc39dc7636e543c01f4d89d07c5d95dfd38b0f35690d186adedd72d36afa",
        "937600c7a03652f55864a1d12d6e9fe8ca3e24ecc4e255a88216b25c5f949496",
    ),
)
