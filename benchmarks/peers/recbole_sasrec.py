"""RecBole's SASRec (cross-entropy over all items), its trainer's own epochs. Every prefix of a history is an example to RecBole."""

from __future__ import annotations

import sys

import numpy as np
import torch
from handover import Clock, Task, best, tell
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader
from recbole.utils import get_model, get_trainer, init_seed

BLOCK = 256


def main() -> None:
    task = Task.read()
    folder = task.out / "recbole"
    (folder / "bench").mkdir(parents=True, exist_ok=True)
    events = task.events("validation").rename(columns={"user": "user_id:token", "item": "item_id:token", "order": "timestamp:float"})
    events.to_csv(folder / "bench" / "bench.inter", sep="\t", index=False)
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": task.length,
        "hidden_size": task.dim,
        "inner_size": 4 * task.dim,
        "n_layers": task.blocks,
        "n_heads": task.heads,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "epochs": task.epochs,
        "seed": task.seed,
        "use_gpu": False,
        "show_progress": False,
        # All that is given is for training; who asks holds the rest.
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": None, "mode": "full"},
        **task.options,
    }
    arguments, sys.argv = sys.argv, sys.argv[:1]  # Config reads the command line too
    config = Config(model="SASRec", dataset="bench", config_dict=settings)
    sys.argv = arguments
    init_seed(config["seed"], config["reproducibility"])
    dataset: SequentialDataset = create_dataset(config)
    train = dataset.build()[0]
    loader = get_dataloader(config, "train")(config, train, None, shuffle=True)
    net = get_model(config["model"])(config, train).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, net)
    inner = np.zeros(task.items, dtype=np.int64)  # RecBole's number of each dense item, 0 (its padding) where it has none
    for token, number in dataset.field2token_id["item_id"].items():
        if number:
            inner[int(token)] = number

    @torch.inference_mode()
    def lists(part: str) -> np.ndarray:
        net.eval()
        histories, found = task.histories(part), []
        for first in range(0, len(histories), BLOCK):
            block = histories[first : first + BLOCK]
            items, lengths = np.zeros((len(block), task.length), dtype=np.int64), np.ones(len(block), dtype=np.int64)
            for row, history in enumerate(block):
                late = inner[history]
                late = late[late > 0][-task.length :]
                items[row, : len(late)], lengths[row] = late, max(len(late), 1)
            asked = Interaction({net.ITEM_SEQ: torch.from_numpy(items), net.ITEM_SEQ_LEN: torch.from_numpy(lengths)})
            scores = net.full_sort_predict(asked).numpy()[:, inner]
            scores[:, inner == 0] = -np.inf
            found.append(best(scores, block))
        return np.concatenate(found)

    clock = Clock()
    for epoch in range(task.epochs):
        clock.start()
        trainer._train_epoch(loader, epoch)
        if not tell(task, clock.stop(), lists):
            return


if __name__ == "__main__":
    sys.exit(main())
