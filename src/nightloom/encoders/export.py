"""A pretrained text encoder as files for the service: one graph from tokens to the pooled vector, its weights int8, half or single.

Weights alone are int8, each row by its own scale. Activations are quantised by OpenVINO as they come, in groups of 32. So nothing has to
be calibrated, and more neighbours are kept than by one scale for a whole matrix.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nightloom.core.errors import InputError
from nightloom.core.files import whole_folder, write_json
from nightloom.encoders.exported import MODEL, SETTINGS, TOKENIZER, quiet_openvino
from nightloom.encoders.text import TextEncoder, Tokens

Precision = Literal["int8", "half", "single"]
SMALLEST = 1 << 14
"""Numbers of a matrix that is worth compressing."""


def export(encoder: TextEncoder, folder: Path, precision: Precision) -> None:
    """Write an encoder as `nightloom.encoders.exported` reads it.

    Args:
        encoder: on the CPU; adapters of LoRA must have been merged.
        folder: where to; it must not be there yet, and is there only whole.
        precision: of the weights.

    Raises:
        InputError: openvino is not installed, or can not trace the model, or its tokenizer is written in Python.
    """
    try:
        openvino = quiet_openvino()
    except ImportError as error:
        raise InputError(
            "writing the text encoder for the service needs the package openvino. Run `pip install 'nightloom[night]'`."
        ) from error
    tokenizer = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise InputError(
            f"the tokenizer {type(encoder.tokenizer).__name__} has no file for the library tokenizers, so the service can not read it."
        )
    graph = _traced(openvino, encoder.eval())
    if precision == "int8":
        _compress(openvino, graph)
    with whole_folder(folder) as made:
        openvino.save_model(graph, str(made / MODEL), compress_to_fp16=precision == "half")
        tokenizer.save(str(made / TOKENIZER))
        write_json(made / SETTINGS, {"dim": encoder.dim, "pad": encoder.pad, "max_tokens": encoder.max_tokens, "precision": precision})


def _traced(openvino: Any, encoder: TextEncoder) -> Any:
    """The graph of two tensors, tokens and mask, to the pooled vectors."""
    example = torch.ones(2, 3, dtype=torch.int64)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of tracing, about branches that do not depend on the texts
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return openvino.convert_model(_Pooled(encoder), example_input=(example, example.clone()))
    except Exception as error:  # whatever torch or OpenVINO say of an operation that they do not know
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"OpenVINO can not take the text encoder over ({reason[:200]}).") from error
    finally:
        logging.disable(level)


def _compress(openvino: Any, graph: Any) -> None:
    """Put int8 numbers with a scale for each row in the place of large float matrices."""
    ops = openvino.opset13
    for node in graph.get_ops():
        shape = list(node.output(0).get_shape()) if node.get_type_name() == "Constant" else []
        if len(shape) != 2 or np.prod(shape) < SMALLEST or node.get_element_type() != openvino.Type.f32:
            continue
        weights = node.get_data()
        scale = np.abs(weights).max(1, keepdims=True) / 127
        scale[scale == 0] = 1
        whole = ops.constant(np.rint(weights / scale).astype(np.int8), openvino.Type.i8)
        made = ops.multiply(ops.convert(whole, "f32"), ops.constant(scale.astype(np.float32)))
        for place in list(node.output(0).get_target_inputs()):
            place.replace_source_output(made.output(0))
    graph.validate_nodes_and_infer_types()


class _Pooled(nn.Module):
    """The encoder as a function of two tensors."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        vectors: Tensor = self.encoder(Tokens(ids, mask))
        return vectors
