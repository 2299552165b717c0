"""The text encoder for the service: the smallest export that passes the gate.

The gate compares an export's vectors with those that the model was trained with. It counts how many of a text's ten nearest texts are
kept, and how much lower an item is ranked that comes by day, so that its text and attributes alone place it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.core.digests import folder_digest
from nightloom.core.errors import InputError
from nightloom.core.files import events_at
from nightloom.core.queries import Query, build_histories
from nightloom.data.preparation.stored import look_up
from nightloom.encoders.export import Precision, export
from nightloom.encoders.exported import ExportedEncoder
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.weights import resolve
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.reader import LANGUAGE_MODEL

LADDER: tuple[Precision, ...] = ("int8", "half", "single")
"""Precisions of the weights, the smallest first."""
LEAST_KEPT, MOST_LOST = 0.9, 0.01
"""Share of ten neighbours that an export keeps, and share of NDCG that an item which comes by day may lose."""
NEIGHBOURS = 10
TEXTS, USERS = 1_000, 1_000
"""Texts and users that are measured at most."""
FORMAT = 1
log = logging.getLogger("nightloom.compress")
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class TextExport:
    """An exported encoder, as an artefact names it.

    Attributes:
        name: of its folder; the same for the same weights, pooling, length and precision.
        sha256: over its files.
        model: the pretrained model's name.
        precision: of the weights.
        dim: width of a vector.
        bytes: size of its files.
        neighbours_kept: share of the ten nearest texts that stay the nearest, over some texts of the catalogue.
        cold_ndcg_loss: share of NDCG that items which come by day lose; None where no events were at hand.
        tuned: whether it belongs to one version alone, and lies in its artefact.
    """

    name: str
    sha256: str
    model: str
    precision: str
    dim: int
    bytes: int
    neighbours_kept: float
    cold_ndcg_loss: float | None
    tuned: bool

    @property
    def passes(self) -> bool:
        """Whether the gate lets it serve."""
        return self.neighbours_kept >= LEAST_KEPT and (self.cold_ndcg_loss is None or self.cold_ndcg_loss < MOST_LOST)

    def said(self) -> dict[str, Any]:
        """What the artefact's manifest holds."""
        return asdict(self)


def text_export(bundle: Bundle, home: Path, events: Path | None = None) -> tuple[TextExport, Path] | None:
    """The smallest export of a bundle's text encoder that passes the gate, made where it is not there yet.

    Args:
        bundle: whose catalogue is measured.
        home: folder of exports.
        events: canonical events.parquet, or the snapshot's folder, of the users that are measured.

    Returns:
        What it is, and its folder; None where the model reads no text, or none passes, of which the log says why.
    """
    try:
        if (known := encoder_of(bundle)) is None:
            return None
        for found, made in _exports(known, bundle, home, events):
            if found.passes:
                return found, made
    except InputError as error:
        log.warning("the service will read no texts: %s", error)
        return None
    said = bundle.manifest.encoder["text"]
    log.warning("the service will read no texts: no export of %s gives the vectors that the model was trained with", said["model"])
    return None


def exports(bundle: Bundle, home: Path, events: Path | None = None) -> Iterator[TextExport]:
    """The exports of a bundle's text encoder in each precision, the smallest first; none where the model reads no text.

    Raises:
        InputError: its weights are not on this machine.
    """
    if (known := encoder_of(bundle)) is not None:
        yield from (found for found, _ in _exports(known, bundle, home, events))


def _exports(
    known: tuple[str, Callable[[], TextEncoder]], bundle: Bundle, home: Path, events: Path | None
) -> Iterator[tuple[TextExport, Path]]:
    """Each export, made where it is not there yet, and its folder."""
    name, load = known
    encoder: TextEncoder | None = None
    for precision in LADDER:
        made = home / f"{name}-{precision}"
        if not made.exists():
            encoder = encoder or load()
            export(encoder, made, precision)
        found = measured(ExportedEncoder(made), made, bundle, events)
        log.info("text encoder %s: %s", made.name, asdict(found))
        yield found, made


def encoder_of(bundle: Bundle) -> tuple[str, Callable[[], TextEncoder]] | None:
    """A name that the exports of a bundle's text encoder have, and what loads it, on the CPU; None where the model reads no text.

    Raises:
        InputError: its weights are not on this machine.
    """
    said = bundle.manifest.encoder.get("text")
    if not said or not bundle.recommender.content.has_text.any():
        return None
    folder, weights = _weights(bundle, said)
    name = sha256(repr((FORMAT, weights, said["pooling"], said["max_tokens"])).encode()).hexdigest()[:16]
    return name, lambda: TextEncoder.load(folder, pooling=said["pooling"], max_tokens=said["max_tokens"]).cpu()


def measured(encoder: ExportedEncoder, folder: Path, bundle: Bundle, events: Path | None) -> TextExport:
    """An export beside the vectors that the model was trained with; arguments as of `text_export`."""
    said, content = bundle.manifest.encoder["text"], bundle.recommender.content
    wanted = content.text.numpy().astype(np.float32)
    rows = np.flatnonzero(content.has_text.numpy())
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:TEXTS])
    targets, queries = _last_events(bundle, events) if events is not None else (np.zeros(0, np.int64), [])
    places = np.union1d(rows, targets)
    texts: Sequence[Any] = bundle.catalogue["text"]
    vectors = wanted.copy()
    vectors[places] = encoder.encode([texts[place] for place in places])
    lost = None
    if queries:
        before, after = (_cold_ndcg(bundle, targets, queries, one) for one in (wanted, vectors))
        lost = round(float(1 - after / before), 6)
    return TextExport(
        name=folder.name,
        sha256=folder_digest(folder),
        model=said["model"],
        precision=folder.name.rpartition("-")[2],
        dim=encoder.dim,
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        neighbours_kept=round(_neighbours_kept(bundle, rows, vectors[rows]), 6),
        cold_ndcg_loss=lost,
        tuned=bool(said.get("tuned")),
    )


def _weights(bundle: Bundle, said: Any) -> tuple[str, str]:
    """Folder and digest of the language model: the bundle's own where it was tuned."""
    own = bundle.folder / LANGUAGE_MODEL
    weights = resolve(str(own)) if own.is_dir() else resolve(said["model"], said["sha256"])
    return str(weights.path), weights.fingerprint


def _neighbours_kept(bundle: Bundle, rows: NDArray[np.int64], vectors: FloatArray) -> float:
    """Share of the nearest texts that stay so when a text comes anew, in the space where the model compares texts."""
    content = bundle.recommender.content
    space = TextNeighbours.space(content.text, content.has_text)
    unit = space(content.text, content.has_text).numpy()
    new = space(torch.from_numpy(vectors), torch.ones(len(rows), dtype=torch.bool)).numpy()
    many = min(NEIGHBOURS, int(content.has_text.sum()) - 1)
    if many < 1:
        return 1.0
    kept = 0
    for row, one in zip(rows, new, strict=True):
        nearest = []
        for vector in (unit[row], one):
            cosines = unit @ vector
            cosines[row] = -np.inf
            nearest.append(set(np.argpartition(-cosines, many - 1)[:many].tolist()))
        kept += len(nearest[0] & nearest[1])
    return kept / many / len(rows)


def _last_events(bundle: Bundle, events: Path) -> tuple[NDArray[np.int64], list[Query]]:
    """For some users the item of the last positive event, int64 [users], and the query before it; items without text are left out."""
    place = events_at(events)
    import pyarrow.parquet as pq

    users = np.unique(pq.read_table(place, columns=["user_id"])["user_id"].to_numpy(zero_copy_only=False).astype(str))
    some = np.random.default_rng(0).permutation(users)[:USERS]
    has_text, targets, queries = bundle.recommender.content.has_text.numpy(), list[int](), list[Query]()
    for _, rows in look_up(place, some.tolist(), bundle.meta).groupby("user_id"):
        items, positive = rows["item_id"].tolist(), rows["positive"].to_numpy()
        last = int(np.flatnonzero(positive)[-1]) if positive.any() else 0
        dense = bundle.index.get(items[last], -1)
        if not last or dense < 0 or not has_text[dense]:
            continue
        times = rows["second"].tolist() if "second" in rows else None
        queries.append(
            Query(
                items[:last],
                None if times is None else times[:last],
                rows["event"].tolist()[:last],
                positive[:last].tolist(),
                request_time=None if times is None else times[last],
            )
        )
        targets.append(dense)
    return np.array(targets, dtype=np.int64), queries


@torch.no_grad()
def _cold_ndcg(bundle: Bundle, targets: NDArray[np.int64], queries: Sequence[Query], text: FloatArray) -> float:
    """Mean NDCG, without a cut-off, of items that the network ranks by text and attributes alone, among all that was not seen."""
    model = bundle.recommender
    histories = build_histories(queries, bundle.index, bundle.event_names, bundle.clock)
    vectors = model.item_vectors()
    users = model.user_vectors(histories, vectors).float()
    rows = torch.from_numpy(targets)
    content = replace(model.content, text=torch.from_numpy(text)).take(rows)
    cold = model.net.fusion(replace(content, id_rows=torch.zeros_like(content.id_rows))).float()
    mine = (users * cold).sum(1, keepdim=True)
    total = 0.0
    for row in range(len(queries)):
        scores = vectors.float() @ users[row]
        scores[rows[row]] = -torch.inf
        scores[torch.from_numpy(histories.items[histories.offsets[row] : histories.offsets[row + 1]].astype(np.int64))] = -torch.inf
        total += 1 / np.log2(2 + int((scores > mine[row]).sum()))
    return float(total / len(queries))
