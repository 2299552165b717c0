"""The row rules of a table on disk, judged a block of rows at a time. What they find is what they would find in the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expectations.by_value import Count, judges_alone
from expectations.engine import Asked, Engine, Fingerprint, columns_of, gx
from expectations.rules import RowRule
from nightloom.data.tables.blocks import StoredTable, Texts, in_blocks
from nightloom.data.tables.coded import is_coded, spelt_column

FIRST = 1000
"""Rows that break a rule among which examples are looked for."""

Rows = NDArray[np.bool_]


class ByBlock:
    """Row rules on the blocks of a table.

    A rule that judges each value, or each row, by itself is asked of one block after the other, and of text only what is new in it. Any
    other is asked of all rows at once, before the first block.

    Args:
        engine: judges.
        name: of the suite.
        table: on disk.
        rules: its row rules.
    """

    def __init__(self, engine: Engine, name: str, table: StoredTable, rules: Sequence[RowRule]) -> None:
        self._engine, self._table, self._rules = engine, table, rules
        self._asked = engine.ask(gx.ExpectationSuite(name=name, expectations=[rule.expected() for rule in rules]))
        self._expected: list[Any] = list(self._asked.suite.expectations)
        self._counts = {one.id: Count() for one in self._expected}
        self._whole: dict[str, Rows] = {}
        self._results: dict[str, Any] = {}
        self._first: dict[str, list[pd.Series]] = {one.id: [] for one in self._expected}
        self._print = Fingerprint()
        of_text: dict[str, list[Any]] = {}
        self._numbers: list[Any] = []
        for rule, one in zip(rules, self._expected, strict=True):
            if rule.breaks:
                of_flag = pd.DataFrame({rule.flag: [False, True]})
                self._results |= self._asked.of(of_flag, [one], "SUMMARY")
                if not rule.alone:
                    self._whole[one.id] = rule.broken(table.whole(list(rule.reads) or None))
            elif not (judges_alone(one) and one.configuration.kwargs.get("mostly", 1) == 1 and one.column in table):
                self._ask_whole(one)
            elif is_coded(table.no_rows[one.column]):
                of_text.setdefault(one.column, []).append(one)
            else:
                self._numbers.append(one)
        self._texts = [_Text(self._asked, column, those) for column, those in of_text.items()]

    def _ask_whole(self, one: Any) -> None:
        named = columns_of(one)
        frame = self._table.whole(named if named and set(named) <= set(self._table) else None)
        self._results |= self._asked.of(frame, [one], "SUMMARY")
        none = np.zeros(len(frame), dtype=bool)
        self._whole[one.id] = none if self._results[one.id].success else self._asked.failing(frame, [one])[one.id]

    def blocks(self) -> Iterator[tuple[pd.DataFrame, list[Rows]]]:
        """Each block, with the rows of it that break each rule."""
        first = 0
        for block in in_blocks(self._table):
            bad: dict[str, Rows] = {}
            for text in self._texts:
                bad |= text.failing(block[text.column])
            if self._numbers:
                columns = list(dict.fromkeys(one.column for one in self._numbers))
                bad |= self._asked.failing(block[columns], self._numbers)
                self._results = self._asked.found() | self._results
            for rule, one in zip(self._rules, self._expected, strict=True):
                if one.id in self._whole:
                    bad[one.id] = self._whole[one.id][first : first + len(block)]
                elif rule.breaks:
                    bad[one.id] = rule.broken(block)
            pairs = list(zip(self._rules, self._expected, strict=True))
            marked = block.assign(**{rule.flag: ~bad[one.id] for rule, one in pairs if rule.breaks})
            for rule, one in pairs:
                if rule.breaks or one.id not in self._whole:
                    self._counts[one.id].add(marked[one.column], bad[one.id])
                if (room := FIRST - sum(map(len, self._first[one.id]))) > 0 and bad[one.id].any():
                    self._first[one.id].append(spelt_column(block[rule.column][bad[one.id]].head(room)))
            self._print.add(marked)
            first += len(block)
            yield block, [bad[one.id] for one in self._expected]

    def results(self) -> list[Any]:
        """The results of the rules' expectations on all rows, in their order; there must be no further block."""
        for text in self._texts:
            self._results |= text.results
        if not self._expected:
            return []
        for rule, one in zip(self._rules, self._expected, strict=True):
            if rule.breaks or one.id not in self._whole:
                self._counts[one.id].put(self._results[one.id], one)
        whole = [self._results[one.id] for one in self._expected]
        self._engine.keep(self._asked, whole, str(self._print))
        return whole

    def examples(self, place: int) -> pd.Series:
        """Values of the column that a rule is about, in the first rows that break it."""
        return pd.concat(self._first[self._expected[place].id])


class _Text:
    """Rules on a column of text, asked once of each distinct value.

    Args:
        asked: the suite.
        column: name of the column.
        expectations: those of the suite on it.
    """

    def __init__(self, asked: Asked, column: str, expectations: list[Any]) -> None:
        self.column, self.results = column, dict[str, Any]()
        self._asked, self._expectations = asked, expectations
        self._known = Texts()
        self._bad = {one.id: np.zeros(1, dtype=bool) for one in expectations}  # by number; that of a missing value is the last
        self._missing = False

    def failing(self, column: pd.Series) -> dict[str, Rows]:
        """The rows of a block that fail, by the expectation's id."""
        before = len(self._known)
        numbers = self._known.numbers(column)
        new, missing = self._known.values[before:].to_pandas().astype("str"), not self._missing and bool((numbers < 0).any())
        if len(new) or missing or not self.results:
            values = new.reindex(range(len(new) + missing))
            for one, bad in self._asked.failing(values.to_frame(self.column), self._expectations).items():
                said = self._bad[one]
                self._bad[one] = np.concatenate([said[:-1], bad[: len(new)], bad[len(new) :] if missing else said[-1:]])
            self.results = self._asked.found() | self.results
            self._missing |= missing
        return {one: bad[numbers] for one, bad in self._bad.items()}
