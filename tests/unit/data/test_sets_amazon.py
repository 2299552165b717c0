"""Amazon's reviews: cases of a sequential recommender become reviews again."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.data.sources.sets import amazon
from nightloom.data.sources.sets.files import Content
from tests.unit.data.conftest import RealSet

DAY = 86_400
REVIEWS = [("B7", 5.0, 1), ("B2", 3.0, 1), ("B2", 3.0, 1), ("B9", 1.0, 2), ("B7", 4.0, 4)]
"""One user's reviews in their order: product, stars, day. The third is the second again."""
NUMBERS = {"B7": 0, "B2": 1, "B9": 3}
TITLES = ["Pens &ndash; 3 pack", 'Pencils" />', "Nobody's glue", 'Industrial & Scientific" />']


def case(user: str, reviews: list[tuple[str, float, int]]) -> dict[str, object]:
    history, (asin, stars, day) = reviews[:-1][-amazon.WINDOW :], reviews[-1]
    titles = [TITLES[NUMBERS[one]] for one, _, _ in history]
    return {
        "user_id": user,
        "item_asins": [one for one, _, _ in history],
        "item_asin": asin,
        "history_item_id": [NUMBERS[one] for one, _, _ in history],
        "item_id": NUMBERS[asin],
        "history_item_title": titles,
        "item_title": TITLES[NUMBERS[asin]],
        "history_rating": [one for _, one, _ in history],
        "rating": stars,
        "history_timestamp": [one * DAY for _, _, one in history],
        "timestamp": day * DAY,
    }


def write(folder: Path, valid: list[dict[str, object]], test: list[dict[str, object]]) -> Content:
    paths = [folder / name for name in ("valid.csv", "test.csv", "info.txt", "item.json")]
    pd.DataFrame(valid).to_csv(paths[0], index=False)
    pd.DataFrame(test).to_csv(paths[1], index=False)
    paths[2].write_text("".join(f"{title}\t{number}\n" for number, title in enumerate(TITLES)))
    described = [
        {"title": TITLES[0], "description": "", "brand": "Me &amp; You"},
        {"title": TITLES[0], "description": str(["<b>Blue</b> pens.", "<b>Blue</b> pens.", "They\nwrite."]), "brand": "Me &amp; You"},
        {"title": TITLES[1], "description": "['Cut sho", "brand": ""},
        {"title": TITLES[2], "description": "['']", "brand": "UHU"},
        {"title": TITLES[3], "description": "", "brand": ""},
    ]
    paths[3].write_text(json.dumps(dict(enumerate(described))))
    return amazon.read(*paths)


def test_reviews_are_rebuilt_in_their_order_and_each_counts_once(tmp_path: Path) -> None:
    content = write(tmp_path, [case("u", REVIEWS[:4]), case("early", [("B9", 2.0, 0), ("B7", 5.0, 1)])], [case("u", REVIEWS)])
    events = content.tables["events"]
    assert events[events["user_id"] == "u"][["item_id", "value", "timestamp"]].to_numpy().tolist() == [
        ["B7", "5.0", DAY],
        ["B2", "3.0", DAY],
        ["B9", "1.0", 2 * DAY],
        ["B7", "4.0", 4 * DAY],
    ]
    assert events["user_id"].iloc[0] == "early"
    assert events["timestamp"].is_monotonic_increasing
    assert content.left_out == {amazon.TWICE: 1}


def test_a_long_history_is_only_seen_through_its_window(tmp_path: Path) -> None:
    reviews = [("B7" if day % 2 else "B2", 5.0, day) for day in range(14)]
    content = write(tmp_path, [case("u", reviews[:12])], [case("u", reviews[:13]), case("u", reviews)])
    assert (content.tables["events"]["timestamp"] // DAY).tolist() == list(range(1, 14))


def test_cases_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a case of user u does not continue the case before"):
        write(tmp_path, [case("u", REVIEWS)], [case("u", REVIEWS[:4])])


def test_the_catalogue_is_whole_and_its_text_plain(tmp_path: Path) -> None:
    items = write(tmp_path, [case("u", REVIEWS[:4])], [case("u", REVIEWS)]).tables["items"]
    assert items["item_id"].tolist() == ["B7", "B2", "number-2", "B9"]
    assert items["title"].iloc[:3].tolist() == ["Pens \u2013 3 pack", "Pencils", "Nobody's glue"]
    assert items["title"].isna().tolist() == [False, False, False, True]
    assert items["description"].iloc[:2].tolist() == ["Blue pens. They write.", "Cut sho"]
    assert items["description"].iloc[2:].isna().all()
    assert items["brand"].iloc[[0, 2]].tolist() == ["Me & You", "UHU"]


@pytest.mark.parametrize(
    ("name", "events", "repeats", "users", "seen", "items", "described", "first"),
    [("office", 21_297, 109, 3_231, 3_317, 3_459, 3_230, "2016-10"), ("industrial", 21_746, 82, 3_285, 3_541, 3_686, 3_454, "2006-04")],
)
def test_the_real_sets(
    real_set: RealSet, name: str, events: int, repeats: int, users: int, seen: int, items: int, described: int, first: str
) -> None:
    _, tables = real_set(name)
    assert len(tables.events) == events
    assert int(tables.events.duplicated(["user_id", "item_id"]).sum()) == repeats
    assert tables.events[["user_id", "item_id"]].nunique().tolist() == [users, seen]
    assert str(tables.events["timestamp"].min())[:7] == first
    assert tables.events["value"].isin([1, 2, 3, 4, 5]).all()
    assert tables.items is not None
    assert len(tables.items) == items
    assert tables.items["item_id"].is_unique
    assert set(tables.events["item_id"]) <= set(tables.items["item_id"])
    assert tables.items["description"].notna().sum() == described
    assert not tables.items["title"].str.contains(r"<|&\w+;|/>", na=False).any()
    assert tables.features == {"title": "text", "brand": "category", "description": "text"}
