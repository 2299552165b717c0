"""A part of the users is prepared data like any other, and gives nothing of the others away."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data.subsets.held_out_users import Search
from nightloom.data.subsets.user_subset import draw_users, write_user_subset
from nightloom.experiments.arguments import checked_shares
from nightloom.experiments.transfer import users_to_learn_from


def sequences() -> Sequences:
    """User u has u + 2 events on items 10 u, 10 u + 1, ...; the last two are for validation and test."""
    lengths = np.arange(2, 8)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([10 * user + np.arange(length) for user, length in enumerate(lengths)]).astype(np.int32)
    every = np.ones(len(items), dtype=bool)
    times = np.arange(len(items), dtype=np.int64) + 1000
    return Sequences(offsets, items, times, np.zeros(len(items), np.int16), every, offsets[1:] - 2, offsets[1:] - 1, 100)


def write(folder: Path, users: list[str]) -> Path:
    folder.mkdir()
    sequences().save(folder / "sequences_leave_one_out.npz")
    pd.DataFrame({"user_id": users}).to_parquet(folder / "users.parquet")
    for name in ("items.parquet", "catalogue.safetensors", "item_features.npz", "feature_spec.json"):
        (folder / name).write_bytes(b"catalogue")
    (folder / "meta.json").write_text(json.dumps({"event_types": ["buy"]}))
    return folder


def test_a_part_has_its_users_events_and_the_whole_catalogue(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", [f"u{user}" for user in range(6)])
    figures = write_user_subset(whole, np.array([1, 4]), "leave_one_out", tmp_path / "part")
    part = Sequences.load(tmp_path / "part" / "sequences_leave_one_out.npz")
    assert figures == {"users": 2, "events": 7, "held_out": 0}
    assert part.n_items == 100
    assert part.train().items.tolist() == [10, 40, 41, 42, 43]
    for name in ("validation", "test"):
        mine, all_of_them = part.queries(name), sequences().queries(name)
        assert mine.targets.tolist() == [all_of_them.targets[user] for user in (1, 4)]
        np.testing.assert_array_equal(mine.histories.items, all_of_them.histories.take(np.array([1, 4])).items)
        np.testing.assert_array_equal(mine.histories.request_time, all_of_them.histories.request_time[[1, 4]])
    assert pd.read_parquet(tmp_path / "part" / "users.parquet")["user_id"].tolist() == ["u1", "u4"]
    assert (tmp_path / "part" / "items.parquet").read_bytes() == b"catalogue"


def test_links_to_those_who_are_not_learned_from_are_left_out() -> None:
    linked = replace(sequences(), link_offsets=np.array([0, 1, 3, 3, 3, 5, 5]), link_users=np.array([4, 4, 2, 0, 1]))
    part = linked.of_users(np.array([1, 4]))
    assert (part.link_offsets.tolist(), part.link_users.tolist()) == ([0, 1, 2], [1, 0])
    known = part.queries("test").histories.links
    assert known is not None
    assert len(known.known) == 2


def test_users_without_training_events_can_not_be_learned_from(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", [f"u{user}" for user in range(6)])
    with pytest.raises(InputError, match="no event in training"):
        write_user_subset(whole, np.array([0]), "leave_one_out", tmp_path / "part")


def test_a_larger_share_holds_the_smaller_ones() -> None:
    drawn = [set(draw_users(sequences(), share, seed=3).tolist()) for share in (0.01, 0.4, 1.0)]
    assert [len(one) for one in drawn] == [1, 2, 5]
    assert drawn[0] < drawn[1] < drawn[2] == {1, 2, 3, 4, 5}  # user 0 has nothing before his validation
    assert checked_shares([1, 0.1, 0.01, 0.1]) == [0.01, 0.1, 1]
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match="not a share"):
            checked_shares([0.1, share])


def test_the_source_learns_from_nobody_of_the_target(tmp_path: Path) -> None:
    source = write(tmp_path / "source", ["a", "b", "c", "d", "e", "f"])
    target = write(tmp_path / "target", ["x", "b", "y", "f", "z", "w"])
    assert users_to_learn_from(source, target, same_users=True).tolist() == [0, 2, 3, 4]
    assert users_to_learn_from(source, target, same_users=False).tolist() == list(range(6))
    numbered = write(tmp_path / "numbered", ["b", "f"])  # other people who have the same numbers
    assert users_to_learn_from(numbered, target, same_users=False).tolist() == [0, 1]
    with pytest.raises(InputError, match="say --unrelated-users"):
        users_to_learn_from(numbered, target, same_users=True)


def test_people_are_held_out_of_the_search_and_asked_before_each_of_their_events(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", [f"u{user}" for user in range(6)])
    figures = write_user_subset(whole, np.arange(1, 6), "leave_one_out", tmp_path / "part", hold_out=3)
    assert figures == {"users": 5, "events": 20, "held_out": 1}
    search = Search.load(tmp_path / "part", "leave_one_out")
    assert search is not None
    (held,) = {int(item) // 10 for item in search.held_out.items}
    assert {int(item) // 10 for item in search.learned.train().items} == {1, 2, 3, 4, 5} - {held}
    asked = search.questions(exclude_seen=True)
    before = [asked.histories.take(np.array([row])).items.tolist() for row in range(len(asked))]
    assert asked.targets.tolist() == [10 * held + step for step in range(1, held + 1)]  # neither the first event nor the test
    assert before == [[10 * held + step for step in range(many)] for many in range(1, held + 1)]
    np.testing.assert_array_equal(asked.histories.request_time, asked.histories.request_time[0] + np.arange(held))
    write_user_subset(whole, np.array([4]), "leave_one_out", tmp_path / "one", hold_out=3)
    assert Search.load(tmp_path / "one", "leave_one_out") is None  # nobody would be left to learn from
