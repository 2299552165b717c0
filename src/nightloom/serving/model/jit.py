"""How the kernels are compiled: by numba, once for an installation, and without the interpreter's lock while they run.

numba keeps compiled code beside the source, or where that can not be written under the user's cache folder; NUMBA_CACHE_DIR names
another place. The code is found again as long as the source file is the same (path, size, time), numba is, and the processor is.
`Engine.warm` compiles all of it, so that the first answer of the next process waits for none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
"""What LLVM may do to sums and products. Infinities and NaN keep their meaning: -inf marks what can not be ranked."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, or take it from numba's cache."""
    settings = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # no folder that can be written: compiled anew in each process
        return njit(**settings)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A function that kernels call; it is compiled into them."""
    return njit(inline="always", fastmath=FASTMATH, error_model="numpy")(function)
