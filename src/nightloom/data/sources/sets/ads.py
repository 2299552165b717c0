"""Samples of two advertising logs, Avazu and Criteo: every row is an ad that was shown, and says whether it was clicked.

A click is an event `click`, an ad shown and not clicked an `impression`. All that is known of the occasion stays in the events as
context columns: codes as text, counts as numbers.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nightloom.data.sources.sets.files import Content, FileSet

SOURCE = "github.com/Lapis-Hong/Wide-ResDNN at 9889f93 (data/{0}, {0}.train.csv, {0}.dev.csv and {0}.test.csv)"
AVAZU_LICENCE = (
    "Avazu click log, sample: terms of the Kaggle competition avazu-ctr-prediction, https://www.kaggle.com/c/avazu-ctr-prediction/rules."
)
CRITEO_LICENCE = "Criteo display advertising log, sample: terms of Criteo Labs and of the Kaggle competition criteo-display-ad-challenge."
NO_DEVICE = "a99f214a"
"""The device_id of all devices that have none."""
COUNTS = tuple(f"I{number}" for number in range(1, 14))
CODES = tuple(f"C{number}" for number in range(1, 27))


def read_avazu(train: Path, dev: Path, test: Path) -> Content:
    """Tables of Avazu; only the first file has a header.

    The user is the device, or where that is unknown (87 % of rows) its address and model, as in the competition. The item is C14,
    which by all signs is the creative; its size (C15 x C16) and its group (C17) describe it. All rows are of one hour and are
    sorted by a random id, so `order` is the place in the files: no time, but the publisher's split.
    """
    first = pd.read_csv(train, dtype="str")
    rows = pd.concat([first, *(pd.read_csv(path, dtype="str", names=list(first)) for path in (dev, test))], ignore_index=True)
    known = rows["device_id"] != NO_DEVICE
    device = rows["device_id"].where(known, rows["device_ip"] + "/" + rows["device_model"])
    context = rows.drop(columns=["id", "click", "C14", "C15", "C16", "C17"]).astype("category")
    ads = rows.assign(size=rows["C15"] + "x" + rows["C16"]).groupby("C14", sort=False)
    items = ads.agg(size=("size", "first"), group=("C17", "first")).rename_axis("item_id").reset_index()
    return Content({"events": _shown(device, rows["C14"], rows["click"], context), "items": items})


def read_criteo(train: Path, dev: Path, test: Path) -> Content:
    """Tables of Criteo, whose columns are not explained: 13 counts and 26 codes.

    Nothing says who saw an ad or which ad it was. So each row is a stranger (`row-<n>`) who saw the one ad `undisclosed`: that is
    what is known, and all that can be learnt is the probability of a click given the context. `order` is the place in the files.
    """
    names = ["clicked", *COUNTS, *CODES]
    rows = pd.concat([pd.read_csv(path, sep="\t", names=names, dtype="str") for path in (train, dev, test)], ignore_index=True)
    context = pd.concat([rows[list(COUNTS)].astype("float64"), rows[list(CODES)].astype("category")], axis=1)
    strangers = pd.Series([f"row-{number}" for number in range(1, len(rows) + 1)])
    ad = pd.Series("undisclosed", index=rows.index)
    return Content({"events": _shown(strangers, ad, rows["clicked"], context), "items": pd.DataFrame({"item_id": ["undisclosed"]})})


def _shown(user: pd.Series, item: pd.Series, clicked: pd.Series, context: pd.DataFrame) -> pd.DataFrame:
    event = clicked.map({"1": "click", "0": "impression"})
    return pd.DataFrame({"user_id": user, "item_id": item, "order": clicked.index, "event": event}).join(context)


def _files(name: str, digests: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip((f"{name}.train.csv", f"{name}.dev.csv", f"{name}.test.csv"), digests, strict=True))


AVAZU = FileSet(
    "Avazu sample",
    "ads-ctr",
    _files(
        "avazu",
        (
            "49fb8cdcadfd9030a6fcb8cd97fe8205d94b84723ee8292e229d741ce1362e4f",
            "1dbd14ef356202a106766d175ab20dfa182838c8cf77e6b018dd18df05c7e757",
            "9c81e37b0766fb1daa430706c0c8188046e6daf6a295ab667687d87dada32f35",
        ),
    ),
    SOURCE.format("avazu"),
    AVAZU_LICENCE,
    read_avazu,
)
CRITEO = FileSet(
    "Criteo sample",
    "ads-ctr",
    _files(
        "criteo",
        (
            "2b0614035f6c931dc4ac2c1a1a26fa954f2b9231703f3a77bcdd53d9d9f29872",
            "7ac8a164e43a9903be3d43e640bcd464cfa0d96d7a652ec8ef8a33fe97cac6b9",
            "3a7a78b694945482aede520e68300b0e2748603363072822cfbbb9f72d0dfd9a",
        ),
    ),
    SOURCE.format("criteo"),
    CRITEO_LICENCE,
    read_criteo,
)
