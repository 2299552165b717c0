"""A network's weights over another catalogue: what both catalogues know keeps its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from nightloom.data.preparation.items import FeatureSpec

IDS, CODES, NUMBERS, BIAS, EVENT_TYPES = (
    "fusion.ids.weight", "fusion.codes.weight", "fusion.numbers.weight", "fusion.numbers.bias", "encoder.event_types.weight",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What weights refer to: the catalogue, its vocabularies and its event names.

    Attributes:
        item_ids: object [items], by dense id.
        spec: how attributes are coded.
        event_types: event names by code.
    """

    item_ids: NDArray[np.object_]
    spec: FeatureSpec
    event_types: list[str]


def remap(net: dict[str, Tensor], id_rows: Tensor, before: Known, tonight: Known) -> dict[str, Tensor]:
    """Weights over another catalogue: items, attribute values and event names that both know keep their vectors.

    Args:
        net: the network's state.
        id_rows: int64 [items of before], rows of the id table.
        before: what the state refers to.
        tonight: what the result refers to.

    Returns:
        The state, NaN where only tonight knows a value. The id table has one row for the unknown id and one for each item;
        an item that was not known starts from the unknown id.
    """
    state = dict(net)
    if len(state[IDS]) > 1:
        rows = id_rows_of(before.item_ids, tonight.item_ids, id_rows)
        state[IDS] = torch.cat([state[IDS][:1], state[IDS][torch.from_numpy(rows)]])
    if CODES in state:
        state[CODES] = by_name(state[CODES], before.spec.describe(), tonight.spec.describe())
    if EVENT_TYPES in state:
        state[EVENT_TYPES] = by_name(state[EVENT_TYPES], before.event_types, tonight.event_types)
    if NUMBERS in state:
        state[NUMBERS], state[BIAS] = _rescaled(state[NUMBERS], state[BIAS], before.spec, tonight.spec)
    return state


def _rescaled(weight: Tensor, bias: Tensor, before: FeatureSpec, tonight: FeatureSpec) -> tuple[Tensor, Tensor]:
    """The layer of numeric features under tonight's means and spreads: its output stays the same.

    Before, z = (x - m) / s. Tonight, z' = (x - m') / s'. So z = z' s'/s + (m' - m)/s. The constant goes to the bias and, since a
    missing number is 0 under both, is taken back by the weight of "missing".
    """
    old, new = list(before.scales), list(tonight.scales)
    out, shifted = weight.new_full((len(weight), 2 * len(new)), torch.nan), bias.clone()
    for column, name in enumerate(new):
        if name not in old:
            continue
        (mean, spread), (mean_now, spread_now) = before.scales[name], tonight.scales[name]
        known, missing = weight[:, old.index(name)], weight[:, len(old) + old.index(name)]
        constant = known * ((mean_now - mean) / spread)
        out[:, column], out[:, len(new) + column] = known * (spread_now / spread), missing - constant
        shifted += constant
    return out, shifted


def by_name(table: Tensor, before: list[Any], tonight: list[Any]) -> Tensor:
    """Rows of an embedding in tonight's order; NaN for names that are new."""
    where = {name: row for row, name in enumerate(before)}
    rows = torch.tensor([where.get(name, -1) for name in tonight], dtype=torch.int64)
    return torch.where((rows >= 0)[:, None], table[rows.clamp(min=0)], torch.nan)


def id_rows_of(before: NDArray[np.object_], tonight: NDArray[np.object_], id_rows: Tensor) -> NDArray[np.int64]:
    """Row of the champion's id table for each of tonight's items, 0 where it has none; int64 [items]."""
    where = {item: dense for dense, item in enumerate(before.tolist())}
    here = np.array([where.get(item, -1) for item in tonight.tolist()], dtype=np.int64)
    return np.where(here >= 0, id_rows.numpy()[np.maximum(here, 0)], 0)
