"""The registered model, as code: MLflow runs this file where the model is loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from nightloom.core.blocklist import VARIABLE, Blocklist
from nightloom.core.errors import InputError, RenamedWarning
from nightloom.core.files import events_at
from nightloom.core.queries import Query
from nightloom.data.preparation.stored import look_up
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.shown import shown_mask

RENAMED = {"asked_at": "request_time"}
"""Input columns of the version before -> their names now."""


class Recommender(mlflow.pyfunc.PythonModel):
    """Answers histories of item ids, or user ids that the store of events knows."""

    def load_context(self, context: Any) -> None:
        """Read the bundle."""
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Recommend.

        Args:
            context: MLflow's; its model_config says where the store of events is, unless NIGHTLOOM_EVENTS does.
            model_input: `history` (item ids, oldest first) with, perhaps, `times` (seconds since 1970), `events` (event names; by default
                the one that most positive events have) and `positive` (whether each event was liked; by default as its name says), or
                `user_id`: each row has one of the two. A user's stored events are cleaned, named and labelled by the rules
                of stage prepare; a user that the store does not know is answered as one without history. With either there may be
                `friends` (lists of item ids, one a friend) and `request_time` (seconds since 1970; by default now, see
                `nightloom.core.queries.Clock`). A stored user is answered from the events before `request_time`, as evaluation does.
            params: `k`, how many items; `exclude_seen`, whether items of the history are left out.

        Returns:
            A row for each input row: `items` and `scores`, best first, and what `Bundle.answer_probabilities` says of each of these items:
            `probability` where the model has a re-ranker, `label_probability` where it has a label head.

        Raises:
            InputError: a row has neither a history nor a user id, or both; no id of a history is in the catalogue; times are no seconds
                or fall; an event name is unknown; a history has events after its `request_time`; k is below 1; or the store of
                events can not be read.
        """
        model_input = _renamed(model_input)
        if not {"history", "user_id"} & set(model_input.columns):
            raise InputError(f"the input has the columns {list(model_input.columns)}. Give `history` (lists of item ids) or `user_id`.")
        settings = {"k": 10, "exclude_seen": True} | (params or {})
        if settings["k"] < 1:
            raise InputError(f"params: k is {settings['k']}. Ask for at least one item.")
        rows: list[Mapping[Any, Any]] = list(model_input.to_dict("records"))
        _check(rows, self.bundle)
        users = {str(row["user_id"]) for row in rows if _given(row, "user_id") and not _given(row, "history")}
        stored = self._stored(users, _store(context)) if users else {}
        queries = [_query(row, stored) for row in rows]
        allowed = shown_mask(self.bundle, Blocklist.read(_blocklist(context)))
        found = self.bundle.recommend(queries, settings["k"], exclude_seen=settings["exclude_seen"], allowed=allowed)
        answers = {"items": [[item for item, _ in one] for one in found], "scores": [[score for _, score in one] for one in found]}
        return pd.DataFrame(answers | self.bundle.answer_probabilities(queries, found))

    def _stored(self, users: set[str], place: Path) -> dict[str, Query]:
        """The histories of some users in a table of canonical events."""
        found = {}
        for user, rows in look_up(place, users, self.bundle.meta).groupby("user_id"):
            times = rows["second"].tolist() if "second" in rows else None
            found[str(user)] = Query(rows["item_id"].tolist(), times, rows["event"].tolist(), rows["positive"].tolist(), user_id=str(user))
        return found


def _check(rows: Sequence[Mapping[Any, Any]], bundle: Bundle) -> None:
    """Refuse rows that could only be answered by a guess; each message names one.

    A history of unknown ids alone is answered as that of somebody new, with a warning. Where there is no other, ids are spelt otherwise.
    """
    strangers, told = list[int](), 0
    for number, row in enumerate(rows):
        asked = [name for name in ("history", "user_id") if _given(row, name)]
        if len(asked) != 1:
            both = "both `history` and `user_id`" if asked else "neither `history` nor `user_id`"
            raise InputError(f"row {number} has {both}. Give one of them: [] is the history of somebody new.")
        if asked == ["history"] and len(row["history"]):
            told += 1
            if not any(str(item) in bundle.index for item in row["history"]):
                strangers.append(number)
    if not strangers:
        return
    number = strangers[0]
    ids = rows[number]["history"]
    said = (
        f"row {number}: none of the {len(ids):,} ids of its history is in the catalogue of {len(bundle.index):,} items, "
        f"for example '{str(ids[0])[:60]}'. Its ids look like '{bundle.item_ids[0]}'."
    )
    if len(strangers) == told:
        raise InputError(said)
    warnings.warn(f"{len(strangers):,} of {told:,} histories are answered as those of somebody new. {said}", UserWarning, stacklevel=2)


def _renamed(model_input: pd.DataFrame) -> pd.DataFrame:
    """The input with the columns of the version before under their names of today."""
    old = {name: now for name, now in RENAMED.items() if name in model_input and model_input[name].notna().any()}
    for name, now in old.items():
        if now in model_input and model_input[now].notna().any():
            raise InputError(f"the input has the columns `{now}` and `{name}`, its old name. Give `{now}` alone.")
        warnings.warn(f"the column `{name}` is now `{now}`; the old name goes away with the next version.", RenamedWarning, stacklevel=2)
    return model_input.drop(columns=[now for now in old.values() if now in model_input]).rename(columns=old)


def _given(row: Mapping[Any, Any], column: str) -> bool:
    """Whether a row has a value; missing values of strings and lists come as None or NaN."""
    value = row.get(column)
    return value is not None and value is not pd.NA and not (isinstance(value, float) and value != value)


def _query(row: Mapping[Any, Any], stored: Mapping[str, Query]) -> Query:
    moment = int(row["request_time"]) if _given(row, "request_time") else None
    friends = [[str(item) for item in one] for one in row["friends"]] if _given(row, "friends") else []
    if _given(row, "history"):
        return Query(
            [str(item) for item in row["history"]],
            [int(second) for second in row["times"]] if _given(row, "times") else None,
            [str(name) for name in row["events"]] if _given(row, "events") else None,
            [bool(flag) for flag in row["positive"]] if _given(row, "positive") else None,
            friends,
            moment,
        )
    found = replace(stored.get(str(row.get("user_id")), Query()), friends=friends)
    return found if moment is None else found.at(moment)


def _blocklist(context: Any) -> Path | None:
    """The file that says what is never shown, where it was when the model was made; it is read at each call."""
    named = os.environ.get(VARIABLE) or (context.model_config or {}).get("blocklist")
    return Path(named) if named else None


def _store(context: Any) -> Path:
    """The table of events, from NIGHTLOOM_EVENTS or as it was where the model was made."""
    named = os.environ.get("NIGHTLOOM_EVENTS") or (context.model_config or {}).get("events")
    remedy = "Set NIGHTLOOM_EVENTS to a canonical events.parquet or its folder, or send `history`."
    if not named:
        raise InputError(f"user ids need the store of events, and this model names none. {remedy}")
    place = events_at(Path(named))
    if not place.exists():
        raise InputError(f"{place}: the store of events is not there, so user ids can not be looked up. {remedy}")
    return place


mlflow.models.set_model(Recommender())
