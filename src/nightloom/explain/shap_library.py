"""shap with its small helpers as plain Python: numba compiles them anew in each process, for some 7 CPU seconds, and they run for less."""

from __future__ import annotations

from types import ModuleType

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
