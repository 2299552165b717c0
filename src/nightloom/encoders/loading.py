"""Loading a pretrained model with transformers: from safetensors, in float32, without remote code, quietly, and complete."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nightloom.core.errors import InputError


def load_model(folder: Path) -> Any:
    """A model without a head, as transformers has it.

    Args:
        folder: a model that `nightloom.encoders.weights.resolve` has checked.

    Raises:
        InputError: transformers can not load it, or weights are missing.
    """
    from transformers import AutoModel

    with loading(folder):
        model, info = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise InputError(
            f"{folder}: the weights lack {len(missing)} tensors of the {model.config.model_type} model in config.json, "
            f"for example {missing[0]}. They would be random: copy the whole model again."
        )
    pooler = getattr(model, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        model.pooler = None  # the head of another task (BERT's next sentence), so it must not be trained or kept
    return model


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load quietly; an error names the folder that transformers could not read."""
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise InputError(
            f"{folder}: transformers can not load this model ({type(error).__name__}: {reason}). It must hold config.json, "
            "model.safetensors and the files of its tokenizer or image processor, of an architecture that needs no code of its own."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no progress bars of transformers and peft within the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
