"""RecTools' SASRecModel through its public calls: fit_partial one epoch at a time (it keeps its optimizer), recommend."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
from handover import TOP, Clock, Task, tell

warnings.filterwarnings("ignore")

from pytorch_lightning import Callback, Trainer, seed_everything  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402
from rectools.models.nn.item_net import IdEmbeddingsItemNet  # noqa: E402

clock, told = Clock(), []


class Timing(Callback):
    """Times Lightning's epochs, and so leaves out what fit_partial prepares before them."""

    def on_train_epoch_start(self, *_) -> None:
        clock.start()

    def on_train_epoch_end(self, *_) -> None:
        told.append(clock.stop())


def dataset(events: pd.DataFrame) -> Dataset:
    """RecTools sorts by datetime: the order of the events stands for it, so that ties stay as they were."""
    when = pd.Timestamp("2000-01-01") + pd.to_timedelta(events["order"], unit="s")
    return Dataset.construct(pd.DataFrame({"user_id": events["user"], "item_id": events["item"], "weight": 1.0, "datetime": when}))


def main() -> None:
    task = Task.read()
    seed_everything(task.seed)
    known = {part: dataset(task.events(part)) for part in ("validation", "test")}
    options = {"loss": "softmax", **task.options}
    model = SASRecModel(
        n_factors=task.dim,
        n_blocks=task.blocks,
        n_heads=task.heads,
        session_max_len=task.length,
        item_net_block_types=(IdEmbeddingsItemNet,),
        **options,
    )
    model._trainer = Trainer(  # the documented way to give a model one's own trainer
        max_epochs=1,
        min_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        devices=1,
        accelerator="cpu",
        callbacks=[Timing()],
    )

    def lists(part: str) -> np.ndarray:
        users = task.asked(part)
        found = model.recommend(users=users, dataset=known[part], k=TOP, filter_viewed=True, on_unsupported_targets="ignore")
        table = np.full((len(users), TOP), -1)
        table[np.searchsorted(users, found["user_id"]), found["rank"] - 1] = found["item_id"]
        return table

    while True:
        model.fit_partial(known["validation"], 1, 1)
        if not tell(task, told[-1], lists):
            return


if __name__ == "__main__":
    sys.exit(main())
