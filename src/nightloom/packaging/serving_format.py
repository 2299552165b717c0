"""`serving.json`: what a serving artefact is, and the size and SHA-256 of each of its files. Needs the standard library alone.

The artefact is made of a bundle (`nightloom.packaging.serving_artefact`) and is all that the service needs, offline. Files:

- `network.safetensors`: item vectors, their mean and covariance, the encoder's weights laid out as its kernels read them; rounded where
  that passed the gate (`nightloom.packaging.serving_precision`);
- `scorers.safetensors`: edges, counts and factors of the scorers that have a fusion weight, the graph's edges as raw counts, and the
  popularity penalty of each item where there is one;
- `new_items.safetensors`: what makes the vector, and the neighbours by text, of an item that comes later;
- `reranker.safetensors`, `labels.safetensors`: the heads and their counters, where the bundle has them;
- `catalogue.safetensors`: the items' columns, as in the bundle;
- `texts.safetensors`: directions of the items' texts, by which they are searched in words, where a text encoder serves;
- `text_encoder/`: that encoder, where the language model was tuned for this version; else versions share one, which lies apart;
- `explainer.json`: how the values of reasons are estimated (`nightloom.serving.reasons.attribution`); a service without it is cautious;
- `probes.json`: a few requests with the answers of the bundle, its weights rounded as they are kept here, by which whoever opens the
  artefact sees that it answers alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from nightloom import __version__
from nightloom.core.digests import check_listing, listing, read_sealed, write_sealed
from nightloom.core.errors import DamagedError, InputError

FILE = "serving.json"
FORMAT, READABLE = 4, (3, 4)
"""What is written, and what is read: an artefact of format 3 is one of which nothing is rounded."""
FOLDER = "serving"
"""Name of the artefact among the files of a registered version."""
NETWORK, SCORERS, NEW_ITEMS = "network.safetensors", "scorers.safetensors", "new_items.safetensors"
PROBES = "probes.json"
RERANKER, LABELS = "reranker.safetensors", "labels.safetensors"
TEXTS, TEXT_ENCODER = "texts.safetensors", "text_encoder"
EXPLAINER = "explainer.json"
PENALTY = "popularity_penalty"
"""Prefix of its arrays among those of the scorers."""


class OtherFormatError(InputError):
    """An artefact of another Nightloom; it can be made again from its bundle."""


@dataclass(frozen=True)
class ServingManifest:
    """What `serving.json` holds.

    Attributes:
        format: number of the format.
        nightloom: version of Nightloom that wrote it.
        bundle: SHA-256 of the `bundle.json` that it was made of.
        model: `dim`, `heads`, `blocks`, `max_history`, `labelled`: whether events that were not positive are marked, and `exploration`: the
            temperature at which lists without a history are drawn, in units of the final score.
        weights: scorer -> its fusion weight for long histories; the network has the rest.
        newcomer_weights: the same scorers -> fusion weight without a history; between the two they move smoothly.
        scorers: scorer -> its settings.
        reranker: settings of the re-ranker; None without one.
        labels: settings of the label head; None without one.
        meta: stage prepare's `meta.json`.
        features: stage prepare's `feature_spec.json`.
        encoder: which pretrained models made the vectors of texts and pictures.
        text_encoder: the export by which the service reads texts (`nightloom.compress.text.TextExport`); None where it reads none.
        sequence: precisions of sequence model and item vectors, and what they cost (`nightloom.compress.sequence.SequenceExport`); None
            where nothing was measured, and nothing is rounded.
        files: path in the artefact -> `{"size": bytes, "sha256": hex}`.
    """

    format: int
    nightloom: str
    bundle: str
    model: Mapping[str, Any]
    weights: Mapping[str, float]
    newcomer_weights: Mapping[str, float]
    scorers: Mapping[str, Mapping[str, Any]]
    reranker: Mapping[str, Any] | None
    labels: Mapping[str, Any] | None
    meta: Mapping[str, Any]
    features: Mapping[str, Any]
    encoder: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    text_encoder: Mapping[str, Any] | None = None
    sequence: Mapping[str, Any] | None = None

    @classmethod
    def seal(cls, folder: Path, **said: Any) -> Self:
        """Write `serving.json` over the files that the folder holds; nothing may be written to it afterwards."""
        made = cls(format=FORMAT, nightloom=__version__, files=listing(folder, FILE), **said)
        write_sealed(folder / FILE, asdict(made))
        return made

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of an artefact and check its files.

        Raises:
            DamagedError: a file is missing or damaged.
            InputError: there is none.
            OtherFormatError: the artefact is of a format of another Nightloom.
        """
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder}: no serving artefact, {FILE} is missing. {REMEDY}")
        try:
            content = read_sealed(path, REMEDY)
            if content["format"] not in READABLE:
                raise OtherFormatError(
                    f"{path}: format {content['format']}, written by Nightloom {content['nightloom']}. This one reads format {FORMAT}. "
                    f"{REMEDY}"
                )
            content = {"text_encoder": None, "sequence": None} | content  # what was written before they were
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise DamagedError(path, f"it can not be read ({error!r})", REMEDY) from error
        check_listing(folder, found.files, REMEDY)
        return found


REMEDY = "Make it anew from the bundle (nightloom.packaging.serving_artefact.write_serving), or run the night again."
