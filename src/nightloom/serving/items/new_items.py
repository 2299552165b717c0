"""The vector of an item that comes by day: item fusion of `nightloom.models.sequential.content_fusion` without an id, in numpy.

Whitening is frozen, so an item is placed among the others without touching them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.item_text import missing, values_of
from nightloom.serving.items.growing import EdgeRows, Growing
from nightloom.serving.model.jit import kernel

FloatArray = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
EPSILON = np.float32(1e-5)


@dataclass(frozen=True)
class NewItem:
    """What is known of an item.

    Attributes:
        item_id: its id.
        columns: column -> value, as in the catalogue; what is missing, or no column of the model, is left out.
        text: float32 [text_dim], vector of its text by the model's encoder; None without text.
        image: float32 [image_dim], vector of its picture; None without one.
    """

    item_id: str
    columns: Mapping[str, Any]
    text: FloatArray | None = None
    image: FloatArray | None = None


class ItemMaker:
    """Makes vectors of new items.

    Args:
        arrays: `new_items.safetensors` of an artefact.
        features: stage prepare's `feature_spec.json`.
    """

    def __init__(self, arrays: Arrays, features: Mapping[str, Any]) -> None:
        self.fusion = {name.removeprefix("fusion."): one for name, one in arrays.items() if name.startswith("fusion.")}
        means = (("text", "neighbours.mean"), ("text", "fusion.whiten.mean"), ("image", "fusion.whiten_image.mean"))
        self.shapes: dict[str, tuple[int, ...]] = {name: arrays[mean].shape for name, mean in means if mean in arrays}
        self.features = features
        self.places: dict[str, dict[str, int]] = {}
        first = 0
        for column, values in features["vocabularies"].items():
            self.places[column] = {value: first + place for place, value in enumerate(values)}
            first += len(values)

    def check(self, item: NewItem) -> None:
        """Refuse vectors that the model can not read.

        Raises:
            InputError: a vector has another width, or is not finite.
        """
        for name, given in (("text", item.text), ("image", item.image)):
            shape = self.shapes.get(name)
            if given is not None and shape is not None and (given.shape != shape or not np.isfinite(given).all()):
                raise InputError(
                    f"item {item.item_id}: its {name} vector has the shape {given.shape}, the model reads {shape} finite numbers. Make it "
                    "with the encoder that the model names."
                )

    def vector(self, item: NewItem) -> FloatArray:
        """The item's vector, float32 [dim].

        Raises:
            InputError: see `numbers`.
        """
        own = self.fusion
        fused = own["unknown_id"].copy()
        for name, given, whiten in (("text", item.text, "whiten"), ("image", item.image, "whiten_image")):
            if f"{name}.weight" in own:
                if given is None:
                    fused += own[f"no_{name}"]
                else:
                    fused += own[f"{name}.weight"] @ ((given - own[f"{whiten}.mean"]) @ own[f"{whiten}.directions"])
        if "codes.weight" in own:
            codes = self.codes(item.columns)
            fused += own["codes.weight"][codes].mean(0) if codes else own["no_codes"]
        if "numbers.weight" in own:
            fused += own["numbers.weight"] @ self.numbers(item) + own["numbers.bias"]
        centred = fused - fused.mean()
        vector: FloatArray = centred / np.sqrt(np.square(centred).mean() + EPSILON) * own["norm.weight"] + own["norm.bias"]
        if "adapter.down.weight" in own:
            narrow = own["adapter.down.weight"] @ vector + own["adapter.down.bias"]
            vector = vector + own["adapter.up.weight"] @ (narrow / (1 + np.exp(-narrow))) + own["adapter.up.bias"]
        return vector.astype(np.float32)

    def codes(self, columns: Mapping[str, Any]) -> list[int]:
        """Codes of the item's categories and tags, ascending, each once; values that the model does not know are dropped."""
        kinds, separator = self.features["kinds"], self.features["tags_separator"]
        named = ((places, values_of(columns.get(column), kinds[column], separator)) for column, places in self.places.items())
        return sorted({places[word] for places, words in named for word in words if word in places})

    def numbers(self, item: NewItem) -> FloatArray:
        """The item's numbers, scaled and 0 where missing, then 1 where missing: float32 [2 * columns].

        Raises:
            InputError: what stands in a column of numbers is none.
        """
        scaled = []
        for column, (mean, spread) in self.features["scales"].items():
            value = _number(item, column)
            scaled.append((value - mean) / spread if math.isfinite(value) else math.nan)
        values = np.array(scaled, dtype=np.float64)
        known = np.isfinite(values)
        return np.concatenate([np.where(known, values, 0), ~known]).astype(np.float32)


class TextSpace:
    """Unit vectors of the catalogue's texts, by which the neighbours of a new text are found.

    Args:
        arrays: `new_items.safetensors` of an artefact.
        neighbours: edges kept from each item.
    """

    def __init__(self, arrays: Arrays, neighbours: int) -> None:
        self._known = arrays["neighbours.known"]
        self.mean, self.directions = arrays["neighbours.mean"], arrays.get("neighbours.directions")
        self._unit = Growing(arrays["neighbours.unit"])
        self.neighbours = neighbours

    def put(self, item: int, text: FloatArray | None, edges: EdgeRows | None) -> tuple[NDArray[np.int64], FloatArray]:
        """Take an item's text, and make it a neighbour of those that it is near to, as if the neighbours were searched anew.

        Args:
            item: dense item: the next one, or one that is put once more, whose former neighbours are kept.
            text: float32 [text_dim]; None without text.
            edges: of `text_neighbours`; they have a row for the item. None: it is no scorer here.

        Returns:
            The item's neighbours among those that somebody had acted on by night, dense, and the squares of their cosines.
        """
        unit = np.zeros(self._unit.array.shape[1], dtype=np.float32)
        if text is not None:
            centred = text - self.mean
            white = centred if self.directions is None else centred @ self.directions
            unit = (white / max(float(np.linalg.norm(white)), 1e-12)).astype(np.float32)
        if item == self._unit.n:
            self._unit.append(unit)
        else:
            self._unit.array[item] = unit
        near = np.square(np.maximum(self._unit.array @ unit, 0))
        near[item] = 0
        mine = np.argsort(-near, kind="stable")[: self.neighbours]
        mine = mine[near[mine] > 0]
        if edges is not None:
            edges.clear(item)
            edges.add(np.full(len(mine), item), mine, near[mine])
            theirs = _nearer(edges.start, edges.length, edges.targets, edges.weights, near, item, self.neighbours)
            edges.add(theirs, np.full(len(theirs), item), near[theirs])
        mine = mine[mine < len(self._known)]
        mine = mine[self._known[mine]]
        return mine, near[mine]


@kernel
def _nearer(start: Any, length: Any, targets: Any, weights: Any, near: Any, item: Any, neighbours: Any) -> Any:
    """Items that the new one is a neighbour of, and whose row has room for it; where a row is full it takes the weakest one's place."""
    found = []
    for other in range(len(near)):
        if near[other] <= 0:
            continue
        first, many = start[other], length[other]
        weakest: Any = first
        known: Any = np.int64(-1)
        for at in range(first, first + many):
            if targets[at] == item:
                known = at
            if weights[at] < weights[weakest] or (weights[at] == weights[weakest] and targets[at] > targets[weakest]):
                weakest = at
        if known >= 0:
            weights[known] = near[other]
        elif many < neighbours:
            found.append(other)
        elif near[other] > weights[weakest]:
            targets[weakest], weights[weakest] = np.int32(item), near[other]
    return np.array(found, dtype=np.int64)


def _number(item: NewItem, column: str) -> float:
    """What an item says in a column of numbers; NaN where it says nothing."""
    given = item.columns.get(column)
    if missing(given):
        return math.nan
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"item {item.item_id}: {column}: {given!r} is no number.") from error
