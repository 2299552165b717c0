"""What kind each described item column is, as said or as inferred from its values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.core.yaml_words import scalar
from nightloom.data.tables.convert import to_numbers, to_text
from nightloom.data.tables.pictures import holds_bytes
from nightloom.data.tables.schema import OWN

TAGS_SHARE = 0.1
"""A column is tags when at least this share of its values holds the separator and values recur."""
PATTERN_SHARE = 0.9
"""A column is left out when this share of its values looks like an address, a path, a picture or a date."""
NOT_WORDS = r"^(?:[a-z]+://|www\.|\.{0,2}/\S|[A-Za-z]:\\)\S*$|^\S+\.(?:jpe?g|png|gif|webp|svg)$|^\d{4}-\d\d-\d\d(?:[T ][\d:.+Z-]*)?$"
LEADING_ZERO = r"^[+-]?0\d"


def is_number(column: pd.Series) -> bool:
    """Whether all known values are finite numbers, and not codes such as 007 or a column of pandas' type category."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return False
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return False
    numbers, bad = to_numbers(column)
    if bad.any() or numbers.isna().all():
        return False
    return pd.api.types.is_numeric_dtype(column.dtype) or not to_text(column).str.match(LEADING_ZERO).fillna(False).any()


def item_kinds(items: pd.DataFrame, said: Mapping[str, str], tags_separator: str) -> dict[str, str]:
    """Kind of each described column; `ignore` is among them.

    Args:
        items: raw columns under their canonical names.
        said: `data.features` of the config.
        tags_separator: what separates the values of tags.

    Raises:
        InputError: `said` names a column that is not there.
    """
    columns = [str(column) for column in items if column != "item_id"]
    for column in said:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(columns) or 'none'}."
            raise InputError(f"data.features: items have no column '{column}'; {hint}")
    return {column: said.get(column) or infer(items[column], tags_separator) for column in columns}


def context_kinds(events: pd.DataFrame, said: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Kind of each context column of the events, category or number, and what is worth saying of it.

    Whole numbers are most often codes, as of a channel or an app: they are categories unless `said`.

    Raises:
        InputError: `said` gives a context column a kind that only items can have.
    """
    kinds: dict[str, str] = {}
    codes: list[str] = []
    for column in (str(column) for column in events if str(column) not in OWN["events"]):
        wanted = said.get(column)
        if wanted in ("category", "number"):
            kinds[column] = wanted
        elif is_number(events[column]):
            numbers = to_numbers(events[column])[0].dropna()
            kinds[column] = "category" if (numbers % 1 == 0).all() else "number"
            codes += [column] if kinds[column] == "category" else []
    if not codes:
        return kinds, []
    return kinds, [
        f"events: {', '.join(codes)}: whole numbers, taken as codes (categories). "
        f"Where they are quantities, say data.features: {{{scalar(codes[0])}: number}}"
    ]


def infer(column: pd.Series, tags_separator: str = "|") -> str:
    """text, category, tags, number or ignore, by the values of a column. An image column must be said: paths may lead anywhere."""
    if holds_bytes(column):
        return "ignore"
    if is_number(column):
        return "number"
    known = to_text(column, tags_separator).dropna()
    if known.empty or known.str.match(NOT_WORDS, case=False).mean() >= PATTERN_SHARE:
        return "ignore"
    if known.str.contains(tags_separator, regex=False).mean() >= TAGS_SHARE:
        tags = known.str.split(tags_separator).explode().str.strip()
        if tags.nunique() <= len(tags) / 2:
            return "tags"
    few = max(30, int(0.02 * len(column)))
    return "category" if known.nunique() <= min(few, len(known) / 2) else "text"
