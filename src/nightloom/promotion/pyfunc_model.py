"""The registered model, as code: MLflow runs this file where the model is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from nightloom.errors import InputError
from nightloom.models.bundle import Bundle


class Recommender(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow is untyped
    """Answers histories of item ids, or user ids that the store of events knows."""

    def load_context(self, context: Any) -> None:
        """Read the bundle."""
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Recommend.

        Args:
            context: MLflow's; the bundle is loaded already.
            model_input: `history` (item ids, oldest first) with, perhaps, `times` (seconds since 1970), or `user_id`.
            params: `k`, how many items.

        Returns:
            A row for each input row: `items` and `scores`, best first.

        Raises:
            InputError: neither histories nor user ids are given, or the store of events can not be read.
        """
        k = int((params or {}).get("k", 10))
        times: list[list[int]] | None = None
        if "history" in model_input:
            histories = [[] if one is None else list(one) for one in model_input["history"]]
            if "times" in model_input and model_input["times"].notna().all():
                times = [list(one) for one in model_input["times"]]
        elif "user_id" in model_input:
            histories, times = self._stored(model_input["user_id"].tolist())
        else:
            raise InputError("the input needs a column `history` (lists of item ids) or `user_id`.")
        answers = self.bundle.recommend(histories, k, times=times)
        return pd.DataFrame(
            {"items": [[item for item, _ in one] for one in answers], "scores": [[score for _, score in one] for one in answers]}
        )

    def _stored(self, users: list[str]) -> tuple[list[list[str]], list[list[int]] | None]:
        place = os.environ.get("NIGHTLOOM_EVENTS")
        if not place:
            raise InputError("user ids need the store of events: set NIGHTLOOM_EVENTS to a canonical events.parquet, or send `history`.")
        events = pd.read_parquet(place, filters=[("user_id", "in", [str(user) for user in users])])
        by = "timestamp" if "timestamp" in events else "order"
        grouped = events.sort_values(by, kind="stable").groupby("user_id")
        found = {user: rows for user, rows in grouped}  # noqa: C416  # a dict by user
        empty = events.iloc[:0]
        rows = [found.get(str(user), empty) for user in users]
        histories = [one["item_id"].tolist() for one in rows]
        if by == "order":
            return histories, None
        return histories, [(one["timestamp"].astype("int64") // 1000).tolist() for one in rows]


mlflow.models.set_model(Recommender())
