"""shap with its small helpers as plain Python: numba compiles them anew in each process, for some 7 CPU seconds, and they run for less."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from numba import config


def shap_library() -> ModuleType:
    """The module shap. What imports it first decides, so nothing here imports it otherwise."""
    before = config.DISABLE_JIT
    config.DISABLE_JIT = True  # read when a function is decorated
    try:
        import shap
    finally:
        config.DISABLE_JIT = before
    return shap


@contextmanager
def same_draws() -> Iterator[None]:
    """Where shap draws from the global generators, it draws the same each time: a plot made again is the same file."""
    before, others = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(others)  # noqa: NPY002
