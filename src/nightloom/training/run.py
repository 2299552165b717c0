"""A training run at one worker: search for the best epoch, refit, choose the fusion weights, write the bundle.

Needs torch, numpy, pandas and transformers alone; the config comes as plain attributes from run.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nightloom.core.calibration import Line
from nightloom.core.errors import InputError, TrainingError
from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories, Sequences
from nightloom.core.streaming import IN_TIME, STREAMING, queries_of
from nightloom.data.preparation.items import ItemFeatures
from nightloom.data.subsets.held_out_users import Search
from nightloom.encoders.vectors import Vectors
from nightloom.encoders.whitening import ROWS
from nightloom.models.heads.item_counters import KEPT_DAYS, ItemCounters
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.label_probabilities import LabelProbabilities
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.models.scorers.registry import fit_scorers, near_texts
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.reader import LANGUAGE_MODEL
from nightloom.packaging.write import write_bundle
from nightloom.training import checkpoint, curves
from nightloom.training.distributed import World
from nightloom.training.fusion_weights import Fusion, choose_fusion
from nightloom.training.label_task import calibrate
from nightloom.training.popularity_penalty import PenaltyChoice, choose_penalty
from nightloom.training.reranking import RerankerChoice, choose_reranker
from nightloom.training.run_json import WARM, Run, warm_schedule
from nightloom.training.shared_vectors import give_back, halved, whitened
from nightloom.training.text_tuning import TextTuner
from nightloom.training.trainer import Fitter
from nightloom.training.transfer import ADAPTER_WIDTH, SHARES, freeze
from nightloom.training.validation import network_ndcg, sample
from nightloom.training.warm_start import WarmStart, save_search

SEARCH, REFIT = 0, 1
ONE_CUT = (STREAMING, "temporal", "random")
"""Protocols that cut the events of all users at one place; leave-one-out cuts each user's at an own one."""


class Training:
    """One run in progress at one worker.

    Args:
        run: what to do.
        world: this worker among all.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.run, self.world, self.config = run, world, run.config
        self.began, self.cpu = time.monotonic(), 0.0
        self.start = WarmStart.load(run.start) if run.start else None
        if run.mode == WARM:
            self.config = warm_schedule(run.config)
        self.sequences = Sequences.load(run.prepared / f"sequences_{run.protocol}.npz")
        self.features = ItemFeatures.load(run.prepared / "item_features.npz")
        self.meta = json.loads((run.prepared / "meta.json").read_text(encoding="utf-8"))
        self.vectors = Vectors.load(run.pretrained)
        if not (self.vectors.whole and len(self.vectors) == len(self.features) == self.sequences.n_items):
            raise InputError(
                f"{run.pretrained}: {len(self.vectors):,} text vectors for {self.sequences.n_items:,} items of {run.prepared}, and "
                f"{len(self.vectors.image):,} of pictures. They are of different catalogues: run load_pretrained again on this one."
            )
        self.exclude_seen = bool(self.config.evaluation.exclude_seen)
        self.search = Search.load(run.prepared, run.protocol)
        ask = self.search.questions if self.search else partial(queries_of, run.protocol, self.sequences, "validation")
        queries = ask(exclude_seen=self.exclude_seen)
        self.queries = sample(queries, self.config.training.seed, self.sequences.n_items)
        self.refits = bool(self.config.training.refit and (run.protocol in ONE_CUT or self.search))
        self.large = len(self.features) > ROWS and self.world.device.type == "cpu"
        self.near: TextNeighbours | None = None
        """Neighbours by text of a large catalogue, which search and refit share."""
        self.curves: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        """Train to the end, from the last checkpoint where there is one, and write the bundle.

        Returns:
            The figures, also in `figures.json`: `epochs`, `best_epoch`, `parameters`, `refitted`, `workers`, `seconds`, `cpu_seconds`.
            `best_validation_ndcg_at_10` is the network's, `validation_ndcg_at_10` that of the fused scores.
            `validation_alone` is each member's, and `weights` is scorer -> fusion weight.
            `reranker` says whether it was kept, its gain in NDCG@10, the standard error of that, and its queries.
            `popularity_penalty` is a `PenaltyChoice`.
        """
        histories = (self.search.learned if self.search else self.sequences).train()
        recommender, fitter = self._start(histories, SEARCH)
        state = self.world.agree(checkpoint.load(self.run.out, self.run.digest) if self.world.rank == 0 else None)
        if state is not None and bool(state["shards"]) != (fitter.sharded is not None):
            state = None  # of several workers that shared the language model out, or of one that had it alone
        if state is not None:
            self.curves, self.best = state["curves"], state["best"]
            self.began -= state["seconds"]
            self.cpu = state["cpu_seconds"]
        if self.world.rank == 0:
            curves.rewrite(self.run.out, self.curves)
        if state is not None and state["shards"]:
            self.best = state["best"] | {"weights": [*state["best"]["weights"], *fitter.load_shards(self.run.out / state["shards"])]}
        if state is None or state["phase"] == SEARCH:
            if state is not None:
                fitter.restore(state["fitter"])
            self._search(recommender, fitter)
        best = self._chosen()
        recommender = self._finished(recommender, fitter, best["weights"])
        if fitter.tuner is None:  # the network has them, and changes no more: a refit has one of its own
            best["weights"] = [parameter.detach() for parameter in fitter.parameters]
        searched, searched_rows = recommender.net.state_dict(), recommender.content.id_rows
        fusion = self._fusion(recommender, histories)
        reranker, calibration = self._reranker(recommender, histories, fusion), self._calibration(recommender, histories)
        penalty = self._penalty(recommender, histories, fusion, reranker)
        recommender.scorers = {}
        give_back()
        self.world.wait()  # for rank 0, which chose these alone
        whole = self.sequences.train(with_validation=True)
        if self.refits:
            recommender, fitter = self._start(whole, REFIT)
            if state is not None and state["phase"] == REFIT:
                if state["shards"]:
                    fitter.load_shards(self.run.out / state["shards"])
                fitter.restore(state["fitter"])
            self._refit(fitter)
            recommender = self._finished(recommender, fitter, fitter.average)
        if self.world.rank == 0:  # which writes the bundle; the others would search and solve for nothing
            recommender.scorers = self._scorers(list(fusion.weights), whole, recommender.content, recommender.white)
        recommender.weights, recommender.newcomer_weights = fusion.weights, fusion.newcomer_weights
        recommender.reranker = reranker.head and replace(reranker.head, item_counters=self._item_counters(whole).by_day())
        if penalty.strength:
            counts = positive_counts(whole, recommender.n_items)
            recommender.penalty = PopularityPenalty.of(counts, penalty.strength, recommender.fused_unit)
        if calibration is not None:
            recommender.labels = LabelProbabilities(calibration, LabelCounters.of(whole, recommender.n_items, KEPT_DAYS).by_day())
        figures = {
            "epochs": len(self.curves),
            "best_epoch": best["epoch"],
            "best_validation_ndcg_at_10": best["ndcg"],
            "validation_ndcg_at_10": fusion.ndcg,
            "validation_alone": fusion.alone,
            "weights": fusion.weights,
            "newcomer_weights": fusion.newcomer_weights,
            "reranker": {"kept": reranker.head is not None, "gain": reranker.gain, "error": reranker.error, "queries": reranker.queries},
            "popularity_penalty": asdict(penalty),
            "parameters": sum(parameter.numel() for parameter in fitter.parameters),
            "refitted": self.refits,
            "workers": self.world.size,
            "seconds": round(time.monotonic() - self.began, 3),
            "cpu_seconds": round(self._cpu_seconds(), 3),
        }
        if fitter.tuner is not None:
            fitter.tuner.gather()
        if self.world.rank == 0:
            if self.run.protocol in IN_TIME and fitter.tuner is None:
                save_search(self.run.out, searched, searched_rows, self.run.settings)
            self._write(recommender, fitter, figures)
        return figures

    def _start(self, histories: Histories, phase: int) -> tuple[SequentialRecommender, Fitter]:
        """A network for some histories, fresh or with the champion's weights; items without an event have no id embedding."""
        torch.manual_seed(self.config.training.seed + phase)
        seen = np.unique(histories.items).astype(np.int64)
        rows = np.zeros(self.sequences.n_items, dtype=np.int64)
        rows[seen] = np.arange(1, len(seen) + 1)
        given = self.vectors
        content = ItemContent.build(self.features, given.text, given.has_text, rows, given.image, given.has_image)
        shape = Shape(
            given.text.shape[1],
            self.features.n_codes,
            content.numbers.shape[1],
            len(seen),
            len(self.meta["event_types"]),
            self.sequences.has_time,
            ADAPTER_WIDTH if self.run.mode == "adapter" else 0,
            given.image.shape[1],
            self.config.training.label_weight > 0,
        )
        net = SequentialNetwork(self.config.model, shape)
        net.fusion.fit_whitening(content)
        if self.start is not None:
            self.start.into(net, phase, seen)
            if self.run.mode == "adapter":
                freeze(net)
        net, content = net.to(self.world.device), content.to(self.world.device)
        given.forget()
        tuner = TextTuner.of(self.run, given.text, self.world)
        falls_over = None
        if self.run.mode == WARM:
            falls_over = self.best["epoch"] if self.best and phase == REFIT else self.config.training.epochs
        white = None if tuner else whitened(net.fusion, content, self.world, self.run.out, given.forget)
        fitter = Fitter(net, content, histories, self.config, self.world, phase, tuner, falls_over, white)
        recommender = SequentialRecommender(self.config.model, shape, net, content, {}, {})
        recommender.white = white if self.large else None
        give_back()
        return recommender, fitter

    def _search(self, recommender: SequentialRecommender, fitter: Fitter) -> None:
        """Train until validation NDCG@10 no longer rises, keeping the best weights."""
        training = self.config.training
        if self.best is None and self.run.mode is not None:
            # The champion's or another domain's weights may be better than anything that these events can add.
            with fitter.products():
                ndcg = network_ndcg(recommender, self.queries, self.world, exclude_seen=self.exclude_seen)
            self.best = {"epoch": 0, "ndcg": ndcg, "weights": [parameter.detach().cpu().clone() for parameter in fitter.parameters]}
        while fitter.epoch < training.epochs and not self._settled(fitter.epoch) and not self._over():
            began = time.monotonic()
            loss = fitter.run_epoch()
            trained = time.monotonic()
            with fitter.averaged(), fitter.products():
                recommender.content = fitter.refresh_text()
                ndcg = network_ndcg(recommender, self.queries, self.world, exclude_seen=self.exclude_seen)
            if self.best is None or ndcg > self.best["ndcg"] or not len(self.queries):
                self.best = {"epoch": fitter.epoch, "ndcg": ndcg, "weights": [average.cpu().clone() for average in fitter.average]}
            self._record(SEARCH, fitter, loss, ndcg, began, time.monotonic() - trained)

    def _refit(self, fitter: Fitter) -> None:
        """Train on train and validation for as many epochs as were best."""
        epochs = self._chosen()["epoch"]
        while fitter.epoch < epochs:
            began = time.monotonic()
            loss = fitter.run_epoch()
            self._record(REFIT, fitter, loss, None, began)

    def _chosen(self) -> dict[str, Any]:
        """Epoch, NDCG@10 and weights of the search's best epoch."""
        if self.best is None:
            raise TrainingError("no epoch was run. Raise training.epochs.")
        return self.best

    def _settled(self, epoch: int) -> bool:
        """Whether the search has gone on for long enough since its best epoch; a resumed run may begin settled."""
        return self.best is not None and epoch - self.best["epoch"] >= self.config.training.patience

    def _over(self) -> bool:
        """Whether the time is spent: all of it, or half when a refit of the same length is to follow."""
        limit = self.config.training.max_minutes
        if limit is None or not self.curves:
            return False
        share = 0.5 if self.refits else 1.0
        return bool(self.world.agree(sum(line["seconds"] for line in self.curves) > limit * 60 * share))

    def _record(self, phase: int, fitter: Fitter, loss: float, ndcg: float | None, began: float, validation: float = 0.0) -> None:
        """Record an epoch in curves.jsonl and in the checkpoint; `validation` is its last part, in seconds."""
        rate = fitter.optimizer.param_groups[0]["lr"]
        line = {
            "epoch": fitter.epoch,
            "loss": loss,
            "validation_ndcg_at_10": ndcg,
            "learning_rate": rate,
            "seconds": round(time.monotonic() - began, 3),
        }
        if phase == SEARCH:
            self.curves.append(line)
        cpu, best = self._cpu_seconds(), self._chosen()
        shards = fitter.save_shards(self.run.out, best["weights"])
        if self.world.rank != 0:
            return
        state = {
            "run": self.run.digest,
            "phase": phase,
            "fitter": fitter.state(),
            "shards": shards,
            "best": best | {"weights": best["weights"][: fitter.n_here]},
            "curves": self.curves,
            "seconds": time.monotonic() - self.began,
            "cpu_seconds": cpu,
        }
        checkpoint.save(self.run.out, state)
        checkpoint.tidy(self.run.out)
        curves.append(self.run.out, line, phase, fitter.label_loss, validation)

    def _cpu_seconds(self) -> float:
        """Processor time of all workers, that of a run cut off included; all workers call it together."""
        return self.cpu + float(self.world.sum_(torch.tensor([time.process_time()], dtype=torch.float64, device=self.world.device)))

    def _finished(self, recommender: SequentialRecommender, fitter: Fitter, weights: list[Tensor]) -> SequentialRecommender:
        """The model with some weights, on the CPU, and with the text vectors that a tuned language model then gives."""
        fitter.keep(weights)
        content = fitter.refresh_text()
        fitter.finish()
        cpu = torch.device("cpu")
        net = recommender.net.requires_grad_(False).to(cpu)  # it is learned, so item vectors are made once
        finished = SequentialRecommender(recommender.config, recommender.shape, net, content.to(cpu), {}, {})
        finished.white = recommender.white
        give_back()
        return finished

    def _scorers(self, names: Sequence[str], train: Histories, content: ItemContent, white: ItemContent | None) -> dict[str, Scorer]:
        """Scorers as the config wants them."""
        model = self.config.model
        if self.near is None and model.use_text and self.config.training.tuning == "frozen":
            self.near = near_texts(names, content, white)
            give_back()
        found = fit_scorers(names, train, content, model.min_support, reads_text=model.use_text, near=self.near)
        give_back()
        return found

    def _fusion(self, recommender: SequentialRecommender, histories: Histories) -> Fusion:
        """Fusion weights of the scorers that apply here, chosen on validation; one worker builds the scorers."""
        silent = {
            "linear": self.sequences.has_time,
            "trend": not self.sequences.has_time,
            "repeats": self.exclude_seen,
            "text_neighbours": not (self.config.model.use_text and bool(recommender.content.has_text.any())),
            "friends": not len(self.sequences.link_users),
        }
        names = [name for name in self.config.model.scorers if not silent.get(name)]
        fusion = None
        if self.world.rank == 0:
            recommender.scorers = self._scorers(names, histories, recommender.content, recommender.white)
            known = None if self.run.mode in (None, WARM) else SHARES
            fusion = choose_fusion(recommender, self.queries, exclude_seen=self.exclude_seen, known=known)
        agreed: Fusion = self.world.agree(fusion)
        return agreed

    def _reranker(self, recommender: SequentialRecommender, histories: Histories, fusion: Fusion) -> RerankerChoice:
        """The re-ranker, where it is configured and its gain exceeds its standard error. Another domain's model has none.

        The first worker alone fits it, since it writes the bundle.
        """
        if self.world.rank != 0 or not self.config.model.reranker or self.run.mode not in (None, WARM):
            return RerankerChoice()
        recommender.weights, recommender.newcomer_weights = fusion.weights, fusion.newcomer_weights
        item_counters = self._item_counters(histories)
        return choose_reranker(recommender, self.queries, item_counters, exclude_seen=self.exclude_seen, seed=self.config.training.seed)

    def _penalty(self, recommender: SequentialRecommender, histories: Histories, fusion: Fusion, reranker: RerankerChoice) -> PenaltyChoice:
        """The popularity penalty, chosen with everything else in place; the first worker alone does it, since it writes the bundle."""
        if self.world.rank != 0:
            return PenaltyChoice()
        model, counts = self.config.model, positive_counts(histories, recommender.n_items)
        recommender.weights, recommender.newcomer_weights, recommender.reranker = fusion.weights, fusion.newcomer_weights, reranker.head
        asked = (model.popularity_penalty, model.popularity_loss)
        return choose_penalty(recommender, self.queries, counts, *asked, exclude_seen=self.exclude_seen, seed=self.config.training.seed)

    def _calibration(self, recommender: SequentialRecommender, histories: Histories) -> Line | None:
        """Calibration of the label head; None under leave-one-out, which cuts its parts by the labels."""
        if self.world.rank != 0 or self.run.protocol not in ONE_CUT:
            return None
        return calibrate(recommender, self.sequences, histories, self.config.training.seed)

    def _item_counters(self, known: Histories) -> ItemCounters:
        """Counters of what is known; queries after one cut for all come after all of it, those of leave-one-out at any time."""
        return ItemCounters.of(known, self.sequences.n_items, KEPT_DAYS if self.run.protocol in ONE_CUT else None)

    def _write(self, recommender: SequentialRecommender, fitter: Fitter, figures: dict[str, Any]) -> None:
        """Write bundle, curves and figures; figures.json comes last and marks the run as complete."""
        bundle = self.run.out / "bundle"
        if fitter.tuner is not None:
            fitter.tuner.save(bundle / LANGUAGE_MODEL)
        elif self.large:  # in half precision as the bundle has them: whole, the mapped ones would come into memory beside these
            self.near = None
            text, image = (halved(one, self.vectors.forget) for one in (recommender.content.text, recommender.content.image))
            recommender.content = replace(recommender.content, text=text, image=image)
            give_back()
        write_bundle(recommender, self.run.prepared, bundle, self.run.pretrained)
        (self.run.out / "curves.json").write_text(json.dumps(self.curves, indent=1) + "\n", encoding="utf-8")
        (self.run.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        checkpoint.remove(self.run.out)
