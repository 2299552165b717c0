"""What serves of a version, part by part: how precise, how large, and how much of the quality is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part in one precision.

    Attributes:
        part: its name.
        precision: of its weights; of the encoder and of the item vectors where they differ.
        bytes: as it is stored.
        single_bytes: the same in float32; None where it was not measured.
        lost: share of NDCG that is lost: NDCG@10 of streamed events, or of items that come by day for the text encoder. None: not measured.
        near: share of the ten best items, or of the ten nearest texts, that stay so; None: not measured.
    """

    part: str
    precision: str
    bytes: int
    single_bytes: int | None
    lost: float | None
    near: float | None


def sequence_part(said: Mapping[str, Any]) -> Part:
    """Sequence model and item vectors (`nightloom.compress.sequence.SequenceExport`)."""
    precision = said["encoder"] if said["encoder"] == said["vectors"] else f"{said['encoder']}, item vectors {said['vectors']}"
    asked = said["queries"] > 0
    figures = (said["ndcg_lost"], said["lists_kept"]) if asked else (None, None)
    return Part("sequence model and item vectors", precision, said["bytes"], said["single_bytes"], *figures)


def text_part(said: Mapping[str, Any], single_bytes: int | None = None) -> Part:
    """The text encoder (`nightloom.compress.text.TextExport`)."""
    return Part("text encoder", said["precision"], said["bytes"], single_bytes, said["cold_ndcg_loss"], said["neighbours_kept"])


def parts_of(sequence: Mapping[str, Any] | None, text_encoder: Mapping[str, Any] | None) -> list[Part]:
    """The parts that a serving artefact names (`ServingManifest`)."""
    return [
        *([] if sequence is None else [sequence_part(sequence)]),
        *([] if text_encoder is None else [text_part(text_encoder)]),
    ]
