"""The YAML of a first config, with a comment at each guess."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from nightloom.core.yaml_words import scalar
from nightloom.data.draft.roles import Guess
from nightloom.data.tables.convert import to_ids, to_numbers, to_text, to_times

TABLES = ("events", "items", "users", "links")
BOUGHT = r"purchase|bought|buy|transaction|order|checkout|sale"
REPEATS = 0.1
"""From this share of events on an item that the user has interacted with before, repeats are taken for normal."""
BAD = 0.01
"""The share of bad rows from which the default limit would stop the night."""


def draft(name: str, guesses: Mapping[str, Guess], folder: Path) -> str:
    """The config as YAML.

    Args:
        name: of the recommender.
        guesses: table -> what its columns mean; `events` at least.
        folder: where the file will lie, since paths are relative to it.
    """
    return "\n".join([*_head(name), *_data(guesses, folder), *_limits(guesses), *_rules(guesses["events"]), ""])


def _head(name: str) -> Iterator[str]:
    yield "# A first config, guessed from the tables' beginnings. Read the comments, correct what is wrong, then:"
    yield "#   nightloom check FILE    what a night would say of the data, in seconds"
    yield "#   nightloom night FILE    train, evaluate, promote"
    yield "# All keys, each with its meaning: docs/config.md"
    yield f"name: {scalar(name)}   # the registered model is nightloom-{name}"


def _data(guesses: Mapping[str, Guess], folder: Path) -> Iterator[str]:
    yield "data:"
    for table in TABLES:
        if table in guesses:
            look = guesses[table].look
            yield f"  {table}: {scalar(_place(look.place, folder))}"
            yield from (f"    # {note}" for note in look.notes)
        elif table == "items":
            yield "  # items: movies.csv   # a table of items, best with titles: the language model reads them"
    yield from _form(guesses)
    yield "  columns:   # ours: yours"
    for table in TABLES:
        if table in guesses:
            yield from _columns(table, guesses[table])
    items = guesses.get("items")
    if items is not None and items.features:
        yield "  features:   # text is read by the language model; category, tags and number are attributes; image: paths of pictures"
        yield from (f"    {own}: {kind}" for own, kind in items.features.items())
        if "tags" in items.features.values() and items.tags_separator != "|":
            yield f"  tags_separator: {json.dumps(items.tags_separator)}   # between the values of a tags column"
    yield from _times(guesses["events"])


def _place(place: str, folder: Path) -> str:
    """A path relative to the config where it lies below it."""
    if "://" in place:
        return place
    relative = os.path.relpath(place, folder.resolve())
    return place if relative.startswith(os.pardir) else relative


def _form(guesses: Mapping[str, Guess]) -> Iterator[str]:
    """Separator, header and encoding: one value where the text files agree, else one a table."""
    texts = {table: guess.look for table, guess in guesses.items() if guess.look.separator is not None}
    for key, default in (("separator", ","), ("header", True), ("encoding", "utf-8")):
        values = {table: getattr(look, key) for table, look in texts.items()}
        if set(values.values()) <= {default}:
            continue
        shown = {table: json.dumps(value) if key != "encoding" else value for table, value in values.items()}
        one = len(set(shown.values())) == 1
        yield f"  {key}: {next(iter(shown.values()))}" if one else f"  {key}: {{{', '.join(f'{t}: {v}' for t, v in shown.items())}}}"
        if key == "header":
            yield '    # The first line is taken for data: columns are named by their number, "1", "2", and so on.'


def _columns(table: str, guess: Guess) -> Iterator[str]:
    yield f"    {table}:"
    for own, column in guess.columns.items():
        values = to_text(guess.look.frame[column]).dropna()
        example = f", for example {values.iloc[0][:40]!r}" if len(values) else ""
        yield f"      {scalar(own)}: {scalar(column)}   # {guess.why[own]}{example}".replace("\n", " ")
    if table == "events" and "timestamp" not in guess.columns:
        yield "      order: random   # no column holds times: the split is random. Is there a time after all? Write timestamp: COLUMN"
    if guess.left_out:
        yield f"      # not used: {', '.join(guess.left_out)}"[:200]


def _times(guess: Guess) -> Iterator[str]:
    if "timestamp" not in guess.columns:
        return
    times, _ = to_times(guess.look.frame[guess.columns["timestamp"]], "auto", "timestamp")
    known = times.dropna()
    yield f"  # time_unit: auto   # times are read as {known.min():%Y-%m-%d %H:%M} to {known.max():%Y-%m-%d %H:%M} (UTC, of the sample)"


def _limits(guesses: Mapping[str, Guess]) -> Iterator[str]:
    """Limits of bad rows, where a table has more than the default allows."""
    bad = {"events": float(_without_ids(guesses["events"]).mean())}
    for table, own in (("items", "item_id"), ("users", "user_id")):
        if table in guesses:
            ids, missing = to_ids(guesses[table].look.frame[guesses[table].columns[own]])
            bad[table] = float((missing | ids.duplicated()).mean())
    over = {table: share for table, share in bad.items() if share > BAD / 2}
    if over:
        yield "validation:"
        limits = ", ".join(f"{table}: {min(1.0, share + 0.05):.2f}" for table, share in over.items())
        yield f"  max_bad_share: {{{limits}}}   # these share of the rows are set aside (0.01 where nothing is said):"
        yield from (f"    # {table}: {share:.1%} of the sampled rows have no id, or one that came before" for table, share in over.items())


def _without_ids(events: Guess) -> pd.Series:
    """Rows without a user or an item."""
    missing = [to_ids(events.look.frame[events.columns[own]])[1] for own in ("user_id", "item_id")]
    return pd.Series(missing[0] | missing[1])


def _rules(guess: Guess) -> Iterator[str]:
    """Labels and repeats."""
    frame, columns = guess.look.frame, guess.columns
    missing = _without_ids(guess).to_numpy()
    ids = pd.DataFrame({own: to_ids(frame[columns[own]])[0] for own in ("user_id", "item_id")})[~missing]
    repeats = float(ids.duplicated().mean()) if len(ids) else 0.0
    names = to_ids(frame[columns["event"]])[0].dropna() if "event" in columns else pd.Series(dtype=str)
    bought = [one for one in sorted(names.unique()) if re.search(BOUGHT, one, re.IGNORECASE)]
    values = to_numbers(frame[columns["value"]])[0].dropna() if "value" in columns else pd.Series(dtype=float)
    label = len(values) > 0 and set(values.unique()) <= {0.0, 1.0} and values.nunique() > 1
    yield "prepare:"
    if len(names):
        counts = ", ".join(f"{one!r} {count:,}" for one, count in names.value_counts().head(8).items())
        yield f"  # event types in the sample: {counts}"
        wanted = bought if 0 < len(bought) < names.nunique() else []
        kept = "" if wanted else "# "
        shown = ", ".join(json.dumps(one, ensure_ascii=False) for one in wanted or sorted(names.unique())[:1])
        yield f"  {kept}positive_events: [{shown}]   # what the model learns to predict; without it all types count"
    if label:
        yield "  positive_min_value: 1   # value is 0 or 1: 1 is what the model learns to predict"
    elif len(values):
        span = f"{values.min():g} to {values.max():g}"
        yield f"  # positive_min_value: {values.median():g}   # from which value on an event is positive; there are {span}"
    often = repeats > REPEATS
    why = f"{repeats:.0%} of the sampled events are on an item that the user has interacted with before"
    yield f"  keep_repeats: {str(often or label).lower()}   # {why}"
    yield "evaluation:"
    yield f"  exclude_seen: {str(not often or label).lower()}   # false where items are consumed again and again"
