"""The registered click head, as code: MLflow runs this file where the model is loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from nightloom.core.privacy_key import check_fingerprint, key_of_environment, privacy_key
from nightloom.data.preparation.impressions import Impressions
from nightloom.models.ctr.save import load
from nightloom.packaging.served import check_click_files


class ClickChances(mlflow.pyfunc.PythonModel):
    """Gives probabilities for rows of what may be shown. Its counters cover the log that it was registered with, up to its end."""

    def load_context(self, context: Any) -> None:
        """Read the head, the log, and the key by which the log's values were hashed.

        Raises:
            InputError: the key is not here, or it is another one.
        """
        folder = Path(context.artifacts["clicks"])
        check_click_files(folder)
        self.head, self.encoder, self.calibrator = load(folder)
        self.log = Impressions.load(folder)
        self.key = key_of_environment()
        said = (context.model_config or {}).get("key_file")
        if self.log.key and self.key is None and said and Path(said).is_file():
            self.key = privacy_key(Path(said).parent)
        if self.log.key:
            check_fingerprint(self.key or b"", self.log.key, "the log of clicks")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Probabilities of a click.

        Args:
            context: MLflow's.
            model_input: a row for each thing that may be shown: columns of the log under its names (`user_id`, `item_id`, `item <column>`,
                the context's own). What is missing counts as unknown. `time`, in ms since 1970, where the log has times: by default now.
            params: none.

        Returns:
            A row for each input row: `probability`, between 0 and 1.

        Raises:
            InputError: no column is one of the log's.
        """
        now = time.time_ns() // 1_000_000 if self.log.has_time else int(self.log.times[-1]) + 1
        given = pd.to_numeric(model_input["time"]).fillna(now) if "time" in model_input else np.full(len(model_input), now)
        rows = self.log.followed_by(model_input, np.asarray(given, dtype=np.int64), self.key)
        log_odds = self.head.log_odds(self.encoder.encode(rows, len(self.log)))[len(self.log) :]
        return pd.DataFrame({"probability": self.calibrator(log_odds)})


mlflow.models.set_model(ClickChances())
