"""RePlay's SasRec (full cross-entropy) through its Lightning module and ParquetModule."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
from handover import Clock, Task, best, tell

warnings.filterwarnings("ignore")

import lightning  # noqa: E402
import torch  # noqa: E402
from replay.data import FeatureHint, FeatureSource, FeatureType  # noqa: E402
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema  # noqa: E402
from replay.data.nn.parquet.parquet_module import ParquetModule  # noqa: E402
from replay.nn.lightning.module import LightningModule  # noqa: E402
from replay.nn.sequential.sasrec.model import SasRec  # noqa: E402
from replay.nn.transform.template.sasrec import make_default_sasrec_transforms  # noqa: E402

BLOCK = 256


class Reporting(lightning.Callback):
    """Times the epochs and reports them."""

    def __init__(self, task: Task, lists) -> None:
        self.task, self.lists, self.clock = task, lists, Clock()

    def on_train_epoch_start(self, *_) -> None:
        self.clock.start()

    def on_train_epoch_end(self, trainer, *_) -> None:
        trainer.should_stop = not tell(self.task, self.clock.stop(), self.lists)


def main() -> None:
    task = Task.read()
    lightning.seed_everything(task.seed)
    batch = task.options.get("batch_size", 32)
    info = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=task.dim,
        padding_value=task.items,
        cardinality=task.items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
    schema = TensorSchema([info])
    net = SasRec.from_params(schema, task.dim, task.heads, task.blocks, task.length)
    path = task.out / "replay_train.parquet"
    rows = task.events("validation").groupby("user")["item"].agg(list)
    pd.DataFrame({"item_id": rows[rows.map(len) > 1]}).to_parquet(path, index=False)
    data = ParquetModule(
        batch_size=batch,
        metadata={"train": {"item_id": {"shape": task.length + 1, "padding": task.items}}},
        transforms={"train": make_default_sasrec_transforms(schema)["train"]},
        train_path=str(path),
    )

    @torch.inference_mode()
    def lists(part: str) -> np.ndarray:
        net.eval()
        histories, found = task.histories(part), []
        for first in range(0, len(histories), BLOCK):
            block = histories[first : first + BLOCK]
            items = np.full((len(block), task.length), task.items)
            for row, history in enumerate(block):
                late = history[-task.length :]
                items[row, task.length - len(late) :] = late
            items = torch.from_numpy(items)
            scores = net.forward_inference({"item_id": items}, items != task.items)["logits"]
            found.append(best(scores[:, : task.items].numpy().copy(), block))
        net.train()
        return np.concatenate(found)

    trainer = lightning.Trainer(
        max_epochs=task.epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        devices=1,
        accelerator="cpu",
        limit_val_batches=0,
        callbacks=[Reporting(task, lists)],
    )
    trainer.fit(LightningModule(net), datamodule=data)


if __name__ == "__main__":
    sys.exit(main())
