"""A fitted click head on disk: networks and vocabularies as safetensors, settings and calibration as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nightloom.core.errors import InputError
from nightloom.data.preparation.impressions import Impressions
from nightloom.models.ctr.base import FloatArray
from nightloom.models.ctr.calibrate import Calibrator
from nightloom.models.ctr.features import Encoder
from nightloom.models.ctr.head import ClickHead
from nightloom.models.heads.net import HeadNet

FORMAT = "nightloom-clicks-1"


def save(folder: Path, head: ClickHead, encoder: Encoder, calibrator: Calibrator) -> None:
    """Write `clicks.safetensors` and `clicks.json`."""
    if head.net is None:
        raise ValueError("the click head is not fitted: call fit first")
    tensors = {f"net.{name}": value.detach().contiguous().clone() for name, value in head.net.state_dict().items()}
    for name in ("centres", "scales", "lowest", "highest", "holes"):
        tensors[f"encoder.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(encoder, name)))
    for name in ("vocabularies", "bin_edges"):
        tensors |= {f"encoder.{name}.{place}": torch.from_numpy(one.copy()) for place, one in enumerate(getattr(encoder, name))}
    save_file(tensors, folder / "clicks.safetensors")
    config = head.config.model_dump() if hasattr(head.config, "model_dump") else vars(head.config)
    said = {
        "format": FORMAT,
        "clicks": config,
        "seed": head.seed,
        "fields": encoder.fields,
        "columns": encoder.columns,
        "numbers": len(encoder.bin_edges),
        "calibrator": asdict(calibrator),
    }
    (folder / "clicks.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[ClickHead, Encoder, Calibrator]:
    """Read what `save` wrote.

    Raises:
        InputError: a file is missing or is not what `save` wrote.
    """
    try:
        said: dict[str, Any] = json.loads((folder / "clicks.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "clicks.safetensors")
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}, not {FORMAT!r}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: not a readable click head ({error}). Name the head's folder of a finished run.") from error
    arrays = {name.removeprefix("encoder."): one.numpy() for name, one in tensors.items() if name.startswith("encoder.")}
    encoder = Encoder(
        tuple(said["fields"]),
        tuple(arrays[f"vocabularies.{place}"] for place in range(len(said["fields"]))),
        tuple(said["columns"]),
        arrays["centres"],
        arrays["scales"],
        arrays.get("lowest", np.full(len(said["columns"]), -np.inf)),  # Nightloom 0.2 did not keep it
        arrays.get("highest", np.full(len(said["columns"]), np.inf)),
        arrays["holes"],
        tuple(arrays[f"bin_edges.{place}"] for place in range(said["numbers"])),
    )
    config: Any = SimpleNamespace(**said["clicks"])
    head = ClickHead(config, encoder.n_codes, said["seed"])
    head.net = HeadNet(config.members, encoder.n_codes, encoder.n_numbers, config.dim, config.dropout)
    head.net.load_state_dict({name[4:]: one for name, one in tensors.items() if name.startswith("net.")})
    head.net.requires_grad_(False)
    calibrator = said["calibrator"]
    return head, encoder, Calibrator(**calibrator | {name: tuple(calibrator[name]) for name in ("places", "probabilities")})


def probabilities(folder: Path, rows: Impressions, until: int) -> FloatArray:
    """Probabilities that a saved head gives to rows.

    Args:
        folder: what `save` wrote.
        rows: impressions with the fields and numbers that the head learnt from, in that order.
        until: counters know what lies before this row.

    Returns:
        float64 [rows].

    Raises:
        InputError: the rows have other fields or numbers.
    """
    head, encoder, calibrator = load(folder)
    numbers = encoder.columns[len(encoder.columns) - len(encoder.bin_edges) :]
    if (rows.fields, rows.number_names) != (encoder.fields, numbers):
        missing = sorted({*encoder.fields, *numbers} ^ {*rows.fields, *rows.number_names})
        raise InputError(f"{folder}: the head reads other columns than the rows have: {', '.join(missing)}. Give the same columns again.")
    return calibrator(head.log_odds(encoder.encode(rows, until)))
