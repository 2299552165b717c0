"""Which table is which, and which column is which: guesses, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.draft.columns import is_event, is_key, is_time, is_value, named, overlap, own_name
from nightloom.data.draft.look import Look
from nightloom.data.sources.raw import told_columns
from nightloom.data.tables.convert import to_text, to_times
from nightloom.data.tables.features import infer

FILES = {
    "links": r"link|friend|trust|follow|social|contact",
    "events": r"rating|event|log|interaction|click|view|order|purchase|transaction|review|tags|\.inter\b|u\.data|behaviou?r",
    "items": r"item|movie|film|product|book|article|song|artist|catalog|news|business|game",
    "users": r"user|customer|member|people|person|visitor|account",
}
"""What a table may be by its file's name."""
SHARED = 0.5
"""Share of the events' ids that a table must know to be their items or users."""
LISTS = r"genre|tag|categor|class|keyword|token_seq"
"""Columns of several values, by name."""
TAG_SEPARATORS = ("|", ";", ",", " ")


@dataclass
class Guess:
    """A table and its columns.

    Attributes:
        look: the table.
        columns: our column -> its column.
        why: our column -> why it was taken.
        features: item column of ours -> its kind.
        left_out: columns that are not used.
    """

    look: Look
    columns: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    tags_separator: str = "|"

    def take(self, own: str, column: str, why: str) -> None:
        """Map a column."""
        self.columns[own], self.why[own] = column, why

    @property
    def free(self) -> list[str]:
        """Columns that have no meaning yet."""
        return [column for column in map(str, self.look.frame) if column not in self.columns.values()]


def assign(looks: Sequence[Look]) -> dict[str, Guess]:
    """Say which table is events, items, users and links, and what their columns mean.

    Raises:
        InputError: no table can be the events, or two can; or one is nothing that is known.
    """
    events = _events(looks)
    rest = [look for look in looks if look is not events]
    found = {"events": Guess(events)}
    for look in rest:
        role = _role(look, events)
        if role in found:
            raise InputError(
                f"both {found[role].look.name} and {look.name} look like the table of {role}. Name one of them; where both are parts of "
                "one table, put them into a folder and name that."
            )
        found[role] = Guess(look)
    _describe_events(found["events"], found.get("items"), found.get("users"))
    if "items" in found:
        _describe_items(found["items"], found["events"])
    if "users" in found:
        _describe_users(found["users"], found["events"])
    if "links" in found:
        one, other = map(str, list(found["links"].look.frame)[:2])
        found["links"].take("user_id", one, "the first column")
        found["links"].take("other_id", other, "the second column")
    return found


def _events(looks: Sequence[Look]) -> Look:
    """The table of what happened: users, items and, mostly, times."""

    def score(look: Look) -> float:
        frame = look.frame
        by_name = bool(re.search(FILES["events"], look.name, re.IGNORECASE))
        columns = 2 * bool(named(frame, "user_id")) + 2 * bool(named(frame, "item_id"))
        times = any(is_time(frame[column]) for column in named(frame, "timestamp") or (frame.columns if not look.header else []))
        return by_name + columns + 2 * times - 3 * is_key(frame.iloc[:, 0])

    ranked = sorted(looks, key=score, reverse=True)
    if ranked[0].frame.shape[1] < 2:
        raise InputError(f"{ranked[0].name}: a table of events needs at least two columns, a user and an item. Name another.")
    return ranked[0]


def _role(look: Look, events: Look) -> str:
    """Items, users or links, by what its ids share with the events and by names."""
    frame = look.frame
    keys = [str(column) for column in frame if is_key(frame[column])][:3]
    by_name = [role for role, names in FILES.items() if re.search(names, look.name, re.IGNORECASE) and role != "events"]
    if not keys and (len(named(frame, "user_id")) > 1 or "links" in by_name):
        return "links"
    scores = {"items": 0, "users": 0}
    for role, own in (("items", "item_id"), ("users", "user_id")):
        ids = [events.frame[column] for column in named(events.frame, own)]
        shared = max((overlap(column, frame[key])[0] for column in ids for key in keys), default=0.0)
        scores[role] = 2 * bool(named(frame, own)) + (shared >= SHARED) + (role in by_name)
    role = max(scores, key=lambda one: scores[one])
    if scores[role]:
        return role
    raise InputError(
        f"{look.name} is neither items nor users of {events.name}: its ids are not those of the events. {told_columns([*map(str, frame)])} "
        "Leave it out, or write the YAML by hand (docs/new-domain.md)."
    )


def _describe_events(guess: Guess, items: Guess | None, users: Guess | None) -> None:
    frame = guess.look.frame
    times = [*named(frame, "timestamp"), *([] if guess.look.header else map(str, frame))]
    if time := next((column for column in times if is_time(frame[column])), None):
        guess.take("timestamp", time, f"{'its name, and ' if guess.look.header else ''}its values are times")
    elif by_name := named(frame, "timestamp"):
        to_times(frame[by_name[0]], "auto", f"{guess.look.name}: {by_name[0]}")  # raises where it says what they are
        example = to_text(frame[by_name[0]]).dropna().iloc[:1].tolist()
        guess.look.notes.append(f"{by_name[0]} is named like a time, but its values are none that is known: {example}")
    for own, table in (("item_id", items), ("user_id", users)):
        known = [column for column in named(frame, own) if column in guess.free]
        if known:
            guess.take(own, known[0], "its name")
        elif table is not None and (best := _shared(guess, table)):
            guess.take(own, best, f"its ids are those of {table.look.name}")
    for own in ("user_id", "item_id"):
        left = [column for column in guess.free if not (named(frame, "value") and column in named(frame, "value"))]
        if own not in guess.columns:
            if not left:
                raise InputError(f"{guess.look.name}: no column is left that could be {own}. It has: {', '.join(map(str, frame))}.")
            guess.take(own, left[0], "a guess: the first column that nothing else is known of")
    guess.columns = {own: guess.columns[own] for own in ("user_id", "item_id", "timestamp") if own in guess.columns}
    for own, fits in (("value", is_value), ("event", is_event)):
        candidates = [column for column in named(frame, own) if column in guess.free]
        if not candidates and own == "value" and not guess.look.header:
            candidates = guess.free
        if fitting := next((column for column in candidates if fits(frame[column])), None):
            guess.take(own, fitting, "its name and values" if guess.look.header else "its values are a few numbers")
    if "value" in guess.columns and set(to_text(frame[guess.columns["value"]]).dropna()) <= {"0", "1"}:
        for column in guess.free:  # a log of what was shown: the click models read where
            if to_text(frame[column]).nunique() <= len(frame) / 20:
                guess.take(own_name(column, guess.columns), column, "context of what was shown")
    guess.left_out = guess.free


def _shared(guess: Guess, table: Guess) -> str | None:
    """The column of the events whose ids are those of another table's key."""
    frame, other = guess.look.frame, table.look.frame
    keys = [str(column) for column in other if is_key(other[column])][:3]
    pairs = {
        column: max((overlap(frame[column], other[key]) for key in keys), key=lambda one: one[1], default=(0.0, 0.0))
        for column in guess.free
    }
    known = [column for column, (share, _) in pairs.items() if share >= SHARED]
    return max(known, key=lambda column: pairs[column][1], default=None)


def _key(guess: Guess, own: str, ids: pd.Series) -> None:
    """Map the column whose values are the ids of the events."""
    frame = guess.look.frame

    def shared(column: str) -> float:
        return overlap(ids, frame[column])[1]

    keys = sorted((str(column) for column in frame if is_key(frame[column])), key=shared, reverse=True)
    if keys and overlap(ids, frame[keys[0]])[0] >= SHARED:
        guess.take(own, keys[0], "its ids are those of the events")
    elif by_name := named(frame, own):
        guess.take(own, by_name[0], "its name")
    elif keys:
        guess.take(own, keys[0], "a guess: each row has a value of its own")
    else:
        raise InputError(
            f"{guess.look.name}: no column tells its rows apart, so none can be {own}. It has: {', '.join(map(str, frame))}. "
            "Give a table with one row each, or leave it out."
        )


def _describe_items(guess: Guess, events: Guess) -> None:
    frame = guess.look.frame
    _key(guess, "item_id", events.look.frame[events.columns["item_id"]])
    listed = [column for column in guess.free if re.search(LISTS, column, re.IGNORECASE)]  # a blank is no separator elsewhere
    marks = ((mark, listed if mark == " " else guess.free) for mark in TAG_SEPARATORS)
    found = (mark for mark, columns in marks if any(infer(frame[column], mark) == "tags" for column in columns))
    guess.tags_separator = next(found, guess.tags_separator)
    kinds = {column: infer(frame[column], guess.tags_separator) for column in guess.free}
    titles = [column for column in named(frame, "title") if column in guess.free] or [
        name for name, kind in kinds.items() if kind == "text"
    ]
    if titles:
        guess.take("title", titles[0], "its name" if guess.look.header else "the first column of text")
        guess.features["title"] = "text"
    for column, kind in kinds.items():
        if column in guess.columns.values() or kind == "ignore" or (not guess.look.header and kind == "number"):
            continue
        own = own_name(column, guess.columns)
        guess.take(own, column, kind)
        guess.features[own] = kind
    guess.left_out = guess.free


def _describe_users(guess: Guess, events: Guess) -> None:
    _key(guess, "user_id", events.look.frame[events.columns["user_id"]])
    for column in guess.free:
        guess.take(own_name(column, guess.columns), column, "an attribute: results are shown for its groups")
