"""What is known of the items: columns of the catalogue and what was said by day, and masks of the items that a filter takes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.columns import Columns
from nightloom.core.item_text import missing
from nightloom.serving.items.growing import Growing
from nightloom.serving.store import Item

HIDDEN = ("item_id", "text")
"""Columns that are no attributes: the id, and the text that was composed of the others."""
Mask = NDArray[np.bool_]


class KnownItems:
    """Columns by dense item id; items that come by day are appended.

    Args:
        catalogue: columns of the items that the champion was trained with.
        kinds: column -> text, category, tags, number, image or ignore.
        separator: between the tags of one cell.
    """

    def __init__(self, catalogue: Columns, kinds: Mapping[str, str], separator: str) -> None:
        self._catalogue, self._kinds, self._separator = catalogue, kinds, separator
        self.ids: list[str] = list(catalogue["item_id"])
        self._trained = {item_id: place for place, item_id in enumerate(self.ids)}
        self.columns = [name for name in catalogue.names if name not in HIDDEN]
        self._said: dict[int, Mapping[str, Any]] = {}
        self._index = dict(self._trained)
        self._removed: set[int] = set()
        self.blocked: set[int] = set()
        """Dense ids of items that are not to be shown, whatever becomes of them."""
        self._terms: dict[str, dict[Any, NDArray[np.int64]]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._titles: list[str] | None = None
        self._marks = Growing(np.array([mark_of(item_id) for item_id in self.ids], dtype=np.uint32))
        self.title_column = next((name for name, kind in kinds.items() if kind == "text" and name in self.columns), None)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def marks(self) -> NDArray[np.uint32]:
        """The mark of each item's id, uint32 [items]."""
        return self._marks.array

    def place(self, item_id: str) -> int | None:
        """Dense id of an item that is offered; None where there is none."""
        found = self._index.get(item_id)
        return None if found is None or found in self._removed or found in self.blocked else found

    def of(self, dense: int) -> dict[str, Any]:
        """All that is known of an item, column -> JSON value; what is missing is left out."""
        if dense in self._said:
            return dict(self._said[dense])
        return {} if dense >= len(self._trained) else self._from_catalogue(dense)

    def title(self, dense: int) -> str:
        """The item's title, or its id where it has none."""
        return self.titles[dense]

    def merged(self, item: Item) -> dict[str, Any]:
        """The columns that an item has once something was said of it by day."""
        trained = self._trained.get(item.item_id)
        before = {} if item.whole or trained is None else self._from_catalogue(trained)
        return {name: value for name, value in {**before, **item.columns}.items() if value is not None}

    def put(self, dense: int, item_id: str, columns: Mapping[str, Any]) -> None:
        """Take what is said of an item.

        Args:
            dense: its dense id: one that is there, or the next.
        """
        if dense == len(self.ids):
            self.ids.append(item_id)
            self._index[item_id] = dense
            self._marks.append(mark_of(item_id))
        self._said[dense] = columns
        self._removed.discard(dense)
        self._terms.clear()
        self._numbers.clear()
        if self._titles is not None:
            title = None if self.title_column is None else columns.get(self.title_column)
            self._titles[dense : dense + 1] = [item_id if missing(title) else str(title)]

    def remove(self, item_id: str) -> None:
        """Offer an item no more."""
        if (dense := self._index.get(item_id)) is not None:
            self._removed.add(dense)

    def page(self, words: str, after: int, limit: int) -> tuple[list[int], int | None]:
        """Items whose title or id holds some words, in the catalogue's order, and where the next page begins.

        Args:
            words: each must be there, in any case; empty: all items.
            after: the first dense id that counts.
            limit: most items.
        """
        wanted = words.casefold().split()
        titles, found = self.titles, list[int]()
        for dense in range(after, len(self.ids)):
            text = f"{titles[dense]} {self.ids[dense]}".casefold() if wanted else ""
            if dense not in self._removed and dense not in self.blocked and all(word in text for word in wanted):
                if len(found) == limit:
                    return found, dense
                found.append(dense)
        return found, None

    def has(self, column: str) -> bool:
        """Whether some item has such a column."""
        return column in self.columns or any(column in said for said in self._said.values())

    def values(self, dense: int, column: str) -> list[Any]:
        """What an item has in a column, as values are compared; a cell of tags holds several, a missing one none."""
        if dense in self._said:
            cell = self._said[dense].get(column)
        else:
            cell = self._catalogue[column][dense] if column in self.columns and dense < len(self._trained) else None
        return self._split(column, cell)

    def having(self, column: str, values: Sequence[Any]) -> Mask:
        """Items that have one of some values in a column, bool [items].

        Raises:
            KeyError: no item has such a column.
        """
        terms, mask = self._terms_of(column), np.zeros(len(self.ids), dtype=np.bool_)
        for value in values:
            if (places := terms.get(_term(value))) is not None:
                mask[places] = True
        return mask

    def between(self, column: str, least: float | None, most: float | None) -> Mask:
        """Items whose number in a column lies in a range, ends included, bool [items]; those without a number do not.

        Raises:
            KeyError: no item has such a column.
        """
        if column not in self._numbers:
            self._numbers[column] = np.array([_number(value) for value in self._cells(column)], dtype=np.float64)
        numbers = self._numbers[column]
        return (numbers >= (-math.inf if least is None else least)) & (numbers <= (math.inf if most is None else most))

    def _from_catalogue(self, dense: int) -> dict[str, Any]:
        cells = {name: self._catalogue[name][dense] for name in self.columns}
        return {name: _plain(value) for name, value in cells.items() if not missing(value)}

    def _cells(self, column: str) -> Iterator[Any]:
        """A column's value of each item; None where it is missing."""
        if not self.has(column):
            raise KeyError(column)
        trained = self._catalogue[column] if column in self.columns else None
        for dense in range(len(self.ids)):
            if dense in self._said:
                yield self._said[dense].get(column)
            else:
                yield None if trained is None or dense >= len(self._trained) else trained[dense]

    def _terms_of(self, column: str) -> dict[Any, NDArray[np.int64]]:
        """Value -> the items that have it; a cell of tags has several."""
        if column not in self._terms:
            places: dict[Any, list[int]] = {}
            for dense, cell in enumerate(self._cells(column)):
                for term in self._split(column, cell):
                    places.setdefault(term, []).append(dense)
            self._terms[column] = {value: np.array(found) for value, found in places.items()}
        return self._terms[column]

    def _split(self, column: str, cell: Any) -> list[Any]:
        """The values of a cell, as they are compared."""
        if missing(cell):
            return []
        tags = self._kinds.get(column) == "tags" and isinstance(cell, str)
        return [_term(value) for value in (cell if isinstance(cell, list) else cell.split(self._separator) if tags else [cell])]

    @property
    def titles(self) -> Sequence[str]:
        """Of each item."""
        if self._titles is None:
            cells = [None] * len(self.ids) if self.title_column is None else list(self._cells(self.title_column))
            self._titles = [self.ids[dense] if missing(cell) else str(cell) for dense, cell in enumerate(cells)]
        return self._titles


def mark_of(item_id: str) -> int:
    """Four bytes that stand for an id in tokens (CRC-32)."""
    return zlib.crc32(item_id.encode())


def _plain(value: Any) -> Any:
    """A cell as JSON has it."""
    return value.item() if isinstance(value, np.generic) else value


def _term(value: Any) -> Any:
    """What values are compared by: text without blanks around it, and whole numbers however they are written."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float | np.number) else str(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or missing(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
