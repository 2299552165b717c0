"""A text encoder as the service runs it: OpenVINO and tokenizers alone, neither torch nor transformers.

`nightloom.encoders.export` writes its folder: `model.xml` and `model.bin` (tokens in, one vector a text out), `tokenizer.json`, and
`encoder.json`. Arithmetic is float32, so vectors do not depend on what else the processor can do.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError

SETTINGS, MODEL, TOKENIZER = "encoder.json", "model.xml", "tokenizer.json"
TOGETHER = 32
"""Texts in a batch."""
REMEMBERED = 4096
"""Latest texts whose vectors are kept: an item that was checked is put next, and people ask the same words."""
FloatArray = NDArray[np.float32]


class ExportedEncoder:
    """Texts in, one vector a text out. Threads may share it.

    Args:
        folder: what `nightloom.encoders.export.export` wrote.
        threads: processor threads of one call.

    Raises:
        InputError: openvino or tokenizers is not installed, or the folder can not be read.

    Attributes:
        dim: width of a vector.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        try:
            openvino = quiet_openvino()
            from tokenizers import Tokenizer
        except ImportError as error:
            raise InputError(f"{folder}: reading texts needs the package {error.name}. Run `pip install 'nightloom[serve]'`.") from error
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            said = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            self.dim, self._pad = int(said["dim"]), int(said["pad"])
            self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(int(said["max_tokens"]))
            self._request: Any = openvino.Core().compile_model(str(folder / MODEL), "CPU", settings).create_infer_request()
        except Exception as error:  # both libraries raise bare exceptions
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(f"{folder}: no text encoder that can be read ({reason}). Delete it, and start again.") from error
        self._lock, self._known = threading.Lock(), dict[str, FloatArray]()

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of some texts, float32 [texts, dim]. A vector does not depend on the batch that its text is in."""
        ids = [one.ids or [self._pad] for one in self._tokenizer.encode_batch(list(texts))]
        found = np.zeros((len(ids), self.dim), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            width = len(ids[rows[-1]])
            tokens = np.full((len(rows), width), self._pad, dtype=np.int64)
            mask = np.zeros((len(rows), width), dtype=np.int64)
            for place, row in enumerate(rows):
                tokens[place, : len(ids[row])], mask[place, : len(ids[row])] = ids[row], 1
            with self._lock:
                found[rows] = self._request.infer([tokens, mask])[0]
        return found

    def vector(self, text: str) -> FloatArray:
        """The vector of a text, float32 [dim], kept for the next time."""
        known = self._known.get(text)
        if known is None:
            known = self.encode([text])[0]
            known.setflags(write=False)
            while len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            self._known[text] = known
        return known


def quiet_openvino() -> Any:
    """The package openvino, without the warnings of its import.

    Raises:
        ImportError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import openvino
    return openvino
