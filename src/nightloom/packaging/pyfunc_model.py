"""The registered model, as code: MLflow runs this file where the model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.data.preparation.stored import look_up
from nightloom.packaging.bundle import Bundle


class Asked(NamedTuple):
    """A question.

    Attributes:
        history: item ids, oldest first.
        events: event name of each.
        positive: whether each event was.
        times: when each event happened, seconds since 1970; None where that is not known.
        at: when the question is asked, seconds since 1970; it counts where the times are known.
    """

    history: list[str]
    events: list[str]
    positive: list[bool]
    times: list[int] | None = None
    at: int = 0


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
                the one that most positive events have) and `positive` (whether each event was liked; by default as its name tells), or
                `user_id`. A row with a history is answered from it; a user's stored events are cleaned, named and marked as stage
                prepare does it, and a user that the store does not know is answered as one without history. With either there may be
                `friends` (lists of item ids, one a friend) and `request_time` (seconds since 1970; by default that of the latest event).
            params: `k`, how many items; `exclude_seen`, whether items of the history are left out.

        Returns:
            A row for each input row: `items` and `scores`, best first, and what `Bundle.answer_probabilities` says of each of these items:
            `probability` where the model has a re-ranker, `label_probability` where it has a label head.

        Raises:
            InputError: neither histories nor user ids are given, an event name is unknown, or the store of events can not be read.
        """
        if not {"history", "user_id"} & set(model_input.columns):
            raise InputError(f"the input has the columns {list(model_input.columns)}. Give `history` (lists of item ids) or `user_id`.")
        settings = {"k": 10, "exclude_seen": True} | (params or {})
        rows: list[Mapping[Any, Any]] = list(model_input.to_dict("records"))
        users = {str(row["user_id"]) for row in rows if _given(row, "user_id") and not _given(row, "history")}
        stored = self._stored(users, _store(context)) if users else {}
        asked = [_asked(row, stored, self.bundle.event_names) for row in rows]
        answers: dict[str, list[list[Any]]] = {"items": [[]] * len(rows), "scores": [[]] * len(rows)}
        for timed in (False, True):  # the bundle takes times for all of its histories or for none
            at = [row for row, one in enumerate(asked) if (one.times is not None) == timed]
            if at:
                for name, column in self._answers([asked[row] for row in at], [_friends(rows[row]) for row in at], settings).items():
                    whole = answers.setdefault(name, [[]] * len(rows))
                    for row, answer in zip(at, column, strict=True):
                        whole[row] = answer
        return pd.DataFrame(answers)

    def _answers(self, asked: list[Asked], friends: list[list[list[str]]], settings: dict[str, Any]) -> dict[str, list[list[Any]]]:
        """The columns of the answer, for histories that all have times or all have none."""
        histories, when = [one.history for one in asked], [one.at for one in asked]
        events, positive = [one.events for one in asked], [one.positive for one in asked]
        times = [one.times for one in asked if one.times is not None] or None
        found = self.bundle.recommend(histories, settings["k"], times, when, settings["exclude_seen"], friends, positive, events)
        answers: dict[str, list[list[Any]]] = {
            "items": [[item for item, _ in one] for one in found],
            "scores": [[score for _, score in one] for one in found],
        }
        return answers | self.bundle.answer_probabilities(histories, found, times, when, positive, events)

    def _stored(self, users: set[str], place: Path) -> dict[str, Asked]:
        """The histories of some users in a table of canonical events."""
        found = {}
        for user, rows in look_up(place, users, self.bundle.meta).groupby("user_id"):
            times = rows["second"].tolist() if "second" in rows else None
            found[str(user)] = Asked(rows["item_id"].tolist(), rows["event"].tolist(), rows["positive"].tolist(), times, max(times or [0]))
        return found


def _given(row: Mapping[Any, Any], column: str) -> bool:
    """Whether a row says something; missing values of strings and lists come as None or NaN."""
    value = row.get(column)
    return value is not None and not (isinstance(value, float) and value != value)


def _asked(row: Mapping[Any, Any], stored: dict[str, Asked], names: EventNames) -> Asked:
    if _given(row, "history"):
        history = [str(item) for item in row["history"]]
        events = [str(name) for name in row["events"]] if _given(row, "events") else [names.default] * len(history)
        positive = [bool(flag) for flag in row["positive"]] if _given(row, "positive") else names.positive[names.codes(events)].tolist()
        times = [int(second) for second in row["times"]] if _given(row, "times") else None if history else []
        asked = Asked(history, events, positive, times, max(times or [0]))
    else:
        asked = stored.get(str(row.get("user_id"))) or Asked([], [], [], [])  # who has had nothing has no time that is not known
    return asked._replace(at=int(row["request_time"])) if _given(row, "request_time") else asked


def _friends(row: Mapping[Any, Any]) -> list[list[str]]:
    return [[str(item) for item in one] for one in row["friends"]] if _given(row, "friends") else []


def _store(context: Any) -> Path:
    """The table of events, from NIGHTLOOM_EVENTS or as it was where the model was made."""
    named = os.environ.get("NIGHTLOOM_EVENTS") or (context.model_config or {}).get("events")
    remedy = "Set NIGHTLOOM_EVENTS to a canonical events.parquet or its folder, or send `history`."
    if not named:
        raise InputError(f"user ids need the store of events, and this model names none. {remedy}")
    place = Path(named) / "events.parquet" if Path(named).is_dir() else Path(named)
    if not place.is_file():
        raise InputError(f"{place}: the store of events is not there, so user ids can not be looked up. {remedy}")
    return place


mlflow.models.set_model(Recommender())
