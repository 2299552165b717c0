"""Fitting the network to histories: epochs of steps, the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nightloom.core.errors import TrainingError
from nightloom.core.sequences import Histories
from nightloom.models.sequential.batches import dropout_masks, hidden_items, plan_epoch, seed_of, timeless_windows
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.history_encoder import Packed
from nightloom.models.sequential.losses import FULL_SOFTMAX_ITEMS, SAMPLED_NEGATIVES, negatives_draw, sampled_softmax_loss, softmax_loss
from nightloom.models.sequential.network import SequentialNetwork
from nightloom.models.sequential.windows import BOS, NO_TARGET, Windows
from nightloom.training.checkpoint import SHARDS
from nightloom.training.distributed import FlatGradients, World, local
from nightloom.training.item_table import FROM_ROWS, ItemTable, Rows
from nightloom.training.label_task import LabelTask
from nightloom.training.optimizer import make_optimizer, parameter_groups, precision_of
from nightloom.training.shared_vectors import give_back

if TYPE_CHECKING:
    from nightloom.config import RunConfig
    from nightloom.training.text_tuning import TextTuner

CLIP_NORM = 1.0
WARM_UP_STEPS, WARM_UP_EPOCHS = 100, 3
TRAINED_WARM_UP_STEPS = 10
"""Steps in which the rate rises when the weights are trained already: enough for the optimizer to know their gradients."""
AVERAGE_HALF_LIFE_EPOCHS = 1.0
TRIMMED = 50
"""Steps with rows of a large id table between two times that free memory is given back."""
EXCHANGED = 1 << 14
"""Rows of a weight that are exchanged with its average at once."""


class Fitter:
    """A network, its optimizer, and the averaged weights that are evaluated and kept.

    Args:
        net: the network, on the worker's device.
        content: the catalogue, on the worker's device.
        histories: what to learn from.
        config: the run's config (attributes as in RunConfig).
        world: this worker among all.
        phase: part of the seed, so that search and refit draw other random numbers.
        tuner: the language model when it is tuned too.
        falls_over: epochs over which the learning rate falls to zero, for a warm start; None: it stays at its peak.
        white: the catalogue with whitened vectors, where workers share them; None: they are made here.
    """

    def __init__(
        self,
        net: SequentialNetwork,
        content: ItemContent,
        histories: Histories,
        config: RunConfig,
        world: World,
        phase: int = 0,
        tuner: TextTuner | None = None,
        falls_over: int | None = None,
        white: ItemContent | None = None,
    ) -> None:
        self.falls_over = falls_over
        self.net, self.content, self.histories, self.config, self.world, self.phase, self.tuner = (
            net, content, histories, config, world, phase, tuner,
        )  # fmt: skip
        self.epoch = self.step = 0
        self.precision = precision_of(config.training.precision, world.device)
        # Items without an event are no negatives: they would only teach that the unknown id is never right.
        self.seen = np.unique(histories.items).astype(np.int64)
        training = config.training
        self.n_negatives = training.negatives or (SAMPLED_NEGATIVES if len(self.seen) > FULL_SOFTMAX_ITEMS else 0)
        self.draw = negatives_draw(histories, len(content)) if self.n_negatives else None
        self.labels = LabelTask.of(net, histories, len(content), training.seed)
        self.label_loss: float | None = None
        """Mean label loss of the last epoch (nats an event); None where no labels are learnt."""
        # With a frozen language model, texts are whitened once, and gathered once where every step needs the same items.
        self.white = (white or net.fusion.whitened(content)) if tuner is None else None
        self.taken = (
            self.white.take(torch.from_numpy(self.seen).to(world.device)) if self.white is not None and not self.n_negatives else None
        )
        groups = parameter_groups(net, training.learning_rate, training.weight_decay)
        self.sharded = tuner.sharded if tuner is not None else None
        tuned: list[dict[str, Any]] = []
        if tuner is not None:
            tuned = [{"params": tuner.parameters, "lr": training.lm_learning_rate, "weight_decay": training.weight_decay}]
        if self.sharded is None:
            groups, tuned = groups + tuned, []
        here = [parameter for group in groups for parameter in group["params"]]
        ids, self.table = net.fusion.ids.weight, None
        if len(ids) >= FROM_ROWS and ids.requires_grad and training.optimizer != "sgd" and self.sharded is None:
            self.table = ItemTable(ids.detach())
            groups = [group | {"params": [one for one in group["params"] if one is not ids]} for group in groups]
        self.parameters = here + [parameter for group in tuned for parameter in group["params"]]
        """All that is learned; those of a language model that is shared out over the workers come last."""
        self.n_here = len(here)
        self.gradients = FlatGradients([parameter for group in groups for parameter in group["params"]])
        self.optimizer = make_optimizer(training.optimizer, groups)
        self.sharded_optimizer = make_optimizer(training.optimizer, tuned) if tuned else None
        self.peak_rates = [group["lr"] for group in groups + tuned]
        self.average = [
            self.table.average if self.table is not None and one is ids else part.clone()
            for one, part in zip(self.parameters, self._parts(), strict=True)
        ]

    def run_epoch(self) -> float:
        """Train for one epoch; returns the mean loss of a target (nats).

        Raises:
            TrainingError: the loss is no longer a number.
        """
        training, random = self.config.training, np.random.default_rng([self.config.training.seed, self.phase, self.epoch])
        windows = Windows.to_train(self.histories, self.config.model.max_history, random, labels=self.labels is not None)
        plan = plan_epoch(windows.lengths, training.batch_users, random)
        warm_up = max(1, min(WARM_UP_STEPS if self.falls_over is None else TRAINED_WARM_UP_STEPS, WARM_UP_EPOCHS * len(plan)))
        steps = None if self.falls_over is None else self.falls_over * len(plan)
        decay = 0.5 ** (1 / (AVERAGE_HALF_LIFE_EPOCHS * max(len(plan), 1)))
        self.net.train()
        total, targets, asked = torch.zeros(2, dtype=torch.float64, device=self.world.device), 0, 0
        for rows in plan:
            batch = windows.take(rows)
            # By hand, not by LambdaLR: the steps of an epoch, and so of warm-up and fall, change with the cuts of the windows.
            for group, peak in zip(self._groups(), self.peak_rates, strict=True):
                group["lr"] = peak * min(1.0, (self.step + 1) / warm_up, 1.0 if steps is None else max(1 - self.step / steps, 0.0))
            total += self._step(batch, batch.take(np.arange(self.world.rank, len(batch), self.world.size)), decay)
            targets, asked = targets + batch.n_targets, asked + self._labels_of(batch)
            if self.table is not None and self.step % TRIMMED == 0:
                give_back()  # rows of ever other sizes leave gaps, which would grow to gigabytes over an epoch
        if self.table is not None:
            self.table.settle()
        self.epoch += 1
        self.world.sum_(total)
        loss, self.label_loss = float(total[0]) / max(targets, 1), float(total[1]) / asked if asked else None
        if not np.isfinite(loss):
            raise TrainingError(f"epoch {self.epoch}: the loss is {loss}. Lower training.learning_rate ({training.learning_rate}).")
        return loss

    def _step(self, batch: Windows, share: Windows, decay: float) -> Tensor:
        """One step: this worker's share of the batch, gradients summed over all; the average keeps `decay` of itself in the end.

        Returns:
            The share's summed losses, float64 [2].
        """
        seed = seed_of(self.config.training.seed, self.phase, self.step)
        self.step += 1
        self.gradients.zero()
        content, text = self.content if self.white is None else self.white, None
        if self.tuner is not None:
            text = self.tuner.encode(self._items_of(batch), seed)
            content = content.with_text(text.table)
        rows = None
        if self.table is not None:
            needed = torch.from_numpy(self._needed(batch, seed)[0]).to(self.world.device)
            rows = self.table.fetch(self.content.id_rows[needed].cpu().numpy())
        loss, label_loss = self._losses(batch, share, content, seed, rows)
        whole = loss / max(batch.n_targets, 1)
        if self.labels is not None:
            whole = whole + self.config.training.label_weight / max(self._labels_of(batch), 1) * label_loss
        whole.backward()
        if text is not None:
            text.backward()
        self.world.sum_(self.gradients.flat)
        if rows is not None:
            rows.weights.grad = self.world.sum_(rows.gradient)
        self._clip([] if rows is None else [rows.weights])
        self.optimizer.step()
        if self.sharded_optimizer is not None:
            self.sharded_optimizer.step()
            self.sharded_optimizer.zero_grad()
        # The average lags while few steps are behind it, so it starts as a plain mean. swa_utils.AveragedModel would keep a
        # second copy of the frozen weights and buffers, language model included.
        kept = min(decay, self.step / (self.step + 9))
        pairs = zip(self.average, self._parts(), strict=True)
        averages, parts = zip(*(one for one in pairs if self.table is None or one[0] is not self.table.average), strict=True)
        get_ema_multi_avg_fn(kept)(averages, parts, self.step)
        if self.table is not None and rows is not None:
            self.table.step(rows, self.optimizer.param_groups[0]["lr"], kept)
        return torch.stack([loss.detach(), label_loss.detach()])

    def _clip(self, rows: list[Tensor]) -> None:
        """Scale the gradients down where they are longer than allowed, those of some `rows` and what is shared out included."""
        if self.sharded is None:
            nn.utils.clip_grad_norm_([*self.parameters, *rows], CLIP_NORM)
            return
        parts = [local(parameter.grad) for parameter in self.parameters[self.n_here :]]
        squares = self.world.sum_(torch.stack([part.double().square().sum() for part in parts]).sum())
        norm = (squares + self.gradients.flat.double().square().sum()).sqrt()
        scale = (CLIP_NORM / (norm + 1e-6)).clamp(max=1.0).float()
        for gradient in (self.gradients.flat, *parts):
            gradient.mul_(scale)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return self.optimizer.param_groups + (self.sharded_optimizer.param_groups if self.sharded_optimizer is not None else [])

    def _parts(self) -> list[Tensor]:
        """What this worker has of all that is learned."""
        return [local(parameter.detach()) for parameter in self.parameters]

    def _needed(self, batch: Windows, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Items that a step needs, ascending, the same at every worker, and the negatives that are drawn; None: all that were seen."""
        if self.draw is None:
            return self.seen, None
        drawn = np.searchsorted(self.draw, np.random.default_rng(seed).random(self.n_negatives))
        return np.union1d(self._items_of(batch), drawn), drawn

    def _losses(self, batch: Windows, share: Windows, content: ItemContent, seed: int, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
        """Summed losses of a worker's share of a batch, of retrieval and of labels, each float64 []; `rows` of a large id table."""
        device, model, training = self.world.device, self.config.model, self.config.training
        smoothing = training.label_smoothing
        label_loss = torch.zeros((), dtype=torch.float64, device=device, requires_grad=True)
        if not share.n_targets and not self._labels_of(share):
            return label_loss, label_loss

        def on_device(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(device)

        needed, drawn = self._needed(batch, seed)
        place = np.full(len(self.content) + 1, BOS, dtype=np.int64)  # of each needed item among the needed ones; the last one is BOS
        place[needed] = np.arange(len(needed))
        at = on_device(needed)
        # A draw for each of a million items would take longer than a step.
        hidden = hidden_items(len(self.content) if rows is None else len(needed), model.id_dropout, seed, device) if model.use_ids else None
        if hidden is not None and rows is None:
            hidden = hidden[at]
        taken = self.taken if self.taken is not None else content.take(at)
        if rows is not None:
            taken = replace(taken, id_rows=rows.place)
        packed = Packed.of(share, device, use_time=self.net.encoder.use_time, timeless=timeless_windows(share, seed))
        fillers = len(packed.items) - len(share.items)
        sites = self.net.encoder.sites
        keep = dropout_masks(share, sites, model.dim, model.dropout, seed, device, fillers, run_seed=training.seed)
        with self.products():
            items = self.net.fusion(taken, hidden, white=self.white is not None, ids=None if rows is None else rows.weights)
            tokens = self.net.encoder.tokens(items, on_device(place)[packed.items])
            if self.net.label_head is not None:
                tokens = self.net.label_head.mark(tokens, share.negative)
            users = self.net.users(tokens, packed, keep).float()
        if self.labels is not None:
            label_loss = self.labels.loss(self.net, users, items, place, share, seed)
        asked = np.flatnonzero(share.targets != NO_TARGET)
        users, targets = users.index_select(0, on_device(asked)), on_device(place[share.targets[asked]])
        if drawn is None or self.draw is None:
            return softmax_loss(users, items, targets, smoothing, self.precision), label_loss
        log_q = np.log(np.diff(self.draw, prepend=0)[drawn] * len(drawn)).astype(np.float32)
        return sampled_softmax_loss(users, items, targets, on_device(place[drawn]), on_device(log_q), smoothing), label_loss

    def finish(self) -> None:
        """Training is over: give up all that only further steps would need. The network keeps its weights."""
        self.white = self.taken = self.table = None
        self.average = []
        for optimizer in (self.optimizer, self.sharded_optimizer):
            if optimizer is not None:
                optimizer.state.clear()
        self.gradients.drop()

    def _items_of(self, batch: Windows) -> NDArray[np.int64]:
        """Items that a batch reads or predicts, int64, ascending, each once."""
        asked = [] if self.labels is None else [self.labels.items(batch)]
        return np.unique(np.concatenate([batch.items[batch.items != BOS], batch.targets[batch.targets != NO_TARGET], *asked]))

    def _labels_of(self, batch: Windows) -> int:
        """Labels of a batch."""
        return 0 if self.labels is None else len(self.labels.asked(batch))

    def products(self) -> torch.autocast:
        """Inside, matrix products have the run's precision."""
        return torch.autocast(self.world.device.type, self.precision, enabled=self.precision != torch.float32)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights inside the block, where `average` holds the others."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange weights and average, some rows at a time: a second copy of a large table would be too much."""
        for part, average in zip(self._parts(), self.average, strict=True):
            for mine, its in zip(part.split(EXCHANGED), average.split(EXCHANGED), strict=True) if part.dim() else [(part, average)]:
                former = mine.clone()
                mine.copy_(its)
                its.copy_(former)

    @torch.no_grad()
    def keep(self, weights: list[Tensor]) -> None:
        """Copy weights (a best epoch's, the average) into the network and, when it is tuned, the language model."""
        for part, weight in zip(self._parts(), weights, strict=True):
            part.copy_(weight)

    def refresh_text(self) -> ItemContent:
        """The catalogue with text vectors of the language model as it is now; the same one when it is frozen."""
        if self.tuner is not None:
            self.content = self.content.with_text(self.tuner.refresh())
        return self.content

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to continue the same run; what is shared out is saved beside it."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "parameters": [part.cpu() for part in self._parts()[: self.n_here]],
            "average": [average.cpu() for average in self.average[: self.n_here]],
            "optimizer": self.optimizer.state_dict(),
            "table": None if self.table is None else self.table.state(),
        }

    def save_shards(self, folder: Path, best: list[Tensor]) -> str | None:
        """Save what is shared out over the workers, which all call it together; returns the name to read it by, None where nothing is.

        Args:
            folder: of the run.
            best: the best epoch's weights.
        """
        if self.sharded is None or self.sharded_optimizer is None:
            return None
        name = SHARDS.replace("*", f"{self.phase}-{self.epoch}")
        self.sharded.save(folder / name, self.sharded_optimizer, self.average[self.n_here :], best[self.n_here :])
        return name

    def load_shards(self, folder: Path) -> list[Tensor]:
        """Continue from what `save_shards` wrote; returns the best epoch's weights that are shared out."""
        if self.sharded is None or self.sharded_optimizer is None:
            return []
        self.average[self.n_here :], best = self.sharded.load(folder, self.sharded_optimizer)
        return best

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave; what is shared out is loaded before."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.keep([*state["parameters"], *self._parts()[self.n_here :]])
        for average, mean in zip(self.average, state["average"], strict=False):
            average.copy_(mean)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.table is not None:
            self.table.load(state["table"])
        with self.averaged():
            self.refresh_text()
