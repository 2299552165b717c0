"""The registered model, as code: MLflow runs this file where the model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow.parquet as pq

from nightloom.errors import InputError
from nightloom.models.bundle import Bundle

Asked = tuple[list[str], list[int] | None]
"""A history of item ids, oldest first, and when each event happened (seconds since 1970), where that is known."""


class Recommender(mlflow.pyfunc.PythonModel):
    """Answers histories of item ids, or user ids that the store of events knows."""

    def load_context(self, context: Any) -> None:
        """Read the bundle."""
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Recommend.

        Args:
            context: MLflow's; its model_config says where the store of events is, unless NIGHTLOOM_EVENTS does.
            model_input: `history` (item ids, oldest first) with, perhaps, `times` (seconds since 1970), or `user_id`. A row with a
                history is answered from it; a user that the store does not know is answered as one without history. `friends`
                (lists of item ids, one a friend) may come with either.
            params: `k`, how many items; `exclude_seen`, whether items of the history are left out.

        Returns:
            A row for each input row: `items` and `scores`, best first.

        Raises:
            InputError: neither histories nor user ids are given, or the store of events can not be read.
        """
        if not {"history", "user_id"} & set(model_input.columns):
            raise InputError(f"the input has the columns {list(model_input.columns)}. Give `history` (lists of item ids) or `user_id`.")
        settings = {"k": 10, "exclude_seen": True} | (params or {})
        rows: list[Mapping[Any, Any]] = list(model_input.to_dict("records"))
        users = {str(row["user_id"]) for row in rows if _given(row, "user_id") and not _given(row, "history")}
        stored = self._stored(users, _store(context)) if users else {}
        asked = [_asked(row, stored) for row in rows]
        answers: list[list[tuple[str, float]]] = [[]] * len(rows)
        for timed in (False, True):  # the bundle takes times for all of its histories or for none
            at = [row for row, (_, times) in enumerate(asked) if (times is not None) == timed]
            if at:
                times = [asked[row][1] or [] for row in at] if timed else None
                friends = [
                    [[str(item) for item in one] for one in rows[row]["friends"]] if _given(rows[row], "friends") else [] for row in at
                ]
                histories = [asked[row][0] for row in at]
                found = self.bundle.recommend(histories, settings["k"], times, exclude_seen=settings["exclude_seen"], friends=friends)
                for row, answer in zip(at, found, strict=True):
                    answers[row] = answer
        return pd.DataFrame(
            {"items": [[item for item, _ in one] for one in answers], "scores": [[score for _, score in one] for one in answers]}
        )

    def _stored(self, users: set[str], place: Path) -> dict[str, Asked]:
        """The histories of some users in a table of canonical events."""
        by = "timestamp" if "timestamp" in pq.read_schema(place).names else "order"
        events = pd.read_parquet(place, columns=["user_id", "item_id", by], filters=[("user_id", "in", sorted(users))])
        events = events.drop_duplicates().sort_values(by, kind="stable")
        if by == "order":
            return {str(user): (rows["item_id"].tolist(), None) for user, rows in events.groupby("user_id")}
        events["seconds"] = events["timestamp"].dt.as_unit("s").astype("int64")
        return {str(user): (rows["item_id"].tolist(), rows["seconds"].tolist()) for user, rows in events.groupby("user_id")}


def _given(row: Mapping[Any, Any], column: str) -> bool:
    """Whether a row says something; missing values of strings and lists come as None or NaN."""
    value = row.get(column)
    return value is not None and not (isinstance(value, float) and value != value)


def _asked(row: Mapping[Any, Any], stored: dict[str, Asked]) -> Asked:
    if _given(row, "history"):
        return [str(item) for item in row["history"]], [int(second) for second in row["times"]] if _given(row, "times") else None
    return stored.get(str(row.get("user_id")), ([], None))


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
