"""The sets without times: news, Last.FM and the two advertising logs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nightloom.config import load_preset
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.prepare import prepare
from nightloom.data.sources.raw import RawTable
from nightloom.data.sources.sets import ads, lastfm, news
from nightloom.data.tables.canonical import canonical
from nightloom.models.baselines.named import build
from tests.sections import of_prepare
from tests.unit.data.conftest import RealSet


def write(folder: Path, **files: str) -> list[Path]:
    paths = [folder / name for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_text(content)
    return paths


def test_clicks_and_titles_shown_in_vain(tmp_path: Path) -> None:
    train = 'a\tsay "hi\t0\t1:Hi\na\train falls\t0\t2:Rain;3:City: London\na\train falls\t1\t2:Rain;3:City: London\n'
    content = news.read(*write(tmp_path, train=train, test="a\tsun\t1\t4:Sun\n"))
    events = content.tables["events"][["item_id", "order", "event"]].to_numpy().tolist()
    assert events == [['say "hi', 0, "impression"], ["rain falls", 2, "click"], ["sun", 3, "click"]]
    assert content.tables["items"]["entities"].tolist() == ["Hi", "Rain|City: London", "Sun"]
    assert content.left_out == {news.CLICKED_TOO: 1}


def test_listens_and_friendships_have_a_drawn_order(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        artists='id\tname\turl\tpictureURL\n1\tA "one\tx\t\n2\tB\tx\t\n',
        tags="tagID\ttagValue\n7\trock\n8\tjazz\n",
        listens="userID\tartistID\tweight\n1\t1\t9\n1\t2\t10\n2\t1\t3\n",
        friends="userID\tfriendID\n1\t2\n2\t1\n",
        assigned="userID\tartistID\ttagID\tday\tmonth\tyear\n1\t1\t8\t1\t4\t2009\n1\t1\t7\t1\t4\t2009\n2\t1\t7\t1\t4\t2009\n",
    )
    social, follow = lastfm.read_social(*paths).tables, lastfm.read_follow(*paths).tables
    assert social["events"]["value"].tolist() == ["9", "10", "3"]
    assert sorted(social["events"]["order"]) == [1, 2, 3]
    assert social["items"]["tags"].tolist()[0] == "rock|jazz"
    assert social["items"]["tags"].isna().tolist() == [False, True]
    assert social["links"].to_numpy().tolist() == [["1", "2"], ["2", "1"]]
    assert follow["events"].to_numpy().tolist() == [
        ["1", "1", "self", 0],
        ["2", "2", "self", 0],
        ["1", "2", "follow", 1],
        ["2", "1", "follow", 1],
    ]
    assert follow["items"]["artists"].tolist() == ['B, A "one', 'A "one']


def test_ads_shown_keep_their_context(tmp_path: Path) -> None:
    names = ["id", "click", "hour", "device_id", "device_ip", "device_model", "C14", "C15", "C16", "C17"]
    lines = [
        ["1", "0", "14102100", ads.NO_DEVICE, "ip", "m", "15", "320", "50", "7"],
        ["2", "1", "14102100", "d", "i", "m", "15", "320", "50", "7"],
    ]
    rows = [",".join(line) + "\n" for line in [names, *lines, ["3", *lines[1][1:]]]]
    tables = ads.read_avazu(*write(tmp_path, train=rows[0] + rows[1], dev=rows[2], test=rows[3])).tables
    assert tables["events"][["user_id", "event", "order"]].to_numpy().tolist() == [
        ["ip/m", "impression", 0],
        ["d", "click", 1],
        ["d", "click", 2],
    ]
    assert tables["items"].to_numpy().tolist() == [["15", "320x50", "7"]]
    line = "\t".join(["1", "-1", *[""] * 12, "8cf07265", *[""] * 25]) + "\n"
    events = ads.read_criteo(*write(tmp_path, a=line, b=line, c=line)).tables["events"]
    assert events["user_id"].tolist() == ["row-1", "row-2", "row-3"]
    assert events.loc[0, ["event", "I1", "C1"]].tolist() == ["click", -1, "8cf07265"]


def test_the_real_news(real_set: RealSet) -> None:
    fetched, tables = real_set("news")
    assert tables.events["event"].value_counts().to_dict() == {"click": 6_576, "impression": 4_287 - 135}
    assert fetched.left_out == {news.CLICKED_TOO: 135}
    assert tables.events[["user_id", "item_id"]].nunique().tolist() == [469, 9_075]


def test_the_real_last_fm(real_set: RealSet) -> None:
    tables, follow = real_set("social")[1], real_set("follow")[1]
    assert tables.items is not None
    assert tables.links is not None
    assert (len(tables.events), len(tables.items), len(tables.links)) == (92_834, 17_632, 2 * 12_717)
    assert tables.events["user_id"].nunique() == 1_892
    assert follow.events["event"].value_counts().to_dict() == {"follow": 2 * 12_717, "self": 1_892}
    assert follow.events["order"].nunique() == 12_717 + 1
    assert set(follow.events["item_id"]) == set(follow.events["user_id"])


@pytest.mark.parametrize("family", ["popularity", "graph", "item_knn", "als"])
def test_nobody_is_recommended_to_himself_or_whom_he_follows(family: str, tmp_path: Path) -> None:
    pairs = [(one, (one + step) % 40) for one in range(40) for step in (1, 2, 3)]
    sides = {(str(a), str(b)) for pair in pairs for a, b in (pair, pair[::-1])}
    people = [str(one) for one in range(40)]
    paths = write(
        tmp_path,
        artists="id\tname\turl\tpictureURL\n1\tA\tx\t\n",
        tags="tagID\ttagValue\n7\trock\n",
        listens="userID\tartistID\tweight\n" + "".join(f"{one}\t1\t9\n" for one in people),
        friends="userID\tfriendID\n" + "".join(f"{a}\t{b}\n" for a, b in sorted(sides)),
        assigned="userID\tartistID\ttagID\tday\tmonth\tyear\n1\t1\t7\t1\t4\t2009\n",
    )
    config = load_preset("follow")
    raw = {name: RawTable.of(frame, "files") for name, frame in lastfm.read_follow(*paths).tables.items()}
    figures = prepare(canonical(raw, config.data), tmp_path, **of_prepare(config))
    assert figures["positive"] == len(sides)
    sequences = Sequences.load(tmp_path / "sequences_streaming.npz")
    queries = sequences.queries("test")
    users = pd.read_parquet(tmp_path / "users.parquet")["user_id"].to_numpy()[queries.users]
    items = pd.read_parquet(tmp_path / "items.parquet")["item_id"].to_numpy()
    assert items[queries.histories.items[queries.histories.offsets[:-1]]].tolist() == users.tolist()
    best = build(family).fit(sequences.train(), len(items)).recommend(queries.histories, len(items))[0]
    borders = queries.histories.offsets
    for place, (user, row) in enumerate(zip(users, best, strict=True)):
        known = set(items[queries.histories.items[borders[place] : borders[place + 1]]])
        assert user in known
        assert len(known) > 1  # himself, and whom he follows
        offered = set(items[row[row >= 0]])
        assert offered
        assert not known & offered


def test_the_real_ads(real_set: RealSet) -> None:
    avazu, criteo = real_set("avazu")[1].events, real_set("criteo")[1].events
    assert avazu["event"].value_counts().to_dict() == {"impression": 7_436, "click": 1_563}
    assert criteo["event"].value_counts().to_dict() == {"impression": 6_272, "click": 1_728}
    assert avazu["C1"].iloc[0] == "1005"
    assert {*ads.COUNTS, *ads.CODES} <= set(criteo)
