"""The same text vectors by OpenVINO, several times faster on a CPU with bfloat16 arithmetic.

OpenVINO uses bfloat16 where the processor has it, else float32. Vectors then differ in their last bits from machine to machine, so a
config has to choose it: `pretrained.engine: fast`.
"""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nightloom.core.errors import InputError
from nightloom.encoders.exported import quiet_openvino
from nightloom.encoders.text import TextEncoder


def accelerate(encoder: TextEncoder, precision: str = "bf16") -> TextEncoder:
    """Let OpenVINO run an encoder's model; tokens, batches and pooling stay as they are.

    Args:
        encoder: a BERT-class encoder on the CPU; it is changed and can not be trained afterwards.
        precision: bf16 (where the processor has it) or f32.

    Returns:
        The encoder.

    Raises:
        InputError: openvino is not installed, or the model is a decoder.
    """
    try:
        openvino = quiet_openvino()
    except ImportError as error:
        raise InputError(
            "pretrained.engine: fast needs the package openvino. Run `pip install 'nightloom[fast]'`, or set pretrained.engine=torch."
        ) from error
    if encoder.pooling == "last":
        raise InputError("pretrained.engine: fast reads BERT-class encoders; this model is a decoder. Set pretrained.engine=torch.")
    encoder.model = Compiled(openvino, encoder.model.eval(), precision)
    return encoder


class Compiled(nn.Module):
    """A transformers encoder, run by OpenVINO, that answers as the original does.

    Args:
        openvino: the package.
        model: the encoder.
        precision: bf16 or f32.
    """

    def __init__(self, openvino: Any, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.config: Any = model.config
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # holds the device of the encoder
        example = torch.ones(2, 3, dtype=torch.int64)
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)  # of tracing, about branches that do not depend on the texts
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                graph = openvino.convert_model(_Hidden(model), example_input=(example, example.clone()))
        finally:
            logging.disable(level)
        # As many threads as torch would use, so that other processes keep their share.
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self.request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Token vectors, float32 [n, tokens, dim], as `last_hidden_state`."""
        found = self.request.infer([input_ids.numpy(), attention_mask.numpy()])[0]
        return SimpleNamespace(last_hidden_state=torch.from_numpy(found.copy()))  # the next batch overwrites it


class _Hidden(nn.Module):
    """The model as a function of two tensors to one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden
