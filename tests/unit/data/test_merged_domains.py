"""Two domains together: what is known of shared items joins the training of the target, and nothing else of it changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.subsets.held_out_users import Search
from nightloom.data.subsets.merged_domains import MOST_REPEATS, write_merged_domains
from nightloom.data.subsets.user_subset import write_user_subset
from nightloom.experiments.transfer import users_to_learn_from

User = list[tuple[int, int, int, bool]]
"""(item, time, kind, positive) of each event, oldest first."""


def sequences(users: list[User], n_items: int, held: int, **more: Any) -> Sequences:
    """Packed; of each user's events the last `held` are validation and test, half each."""
    lengths = [len(one) for one in users]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns = [[event[column] for one in users for event in one] for column in range(4)]
    types = (np.int32, np.int64, np.int16, np.bool_)
    arrays = [np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)]
    ends = [np.maximum(offsets[1:] - back, offsets[:-1]) for back in (held, held // 2)]
    return Sequences(offsets, *arrays, *ends, n_items, **more)


def write(folder: Path, data: Sequences, event_types: list[str], protocol: str = "leave_one_out", cutoff: int | None = None) -> Path:
    folder.mkdir(parents=True)
    data.save(folder / f"sequences_{protocol}.npz")
    pd.DataFrame({"user_id": [f"{folder.name}{user}" for user in range(data.n_users)]}).to_parquet(folder / "users.parquet")
    for name in ("items.parquet", "catalogue.safetensors", "item_features.npz", "feature_spec.json"):
        (folder / name).write_bytes(folder.name.encode())
    meta = {
        "event_types": event_types,
        "has_time": data.has_time,
        "cutoffs": {protocol: {"validation": cutoff, "test": cutoff and cutoff + 100}},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def spoken(histories: Histories, event_types: list[str]) -> list[list[tuple[int, int, str, bool]]]:
    """Each history's events, with the names of their event_types."""
    columns = (
        histories.items.tolist(),
        histories.times.tolist(),
        [event_types[one] for one in histories.event_types],
        histories.positive.tolist(),
    )
    events = list(zip(*columns, strict=True))
    return [events[first:last] for first, last in zip(histories.offsets[:-1], histories.offsets[1:], strict=True)]


HERE = sequences([[(item, 1000 + item, item % 2, True) for item in range(first, first + 5)] for first in (0, 3)], 8, 2)
THERE = sequences(
    [
        [(2, 500, 1, True), (0, 600, 0, False), (1, 2000, 0, True)],
        [(0, 700, 0, True), (0, 800, 1, True)],
        [(3, 900, 0, True), (2, 1001, 0, True)],
    ],
    4,
    2,
)
SAME = np.array([-1, 2, -1, -1, 3, -1, -1, 1])  # source 1, 2, 3 are target 7, 1, 4; source 0 is not shared
EVENT_TYPES, THEIRS = ["buy", "view"], ["like", "buy"]


def test_shared_items_bring_their_events_and_others_do_not(tmp_path: Path) -> None:
    part, source = write(tmp_path / "part", HERE, EVENT_TYPES), write(tmp_path / "source", THERE, THEIRS)
    figures = write_merged_domains(part, source, SAME, "leave_one_out", tmp_path / "together")
    assert figures == {"users": 2, "events": 4, "other_items": 3, "later": 0, "repeats": 0}
    together = Sequences.load(tmp_path / "together" / "sequences_leave_one_out.npz")
    event_types = json.loads((tmp_path / "together" / "meta.json").read_text())["event_types"]
    assert event_types == ["buy", "view", "like"]  # the target's codes stay
    assert together.n_items == 8
    joined = spoken(together.train(), event_types)
    assert joined[:2] == spoken(HERE.train(), EVENT_TYPES)
    # Every event of theirs, the source's own validation and test too; the user with no shared item is not there.
    assert joined[2:] == [[(1, 500, "buy", True), (7, 2000, "like", True)], [(4, 900, "like", True), (1, 1001, "like", True)]]
    assert pd.read_parquet(tmp_path / "together" / "users.parquet")["user_id"].tolist() == ["part0", "part1", "source0", "source2"]
    assert (tmp_path / "together" / "items.parquet").read_bytes() == b"part"


def test_nothing_from_the_validation_border_on_is_learned_under_one_cut_in_time(tmp_path: Path) -> None:
    part = write(tmp_path / "part", HERE, EVENT_TYPES, "temporal", cutoff=1001)
    source = write(tmp_path / "source", THERE, THEIRS, "temporal", cutoff=50)  # the source's own cutoff says nothing here
    figures = write_merged_domains(part, source, SAME, "temporal", tmp_path / "together")
    assert (figures["events"], figures["later"]) == (2, 2)  # at the cutoff's very second is later
    together = Sequences.load(tmp_path / "together" / "sequences_temporal.npz")
    theirs = together.train(with_validation=True).take(np.arange(2, together.n_users))
    assert theirs.times.tolist() == [500, 900]
    timeless = write(tmp_path / "timeless", replace(THERE, times=np.zeros_like(THERE.times)), THEIRS, "temporal", cutoff=7)
    with pytest.raises(InputError, match="leave_one_out"):
        write_merged_domains(part, timeless, SAME, "temporal", tmp_path / "refused")


def test_a_target_without_times_gets_none(tmp_path: Path) -> None:
    part = write(tmp_path / "part", replace(HERE, times=np.zeros_like(HERE.times)), EVENT_TYPES)
    write_merged_domains(part, write(tmp_path / "source", THERE, THEIRS), SAME, "leave_one_out", tmp_path / "together")
    assert not Sequences.load(tmp_path / "together" / "sequences_leave_one_out.npz").has_time


def test_links_stay_among_the_targets_users(tmp_path: Path) -> None:
    linked = replace(HERE, link_offsets=np.array([0, 1, 1]), link_users=np.array([1]))
    theirs = replace(THERE, link_offsets=np.array([0, 2, 2, 3]), link_users=np.array([1, 2, 0]))
    part, source = write(tmp_path / "part", linked, EVENT_TYPES), write(tmp_path / "source", theirs, THEIRS)
    write_merged_domains(part, source, SAME, "leave_one_out", tmp_path / "together")
    together = Sequences.load(tmp_path / "together" / "sequences_leave_one_out.npz")
    assert (together.link_offsets.tolist(), together.link_users.tolist()) == ([0, 1, 1, 1, 1], [1])
    links, alone = (one.queries("validation").histories.links for one in (together, linked))
    assert links is not None
    assert alone is not None
    assert (links.offsets.tolist(), links.friends.tolist()) == (alone.offsets.tolist(), alone.friends.tolist())
    plain = write(tmp_path / "plain", HERE, EVENT_TYPES)
    write_merged_domains(plain, source, SAME, "leave_one_out", tmp_path / "none")
    assert not len(Sequences.load(tmp_path / "none" / "sequences_leave_one_out.npz").link_offsets)


def test_the_few_weigh_as_much_as_the_many(tmp_path: Path) -> None:
    """The target's training histories come again; their validation and test do not."""
    many = sequences([[(1, time, 0, True) for time in range(1, 8)] for _ in range(4)], 4, 2)
    part, source = write(tmp_path / "part", HERE, EVENT_TYPES), write(tmp_path / "source", many, THEIRS)
    assert (
        write_merged_domains(part, source, np.array([-1] * 7 + [1]), "leave_one_out", tmp_path / "together")["repeats"] == 4
    )  # 28 events and 6
    together, own = Sequences.load(tmp_path / "together" / "sequences_leave_one_out.npz"), HERE.train()
    assert together.n_users == 2 + 4 + 4 * 2
    for first in range(6, together.n_users, 2):
        again = together.train(with_validation=True).take(np.arange(first, first + 2))
        assert again.items.tolist() == own.items.tolist()
    ids = pd.read_parquet(tmp_path / "together" / "users.parquet")["user_id"].tolist()
    assert ids[6:] == ["part0", "part1"] * 4
    throng = write(tmp_path / "throng", sequences([[(1, time, 0, True) for time in range(1, 90)]] * 9, 4, 2), THEIRS)
    assert write_merged_domains(part, throng, np.array([-1] * 7 + [1]), "leave_one_out", tmp_path / "more")["repeats"] == MOST_REPEATS


def test_those_held_out_of_the_search_are_nowhere_in_it(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", replace(HERE, items=np.array([0, 1, 2, 3, 4, 5, 6, 7, 5, 6], np.int32)), EVENT_TYPES)
    there = write(tmp_path / "there", THERE, THEIRS)
    write_user_subset(whole, np.arange(2), "leave_one_out", tmp_path / "part", hold_out=0)
    write_merged_domains(tmp_path / "part", there, SAME, "leave_one_out", tmp_path / "joined")
    alone, joined = (Search.load(tmp_path / name, "leave_one_out") for name in ("part", "joined"))
    assert alone is not None
    assert joined is not None
    np.testing.assert_array_equal(joined.held_out.items, alone.held_out.items)
    known, those = alone.learned.train(), joined.learned.train()
    np.testing.assert_array_equal(those.take(slice(len(known))).items, known.items)
    guests = Sequences.load(tmp_path / "joined" / "sequences_leave_one_out.npz").train().take(slice(2, None))
    np.testing.assert_array_equal(those.take(slice(len(known), None)).items, guests.items)  # too few to call for repeats


def test_whoever_is_in_both_domains_is_not_among_those_who_join(tmp_path: Path) -> None:
    """The leak rule holds for all users of the target, drawn or not."""
    target, source = write(tmp_path / "target", HERE, EVENT_TYPES), write(tmp_path / "source", THERE, THEIRS)
    pd.DataFrame({"user_id": ["a", "target1", "b"]}).to_parquet(source / "users.parquet")
    learned = users_to_learn_from(source, target, same_users=True)
    write_user_subset(source, learned, "leave_one_out", tmp_path / "learned")
    write_user_subset(target, np.array([0]), "leave_one_out", tmp_path / "part")  # target1 is not drawn, and asked all the same
    write_merged_domains(tmp_path / "part", tmp_path / "learned", SAME, "leave_one_out", tmp_path / "together")
    assert set(pd.read_parquet(tmp_path / "together" / "users.parquet")["user_id"]) == {"target0", "a", "b"}


@st.composite
def domains(draw: st.DrawFn) -> tuple[Sequences, Sequences, list[int]]:
    """Two domains and the items that they share."""

    def users(n_items: int) -> list[User]:
        event = st.tuples(st.integers(0, n_items - 1), st.integers(1, 99), st.integers(0, 1), st.booleans())
        histories = draw(st.lists(st.lists(event, min_size=3, max_size=7), min_size=1, max_size=6))
        return [sorted(one, key=lambda event: event[1]) for one in histories]

    here, there = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    order = draw(st.permutations(range(there)))
    same = [order[item] if item < there and draw(st.booleans()) else -1 for item in range(here)]
    return sequences(users(here), here, 2), sequences(users(there), there, 2), same


@given(both=domains(), cutoff=st.one_of(st.none(), st.integers(0, 100)))
@settings(max_examples=60, deadline=None)
def test_only_users_of_the_target_are_ever_asked(both: tuple[Sequences, Sequences, list[int]], cutoff: int | None) -> None:
    here, there, same = both
    protocol = "leave_one_out" if cutoff is None else "temporal"
    with TemporaryDirectory() as name:
        folder = Path(name)
        part, source = write(folder / "part", here, EVENT_TYPES, protocol, cutoff), write(folder / "source", there, THEIRS, protocol, 0)
        figures = write_merged_domains(part, source, np.array(same, dtype=np.int64), protocol, folder / "together")
        together = Sequences.load(folder / "together" / f"sequences_{protocol}.npz")
        event_types = json.loads((folder / "together" / "meta.json").read_text())["event_types"]
        people = pd.read_parquet(folder / "together" / "users.parquet")
    assert len(people) == together.n_users == here.n_users * (1 + figures["repeats"]) + figures["users"]
    for name in ("validation", "test"):
        mine, before = together.queries(name), here.queries(name)
        assert mine.users.tolist() == before.users.tolist()
        assert mine.targets.tolist() == before.targets.tolist()
        assert mine.histories.items.tolist() == before.histories.items.tolist()
    # The source's events again, by another way: one user after the other.
    there_is = {item: here_is for here_is, item in enumerate(same) if item >= 0}
    told = spoken(replace(there, train_end=there.offsets[1:]).train(), THEIRS)
    expected = [
        [
            (there_is[item], time, kind, positive)
            for item, time, kind, positive in one
            if item in there_is and (cutoff is None or time < cutoff)
        ]
        for one in told
    ]
    joined = spoken(together.train().take(np.arange(here.n_users, here.n_users + figures["users"])), event_types)
    assert joined == [one for one in expected if one]
    assert sum(map(len, joined)) == figures["events"] == len(there.items) - figures["other_items"] - figures["later"]
