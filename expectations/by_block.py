"""The row rules of a table on disk, judged a block of rows at a time. What they find is what they would find in the whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from expectations.by_value import Count, judges_alone
from expectations.engine import Asked, Engine, Fingerprint, columns_of, gx
from expectations.kept_checks import Border, has_border, limits_of
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
        self._failed = {one.id: 0 for one in self._expected}
        self._print = Fingerprint()
        self._borders: dict[str, Border] = {}
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
                if has_border(one):
                    self._borders[one.id] = Border()
        self._texts = [_Text(self._asked, column, those) for column, those in of_text.items()]

    def _ask_whole(self, one: Any) -> None:
        named = columns_of(one)
        frame = self._table.whole(named if named and set(named) <= set(self._table) else None)
        self._results |= self._asked.of(frame, [one], "SUMMARY")
        none = np.zeros(len(frame), dtype=bool)
        self._whole[one.id] = none if self._results[one.id].success else self._asked.failing(frame, [one])[one.id]

    def blocks(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[pd.DataFrame, list[Rows]]]:
        """Each block of some parts, with the rows of it that break each rule."""
        for block in in_blocks(self._table, begin, end):
            first = int(block.index[0]) if len(block) else 0
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
            for one in self._expected:
                self._failed[one.id] += int(np.count_nonzero(bad[one.id]))
                if one.id in self._borders:
                    self._borders[one.id].add(block[one.column], bad[one.id], limits_of(one)[0])
            self._print.add(marked)
            yield block, [bad[one.id] for one in self._expected]

    def keeps(self, rules: Sequence[RowRule]) -> bool:
        """Whether what was found in a part holds good without the part: each rule judges a row, or a value, by itself."""
        columns = {text.column for text in self._texts}
        of_values = [rule for rule in rules if rule.breaks and rule.alone and len(rule.reads) == 1 and rule.reads[0] in columns]
        plain = [rule for rule in rules if rule.breaks and rule.alone and _is_plain(rule.breaks)]
        return not self._whole and all(rule in of_values or rule in plain for rule in rules if rule.breaks)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write what was found so far as files of a folder, and give the rest as JSON values."""
        said: list[dict[str, Any]] = []
        for place, (rule, one) in enumerate(zip(self._rules, self._expected, strict=True)):
            count, first = self._counts[one.id], self._first[one.id]
            kept = {"rows": count.rows, "missing": count.missing, "bad": count.bad, "places": count.places}
            said.append(kept | ({"border": self._borders[one.id].said()} if one.id in self._borders else {}))
            values = pd.Series(count.values, dtype=bool if rule.breaks else spelt_column(self._table.no_rows[one.column]).dtype)
            values.to_frame("value").to_parquet(folder / f"values_{place}.parquet")
            head = spelt_column(self._table.no_rows[rule.column])
            pd.concat([head, *first]).to_frame("value").to_parquet(folder / f"first_{place}.parquet")
        texts = {text.column: text.write(folder / f"text_{number}.parquet") for number, text in enumerate(self._texts)}
        for number, text in enumerate(self._texts):
            for place in self._on_values(text.column):
                np.save(folder / f"broken_{number}_{place}.npy", self._rules[place].broken(text.values()))
        return {"rules": said, "texts": texts, "fingerprint": list(self._print.sums)}

    def _on_values(self, column: str) -> list[int]:
        """The places of rules that are asked of each distinct value of a column, and may look at other tables."""
        return [place for place, rule in enumerate(self._rules) if rule.breaks and rule.alone and rule.reads == (column,)]

    def begin(self, folder: Path, said: Mapping[str, Any]) -> bool:
        """Begin with what `write` wrote; False where a rule says something else by now, and nothing was taken."""
        borders = {}
        for one, kept in zip(self._expected, said["rules"], strict=True):
            if one.id in self._borders:
                borders[one.id] = Border.of(kept["border"])
                if not borders[one.id].holds(*limits_of(one)):
                    return False
        texts = [text.read(folder / f"text_{number}.parquet", said["texts"][text.column]) for number, text in enumerate(self._texts)]
        for number, text in enumerate(texts):
            for place in self._on_values(text.column):
                before = np.load(folder / f"broken_{number}_{place}.npy", allow_pickle=False)
                if not np.array_equal(before, self._rules[place].broken(text.values())):
                    return False
        self._texts, self._borders = texts, borders
        self._print.sums = tuple(said["fingerprint"])
        for place, (one, kept) in enumerate(zip(self._expected, said["rules"], strict=True)):
            values = list(pd.read_parquet(folder / f"values_{place}.parquet")["value"])
            self._failed[one.id] = kept["bad"]
            self._counts[one.id] = Count(kept["rows"], kept["missing"], kept["bad"], values, kept["places"])
            first = pd.read_parquet(folder / f"first_{place}.parquet")["value"].rename(self._rules[place].column)
            self._first[one.id] = [first] if len(first) else []
        return True

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

    def bad(self, place: int) -> int:
        """Rows that break a rule."""
        return self._failed[self._expected[place].id]

    def examples(self, place: int) -> pd.Series:
        """Values of the column that a rule is about, in the first rows that break it."""
        return pd.concat(self._first[self._expected[place].id])


def _is_plain(breaks: Callable[..., Any]) -> bool:
    """Whether what a function says depends on its code and its argument alone: it holds on to no value that may be another tomorrow."""
    return isinstance(breaks, FunctionType) and not (breaks.__closure__ or breaks.__defaults__ or breaks.__kwdefaults__)


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

    def values(self) -> pd.DataFrame:
        """The distinct values so far as a table of one column, a missing one last."""
        values = self._known.values.to_pandas().astype("str")
        return values.reindex(range(len(values) + 1)).to_frame(self.column)

    def write(self, path: Path) -> bool:
        """Write the values, and whether each fails; whether a value was missing."""
        self.values().assign(**{str(place): bad for place, bad in enumerate(self._bad.values())}).to_parquet(path)
        return self._missing

    def read(self, path: Path, missing: bool) -> _Text:
        """The same rules, with what `write` wrote."""
        table = pq.read_table(path)
        text = _Text(self._asked, self.column, self._expectations)
        text._known = Texts.of(table[self.column].slice(0, len(table) - 1).combine_chunks().cast(pa.large_string()))
        text._bad = {one.id: table[str(place)].to_numpy() for place, one in enumerate(self._expectations)}
        text._missing = missing
        return text

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
