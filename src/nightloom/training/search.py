"""Tuning: many trainings with other values of the config, the poor ones cut short, the best one kept.

Tree-structured Parzen estimation chooses what to try (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"), the
median rule ends what falls behind (Golovin et al. 2017, "Google Vizier", 3.2), both by Optuna. Trials are compared on validation
alone; the test part of the split is never looked at.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightloom.config import hash_json
from nightloom.core.disk import disk_of
from nightloom.core.errors import InputError, TrainingError
from nightloom.runs.locks import stage_lock
from nightloom.training.at_once import AtOnce
from nightloom.training.budget import Budget
from nightloom.training.fine_tune import check_at_once, fine_tune
from nightloom.training.search_space import space_of, value_of, with_values

if TYPE_CHECKING:
    from concurrent.futures import Future

    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from nightloom.config import RunConfig

STARTUP_TRIALS = 4
"""Trials that run whole before any is cut short."""
WARM_UP_EPOCHS = 4
"""Epochs in which no trial is cut short: the first say little about the last."""
IMPORTANCE_TRIALS = 8
"""Fewest whole trials for which key importances are given."""
SEED_STEP = 1009


@dataclass(frozen=True)
class Attempt:
    """One trial that has ended.

    Attributes:
        number: counted from 0 in the order of their start.
        state: complete, pruned (cut short) or failed.
        ndcg: validation NDCG@10 of the fused scores; None where training did not come to its end.
        values: dotted key -> value.
        curve: lines of the first seed's `curves.jsonl`.
        seconds: of training.
    """

    number: int
    state: str
    ndcg: float | None
    values: Mapping[str, Any]
    curve: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """What a study has found.

    Attributes:
        name: of the study.
        protocol: whose validation part was used.
        attempts: by number.
        best: the best of them.
        importance: dotted key -> share of the spread of results that it explains; empty with too few trials.
    """

    name: str
    protocol: str
    attempts: tuple[Attempt, ...]
    best: Attempt
    importance: Mapping[str, float] = field(default_factory=dict)

    @property
    def given(self) -> Attempt:
        """The config as given."""
        return self.attempts[0]


OnTrial = Callable[[Attempt], None]
OnEpoch = Callable[[int, Mapping[str, Any]], None]


class Tuner:
    """A study in its folder: `study.db` and, by trial, `trials/<hash>/` with run.json, log, curves and figures.

    A study that was killed goes on: the trial that was under way is put in the queue again and trains from its last checkpoint.

    Args:
        config: the config as given, the first trial; its first protocol is the one that counts.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        folder: the study's; its name is the study's.
        budget: how much is tried.
        identity: hashes of what else the trials have in common (data, code).
    """

    def __init__(self, config: RunConfig, prepared: Path, pretrained: Path, folder: Path, budget: Budget, identity: str = "") -> None:
        self.config, self.prepared, self.pretrained, self.folder, self.budget = config, prepared, pretrained, folder, budget
        self.protocol = config.evaluation.protocols[0]
        self.space = space_of(config)
        sections = config.model_dump(mode="json", include={"pretrained", "model", "training", "evaluation"})
        sections["training"].pop("workers")
        self.identity = hash_json([sections, identity, budget.seeds])

    def run(self, on_trial: OnTrial | None = None, on_epoch: OnEpoch | None = None, pruner: Any = None) -> Tuned:
        """Try until the budget is spent.

        Args:
            on_trial: called with each trial that has ended.
            on_epoch: called with (number of the trial, line of curves.jsonl) after each epoch.
            pruner: Optuna's; None: the median rule.

        Raises:
            InputError: the study is of other data or another config, another process works on it, or too many trials would train at once.
            TrainingError: the config as given can not be trained.
        """
        import optuna

        side_by_side = min(self.budget.at_once, self.budget.trials or self.budget.at_once)
        check_at_once(self.config, side_by_side)
        with disk_of(self.folder), stage_lock(self.folder / "study.lock"), AtOnce[float](side_by_side) as trainings:
            study = self._open(pruner or optuna.pruners.MedianPruner(STARTUP_TRIALS, WARM_UP_EPOCHS))
            asked: dict[Future[float], tuple[Trial, dict[str, Any]]] = {}
            while True:
                most = trainings.most if _whole(study) else 1  # what the config as given yields is what others are measured by
                while len(asked) < most and self._may_start(study, len(asked)):
                    trial = study.ask()
                    values = {part.key: part.suggest(trial) for part in self.space}
                    asked[trainings.start(partial(self._train, study, trial, values, on_epoch, trainings))] = trial, values
                if not asked:
                    return self._found(study)
                trained = trainings.ended()
                trial, values = asked.pop(trained)
                try:
                    ended = study.tell(trial, trained.result())
                except optuna.TrialPruned:
                    ended = study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                except TrainingError:
                    ended = study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    if not _ended(study):
                        raise
                except _TimeUp:
                    _again(study, trial.number, values)
                    continue
                if on_trial:
                    on_trial(self._attempt(ended))

    def _open(self, pruner: Any) -> Study:
        """The study, new or gone on with."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = f"sqlite:///{self.folder.resolve()}/study.db"
        study = optuna.create_study(study_name=self.folder.name, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner)
        if study.user_attrs.setdefault("identity", self.identity) != self.identity:
            raise InputError(
                f"{self.folder}: this study is of other data, another config, other code or another number of seeds, so its trials can "
                "not be compared with new ones. Name another with --study, or remove the folder."
            )
        study.set_user_attr("identity", self.identity)
        # A seed of its own for each start: the same one again would draw the same values again.
        study.sampler = optuna.samplers.TPESampler(
            seed=self.config.training.seed + len(study.trials), multivariate=True, constant_liar=self.budget.at_once > 1
        )
        for left in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a killed process: this one holds the lock
            _again(study, left.number, left.params)
        if all(one.state == optuna.trial.TrialState.FAIL for one in study.trials):
            study.enqueue_trial({part.key: value_of(self.config, part.key) for part in self.space})
        return study

    def _may_start(self, study: Study, under_way: int) -> bool:
        """Whether there is time and a trial left, with so many under way; the first to come to its end has all the time it needs."""
        ended = len(_ended(study))
        some = self.budget.trials is None or ended + under_way < self.budget.trials
        return some and (self._left(study) > 0 or not ended + under_way)

    def _left(self, study: Study) -> float:
        """Seconds of the budget that are left."""
        spent: dict[str, float] = {}
        for one in study.trials:  # one that was started again counts once: it went on in its folder, or was found done there
            if "seconds" in one.user_attrs:
                folder = one.user_attrs["folder"]
                spent[folder] = max(spent.get(folder, 0.0), one.user_attrs["seconds"])
        return self.budget.minutes * 60 - sum(spent.values())

    def _train(self, study: Study, trial: Trial, values: Mapping[str, Any], on_epoch: OnEpoch | None, trainings: AtOnce[float]) -> float:
        """Mean validation NDCG@10 over the seeds.

        Raises:
            TrialPruned: the trial falls behind; its workers have ended then.
            _TimeUp: the budget is spent; likewise.
            Halted: another trial has ended the search; likewise.
        """
        import optuna

        config = with_values(self.config, {**values, "training.refit": False})  # a refit has no validation figure
        folder = self.folder / "trials" / hash_json([self.identity, dict(values)])[:16]
        trial.set_user_attr("folder", folder.name)
        may_cut = bool(_whole(study))
        began, trained, found = time.monotonic(), 0.0, []

        def spend() -> None:
            trial.set_user_attr("seconds", round(max(trained, time.monotonic() - began), 3))

        for number in range(self.budget.seeds):

            def after(line: dict[str, Any], number: int = number) -> None:
                nonlocal trained
                trained += line["seconds"]  # of epochs before a kill too
                spend()
                if on_epoch:
                    trainings.tell(partial(on_epoch, trial.number, line))
                if number == 0:
                    trial.report(line["validation_ndcg_at_10"], line["epoch"])
                    if trial.should_prune():
                        raise optuna.TrialPruned
                if may_cut and self._left(study) < 0:
                    raise _TimeUp

            one = with_values(config, {"training.seed": config.training.seed + SEED_STEP * number})
            place = folder / f"seed-{number}"
            try:
                figures = fine_tune(one, self.protocol, self.prepared, self.pretrained, place, after, beside=trainings)
            except TrainingError:
                spend()  # also where it failed before its first epoch: trials that all fail come to an end
                raise
            shutil.rmtree(place / "bundle", ignore_errors=True)
            found.append(float(figures["validation_ndcg_at_10"]))
        spend()
        return sum(found) / len(found)

    def _found(self, study: Study) -> Tuned:
        import optuna

        importance: dict[str, float] = {}
        if len(_whole(study)) >= IMPORTANCE_TRIALS:
            importance = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
        attempts = tuple(self._attempt(one) for one in _ended(study))
        return Tuned(self.folder.name, self.protocol, attempts, self._attempt(study.best_trial), importance)

    def _attempt(self, trial: FrozenTrial) -> Attempt:
        state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
        curves = self.folder / "trials" / trial.user_attrs["folder"] / "seed-0" / "curves.jsonl"
        curve = tuple(json.loads(line) for line in curves.read_text(encoding="utf-8").splitlines()) if curves.exists() else ()
        ndcg = trial.value if state == "complete" else None
        return Attempt(trial.number, state, ndcg, dict(trial.params), curve, trial.user_attrs.get("seconds", 0.0))


class _TimeUp(Exception):
    """The budget is spent while a trial is under way."""


def _again(study: Study, number: int, values: Mapping[str, Any]) -> None:
    """Put a trial that did not come to its end in the queue again; it goes on from its last checkpoint."""
    from optuna.trial import TrialState

    study.tell(number, state=TrialState.FAIL)
    study.enqueue_trial(dict(values))


def _whole(study: Study) -> list[FrozenTrial]:
    """Trials that came to their end."""
    return [one for one in study.trials if one.state.name == "COMPLETE"]


def _ended(study: Study) -> list[FrozenTrial]:
    """Trials that came to their end or were cut short."""
    return [one for one in study.trials if one.state.name in ("COMPLETE", "PRUNED")]
