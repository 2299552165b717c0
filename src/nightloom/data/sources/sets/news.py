"""The news sample of DKN: which of the titles that Bing News showed were clicked.

Source: Wang, Zhang, Xie and Guo, DKN: Deep Knowledge-Aware Network for News Recommendation, WWW 2018.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from nightloom.data.sources.sets.files import Content, FileSet

LICENCE = "News sample of DKN, github.com/hwwang55/DKN: MIT License, Copyright (c) 2017 Hongwei Wang."
PUBLISHER = "github.com/hwwang55/DKN at 90a1880 (data/news)"
CLICKED_TOO = "shown and not clicked, of a title that the same user clicked in another row"


def read(train: Path, test: Path) -> Content:
    """Tables from the two files, rows of `user, title, clicked, entities`.

    A click is an event `click`, a title that was shown and not clicked an `impression`. There are no times: `order` is the place in
    the files, the test file after the other. It orders a user's clicks; a user's impressions stand before all his clicks, so
    where they stand among the clicks says nothing. Titles are lower case without stop words, and are the items' ids.
    """
    rows = pd.concat([_rows(train), _rows(test)], ignore_index=True)
    clicked = rows["clicked"] == "1"
    pairs = pd.MultiIndex.from_frame(rows[["user_id", "title"]])
    doubtful = ~clicked & pairs.isin(pairs[clicked])
    events = pd.DataFrame(
        {
            "user_id": rows["user_id"],
            "item_id": rows["title"],
            "order": rows.index,
            "event": clicked.map({True: "click", False: "impression"}),
        }
    )
    items = rows.drop_duplicates("title")
    entities = items["entities"].str.replace(r"\d+:", "", regex=True).str.replace(";", "|")
    described = pd.DataFrame({"item_id": items["title"], "title": items["title"], "entities": entities})
    return Content({"events": events[~doubtful], "items": described}, {CLICKED_TOO: int(doubtful.sum())})


def _rows(path: Path) -> pd.DataFrame:
    """Entities are written `1:One;2:Two`."""
    names = ["user_id", "title", "clicked", "entities"]
    return pd.read_csv(path, sep="\t", names=names, dtype="str", quoting=csv.QUOTE_NONE, keep_default_na=False)


NEWS = FileSet(
    "Bing News sample of DKN",
    "news-bing-dkn",
    {
        "raw_train.txt": "9a699aac3bc2e95437ea943f36771764e45dc2b16ff86db6aee54e38010fd839",
        "raw_test.txt": "5698c122c7643b0f5937e109fb2fc9a7716147fb3e15ab10c70eb4f76f2eefc9",
    },
    PUBLISHER,
    LICENCE,
    read,
)
