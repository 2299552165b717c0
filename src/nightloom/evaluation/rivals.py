"""The registered models that tonight's is compared with: the champion, and the anchor where that is another one.

A comparison is fair where the rival has not learned from the held-out events, and reads texts by the model that it was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.recommender import Recommender
from nightloom.core.streaming import IN_TIME, cut_in_time
from nightloom.encoders.vectors import Vectors
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.reader import LANGUAGE_MODEL

CHAMPION, ANCHOR = "champion", "anchor"
"""Family names of the registered models in the results."""


@dataclass(frozen=True)
class Rival:
    """A registered model over tonight's catalogue.

    Attributes:
        bundle: as it was registered.
        model: the same, ranking tonight's dense item ids.
        learned: bool [rows], held-out events that it may have learned from.
        knows: share of tonight's catalogue that it has been trained on.
        note: what else limits the comparison, in words; empty where nothing does.
    """

    bundle: Bundle
    model: Recommender
    learned: NDArray[np.bool_]
    knows: float
    note: str = ""

    def figures(self) -> dict[str, Any]:
        """What the gate's report says of it."""
        share = float(self.learned.mean()) if len(self.learned) else 0.0
        return {"learned_share": share, "knows_share": self.knows, "note": self.note}


def load_rival(place: Path, protocol: str, items: pd.DataFrame, pretrained: Path, times: NDArray[np.int64]) -> Rival:
    """Put a registered model beside tonight's.

    Args:
        place: its bundle.
        protocol: under which it is compared.
        items: tonight's catalogue.
        pretrained: folder of stage load_pretrained.
        times: int64 [rows], when each held-out event happened, in seconds; zero where the data have no time.
    """
    bundle = Bundle.load(place)
    until = cut_in_time(bundle.meta, "trained_until") if protocol in IN_TIME else None  # leave-one-out holds out the last events of all
    learned = (times > 0) & (times <= until) if until is not None else np.zeros(len(times), dtype=np.bool_)
    vectors, note = vectors_of(bundle, items, pretrained)
    known = float(items["item_id"].isin(bundle.index).mean()) if len(items) else 0.0
    return Rival(bundle, bundle.reindex(items, vectors), learned, known, note)


def vectors_of(bundle: Bundle, items: pd.DataFrame, pretrained: Path) -> tuple[Vectors | None, str]:
    """Vectors of tonight's texts and pictures as a bundle reads them, and what is lost where they can not be had.

    Texts that the bundle knows keep its own vectors (`Bundle.reindex`). New ones are encoded by its own language model where tonight's
    is another: vectors of another model have no meaning for it, even of the same width.
    """
    tonight = Vectors.load(pretrained)
    its, path = bundle.manifest.encoder.get("text"), pretrained / "pretrained.json"
    if its is None or not path.is_file() or (bundle.folder / LANGUAGE_MODEL).is_dir():
        return tonight, ""
    ours: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if all(ours.get(name) == its.get(name) for name in ("sha256", "pooling")):
        return tonight, ""
    new = np.flatnonzero(~items["item_id"].isin(bundle.index).to_numpy() & items["text"].notna().to_numpy())
    width = int(bundle.recommender.content.text.shape[1])
    text, has_text = np.zeros((len(items), width), dtype=np.float32), np.zeros(len(items), dtype=np.bool_)
    note = ""
    if len(new):
        from nightloom.encoders.text import TextEncoder  # only here are transformers needed

        try:
            encoder = TextEncoder.load(its["model"], pooling=its["pooling"], max_tokens=its["max_tokens"], sha256=its["sha256"])
            text[new], has_text[new] = encoder.encode(items["text"].iloc[new].tolist()), True
        except InputError as error:
            note = f"It reads {its['model']}, which is not here, so its {len(new):,} new items count as without text ({error})"
    return Vectors(text, has_text, tonight.image, tonight.has_image), note
