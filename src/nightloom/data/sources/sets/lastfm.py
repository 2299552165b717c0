"""Last.FM of HetRec 2011: who listens to whom (social), and who is whose friend (follow).

Neither listens nor friendships have a time (only tag assignments have), and the files are sorted by id: a user's last row would be
the artist with the highest id, which is one that nobody before him in the file listens to. So the order is drawn: events are
sorted by a checksum of their ids. A cut in that order is a random split, the same on every machine.

Source: Cantador, Brusilovsky and Kuflik, 2nd Workshop on Information Heterogeneity and Fusion in Recommender Systems, RecSys 2011.
"""

from __future__ import annotations

import csv
from pathlib import Path
from zlib import crc32

import pandas as pd

from nightloom.data.sources.sets.files import Content, FileSet

LICENCE = (
    "Last.FM data of HetRec 2011, Information Retrieval group at Universidad Autonoma de Madrid: for non-commercial use. Please cite "
    "the Last.fm website, http://www.lastfm.com, and Cantador, Brusilovsky and Kuflik, HetRec 2011, RecSys 2011."
)
PUBLISHER = "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip"
MOST = 10
"""Most tags of an artist or user, and most artists named of a user."""
SELF = "self"
"""Event of a user on himself as an item; not a positive one."""


def read_social(artists: Path, tags: Path, listens: Path, friends: Path, assigned: Path) -> Content:
    """Listens as events (`value`: how often), artists as items with their commonest tags, friends as links in both directions."""
    names, heard = _table(artists), _table(listens)
    events = heard.set_axis(["user_id", "item_id", "value"], axis=1).assign(event="listen")
    events["order"] = _drawn(events["user_id"] + " " + events["item_id"])
    items = pd.DataFrame({"item_id": names["id"], "name": names["name"]})
    items["tags"] = items["item_id"].map(_joined(_tagged(tags, assigned), "artistID", "tagValue"))
    links = _table(friends).set_axis(["user_id", "other_id"], axis=1)
    return Content({"events": events, "items": items, "links": links})


def read_follow(artists: Path, tags: Path, listens: Path, friends: Path, assigned: Path) -> Content:
    """Friendships as events, one from each side, and users as items: the artists they hear most, and those artists' commonest tags.

    Both sides of a friendship have the same place in the order, so that a cut never gives one away by the other. Each user's
    history opens with an event `self` on himself, at place 0: what a history has is left out of its ranking, so nobody is
    recommended to himself.
    """
    events = _table(friends).set_axis(["user_id", "item_id"], axis=1).assign(event="follow")
    sides = events[["user_id", "item_id"]]
    events["order"] = _drawn(sides.min(axis=1) + " " + sides.max(axis=1))
    people = events["user_id"].drop_duplicates()
    selves = pd.DataFrame({"user_id": people, "item_id": people, "event": SELF, "order": 0})
    events = pd.concat([selves, events], ignore_index=True)
    heard = _table(listens).merge(_table(artists), left_on="artistID", right_on="id")
    heard = heard.assign(weight=heard["weight"].astype("int64")).sort_values("weight", ascending=False, kind="stable")
    artists_of = heard.groupby("userID").head(MOST).groupby("userID")["name"].agg(", ".join)
    of_artists = heard.merge(_tagged(tags, assigned)[["artistID", "tagValue"]].drop_duplicates(), on="artistID")
    items = pd.DataFrame({"item_id": heard["userID"].drop_duplicates().sort_values(key=lambda ids: ids.astype("int64"))})
    items["artists"] = items["item_id"].map(artists_of)
    items["tags"] = items["item_id"].map(_joined(of_artists, "userID", "tagValue"))
    return Content({"events": events, "items": items})


def _table(path: Path, encoding: str = "utf-8") -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype="str", quoting=csv.QUOTE_NONE, keep_default_na=False, encoding=encoding)


def _tagged(tags: Path, assigned: Path) -> pd.DataFrame:
    """One row an assignment, with the words of its tag."""
    return _table(assigned).merge(_table(tags, "latin-1"), on="tagID")


def _joined(rows: pd.DataFrame, key: str, column: str) -> pd.Series:
    """By key, its most frequent values, the first in the alphabet of those as frequent."""
    counts = rows.groupby([key, column]).size().sort_values(ascending=False, kind="stable")
    most = counts.groupby(level=0).head(MOST).reset_index()
    return most.groupby(key)[column].agg("|".join)


def _drawn(ids: pd.Series) -> pd.Series:
    """Places in an order that is as good as drawn; equal ids have the same place."""
    checksums = pd.Series([crc32(one.encode()) for one in ids], index=ids.index)
    return checksums.rank(method="dense").astype("int64")


FILES = {
    "artists.dat": "c173881362c6b28551368fecb3c0be5a6a30a6cd859e1f5775413dfe46d48648",
    "tags.dat": "778bcb1f925a41dfa60886e3de442673fd1f85fbea338477fe1d2edaab3ff289",
    "user_artists.dat": "254272fa721c3935e8be286d28c051b206844307128698ab4eaa41d483379416",
    "user_friends.dat": "0360883a3557776e04fdebda851f2e5dd23e796cad7059b968acdebd528d13fa",
    "user_taggedartists.dat": "c4a9ffae9ab47a9f9b2f0678ab1f7e5c1db4ca818837d8cddd1f5699c5bbf048",
}
SOCIAL = FileSet("Last.FM (HetRec 2011)", "lastfm-2k", FILES, PUBLISHER, LICENCE, read_social)
FOLLOW = FileSet("Last.FM (HetRec 2011)", "lastfm-2k", FILES, PUBLISHER, LICENCE, read_follow)
