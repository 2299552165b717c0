"""Fitting the network to histories: epochs of steps, the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nightloom.data.sequences import Histories
from nightloom.models.fusion import ItemContent
from nightloom.models.loom import LoomNet
from nightloom.models.transformer import Packed
from nightloom.models.windows import BOS, NO_TARGET, Windows
from nightloom.training.batches import dropout_masks, hidden_items, plan_epoch, seed_of, timeless_windows
from nightloom.training.distributed import FlatGradients, World
from nightloom.training.losses import sampled_softmax_loss, softmax_loss

if TYPE_CHECKING:
    from nightloom.config import RunConfig
    from nightloom.training.tuning import TextTuner

FULL_SOFTMAX_ITEMS = 50_000
SAMPLED_NEGATIVES = 4096
CLIP_NORM = 1.0
WARM_UP_STEPS = 100
AVERAGE_HALF_LIFE_EPOCHS = 1.0


class Fitter:
    """A network, its optimizer, and the averaged weights that are evaluated and kept.

    Args:
        net: the network, on the worker's device.
        content: the catalogue, on the worker's device.
        histories: what to learn from.
        config: the run's config (attributes as in RunConfig).
        world: this worker among all.
        phase: tells the random numbers of one fit from those of the next.
        tuner: the language model when it is tuned too.
    """

    def __init__(
        self,
        net: LoomNet,
        content: ItemContent,
        histories: Histories,
        config: RunConfig,
        world: World,
        phase: int = 0,
        tuner: TextTuner | None = None,
    ) -> None:
        self.net, self.content, self.histories, self.config, self.world, self.phase, self.tuner = (
            net, content, histories, config, world, phase, tuner,
        )  # fmt: skip
        self.epoch = self.step = 0
        # Items that no history has are no negatives: they would only teach that the unknown id is never right.
        self.seen = np.unique(histories.items).astype(np.int64)
        wanted = histories.items[histories.positive]
        self.counts = np.bincount(wanted, minlength=len(content)).astype(np.float64)
        training = config.training
        self.negatives = training.negatives or (SAMPLED_NEGATIVES if len(self.seen) > FULL_SOFTMAX_ITEMS else None)
        groups = parameter_groups(net, training.learning_rate, training.weight_decay)
        if tuner is not None:
            groups.append({"params": tuner.parameters, "lr": training.lm_learning_rate, "weight_decay": training.weight_decay})
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.gradients = FlatGradients(self.parameters)
        self.optimizer = make_optimizer(training.optimizer, groups)
        self.peak_rates = [group["lr"] for group in groups]
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    def run_epoch(self) -> float:
        """Train for one epoch; returns the mean loss of a target (nats)."""
        training, random = self.config.training, np.random.default_rng([self.config.training.seed, self.phase, self.epoch])
        windows = Windows.to_train(self.histories, self.config.model.max_history, random)
        plan = plan_epoch(windows.lengths, training.batch_users, random)
        decay = 0.5 ** (1 / (AVERAGE_HALF_LIFE_EPOCHS * max(len(plan), 1)))
        self.net.train()
        total, targets = torch.zeros((), dtype=torch.float64, device=self.world.device), 0
        for rows in plan:
            targets_here = windows.take(rows).n_targets
            total += self._step(windows.take(rows[self.world.rank :: self.world.size]), windows.take(rows), targets_here)
            targets += targets_here
            # The average lags while few steps are behind it, so it starts as a plain mean.
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - min(decay, self.step / (self.step + 9)))
        self.epoch += 1
        return float(self.world.sum_(total)) / max(targets, 1)

    def _step(self, share: Windows, batch: Windows, n_targets: int) -> Tensor:
        """One step: this worker's share of the batch, gradients summed over all. Returns the share's summed loss."""
        device, model, training = self.world.device, self.config.model, self.config.training
        seed = seed_of(training.seed, self.phase, self.step)
        self.step += 1
        self.gradients.zero()
        hidden = hidden_items(len(self.content), model.id_dropout, seed, device) if model.use_ids else None
        content, text = self.content, None
        if self.tuner is not None:
            text = self.tuner.encode(
                np.unique(np.concatenate([batch.items[batch.items != BOS], batch.targets[batch.targets != NO_TARGET]])), seed
            )
            content = content.with_text(text.table)
        drawn = self._negatives(seed)
        needed = (
            self.seen
            if drawn is None
            else np.unique(np.concatenate([batch.items[batch.items != BOS], batch.targets[batch.targets != NO_TARGET], drawn]))
        )
        place = np.zeros(len(self.content), dtype=np.int64)
        place[needed] = np.arange(len(needed))
        rows = torch.from_numpy(needed).to(device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        if share.n_targets:
            items = self.net.fusion(content.take(rows), None if hidden is None else hidden[rows])
            packed = Packed.of(share, device, use_time=self.net.encoder.use_time, timeless=timeless_windows(share, seed))
            inputs = torch.from_numpy(place[np.maximum(share.items, 0)]).to(device)
            keep = dropout_masks(share, self.net.encoder.sites, model.dim, model.dropout, seed, device)
            users = self.net.users(items.index_select(0, inputs), packed, keep)
            asked = np.flatnonzero(share.targets != NO_TARGET)
            users = users.index_select(0, torch.from_numpy(asked).to(device))
            targets = torch.from_numpy(place[share.targets[asked]]).to(device)
            if drawn is None:
                loss = softmax_loss(users, items, targets, training.label_smoothing)
            else:
                q = np.log(self._draw_probability()[drawn] * len(drawn)).astype(np.float32)
                loss = sampled_softmax_loss(
                    users,
                    items,
                    targets,
                    torch.from_numpy(place[drawn]).to(device),
                    torch.from_numpy(q).to(device),
                    training.label_smoothing,
                )
            (loss / n_targets).backward()
        if text is not None:
            text.backward()
        self.world.sum_(self.gradients.flat)
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        warm = min(1.0, self.step / WARM_UP_STEPS)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * warm
        self.optimizer.step()
        return loss.detach()

    def _draw_probability(self) -> np.ndarray:
        """How negatives are drawn: half by popularity, half evenly over the items seen in training; float64 [n_items]."""
        even = np.zeros_like(self.counts)
        even[self.seen] = 1 / len(self.seen)
        return 0.5 * self.counts / max(self.counts.sum(), 1) + 0.5 * even

    def _negatives(self, seed: int) -> np.ndarray | None:
        """Negatives of a step, shared by the whole batch, or None for the full softmax."""
        if self.negatives is None:
            return None
        return np.random.default_rng(seed).choice(len(self.counts), self.negatives, p=self._draw_probability())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights inside the block."""
        former = [parameter.detach().clone() for parameter in self.parameters]
        self.keep(self.average)
        try:
            yield
        finally:
            self.keep(former)

    @torch.no_grad()
    def keep(self, weights: list[Tensor]) -> None:
        """Take some weights (a best epoch's, the average) for the network and, when it is tuned, the language model."""
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.copy_(weight)

    def refresh_text(self) -> ItemContent:
        """The catalogue with text vectors of the language model as it is now; the same one when it is frozen."""
        if self.tuner is not None:
            self.content = self.content.with_text(self.tuner.refresh())
        return self.content

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if never stopped."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "parameters": [parameter.detach().cpu() for parameter in self.parameters],
            "average": [average.cpu() for average in self.average],
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.keep(state["parameters"])
        for average, mean in zip(self.average, state["average"], strict=True):
            average.copy_(mean)
        self.optimizer.load_state_dict(state["optimizer"])
        with self.averaged():
            self.refresh_text()


def parameter_groups(net: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices of linear layers only: not on norms, biases, embeddings and single vectors."""
    matrices = {id(layer.weight) for layer in net.modules() if isinstance(layer, nn.Linear)}
    decayed = [parameter for parameter in net.parameters() if id(parameter) in matrices]
    others = [parameter for parameter in net.parameters() if id(parameter) not in matrices]
    return [{"params": decayed, "lr": rate, "weight_decay": decay}, {"params": others, "lr": rate, "weight_decay": 0.0}]


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, Adam (decay in the gradient) or SGD with momentum."""
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return (torch.optim.AdamW if name == "adamw" else torch.optim.Adam)(groups, betas=(0.9, 0.98), fused=True)
