"""How much a tuning may try; light, so that a command can refuse a typo before it imports the models."""

from __future__ import annotations

from dataclasses import dataclass

from nightloom.core.errors import InputError


@dataclass(frozen=True)
class Budget:
    """How much is tried in all, over however many starts of the same study.

    Attributes:
        minutes: of training; a trial that is under way then is cut, unless no other has come to its end.
        trials: at most so many.
        seeds: trainings a trial, its figure their mean: with few validation users one seed tells little.
        at_once: trials that train side by side, once the config as given has.

    Raises:
        InputError: nothing could be tried with it.
    """

    minutes: float
    trials: int | None = None
    seeds: int = 1
    at_once: int = 1

    def __post_init__(self) -> None:
        if not self.minutes > 0:  # no number (nan) is refused too
            raise InputError(f"--minutes {self.minutes:g}: nothing can be tried in that. Give more than 0.")
        for name, number in (("trials", self.trials), ("seeds", self.seeds), ("at-once", self.at_once)):
            if number is not None and number < 1:
                raise InputError(f"--{name} {number}: nothing is tried then. Give at least 1.")
