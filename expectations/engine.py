"""Great Expectations: judge a table by a suite, column by column; find the rows that failed; render Data Docs."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by great_expectations when it is imported

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier, ValidationResultIdentifier
from great_expectations.execution_engine.pandas_execution_engine import hash_pandas_dataframe
from great_expectations.expectations.metadata_types import FailureSeverity

from expectations.by_value import Distinct, judges_alone, measured_as

# Some of its modules send all warnings of the process to a logger that nobody reads, when they are imported.
logging.captureWarnings(False)

__all__ = ["Asked", "Engine", "FailureSeverity", "Fingerprint", "Known", "columns_of", "gx", "gxe"]

SITE = "data_docs"
PLACES = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "return_unexpected_index_query": False}
"""A result that lists the index of every failing row, and neither its values nor a query: an int a row at most."""

COLUMN_KEYS = ("column", "column_A", "column_B")
"""How an expectation names the columns that it reads, besides `column_list`."""

ROWS_COUNT = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}

HASHED_ROWS = 1 << 20

TABLES = ("partial_unexpected_list", "partial_unexpected_counts")
"""What Data Docs show of a result as a table of values."""


class Engine:
    """One ephemeral Great Expectations context, whose results become the Data Docs of one run.

    Args:
        docs: folder for the Data Docs.
    """

    def __init__(self, docs: Path) -> None:
        logging.getLogger("great_expectations").setLevel(logging.ERROR)

        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}
        self._source = self._context.data_sources.add_pandas("nightloom")
        self._context.add_data_docs_site(
            site_name=SITE,
            site_config={
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
            },
        )

    def validate(self, frame: pd.DataFrame, suite: gx.ExpectationSuite, known: Known | None = None) -> list[Any]:
        """Judge a table by one suite, each column by itself, since every condition copies the frame that it gets.

        Args:
            frame: the table, or what gives its columns as a frame does.
            suite: its name must be new to this engine; Data Docs show it.
            known: what is known of the table, so that no column needs be read for it.

        Returns:
            The results of the suite's expectations, in their order (SUMMARY: counts and a few examples).
        """
        if not suite.expectations:
            return []
        asked = self.ask(suite)
        by_id: dict[str, Any] = {}
        wanted = asked.suite.expectations
        if known:
            by_id = {one.id: found for one in wanted if (found := known.result(asked, one)) is not None}
            wanted = [one for one in wanted if one.id not in by_id]
        for part, distinct, expectations in _parts(frame, wanted):
            results = asked.of(part, expectations, PLACES if distinct else "SUMMARY")
            by_id |= {one.id: distinct.counted(results[one.id], one) for one in expectations} if distinct else results
        whole = [by_id[expectation.id] for expectation in asked.suite.expectations]
        self.keep(asked, whole, known.fingerprint if known else _fingerprint(frame))
        return whole

    def ask(self, suite: gx.ExpectationSuite) -> Asked:
        """Take a suite, whose name must be new to this engine, to ask its expectations of some frames."""
        suite = self._context.suites.add(suite)  # gives each expectation an id of its own
        return Asked(suite, self._source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole"))

    def keep(self, asked: Asked, results: list[Any], fingerprint: str) -> None:
        """Store the results of a suite's expectations as those of one run over the whole table, for the Data Docs."""
        part, name = asked.last, asked.suite.name
        run, passed = RunIdentifier(run_time=datetime.now(UTC)), sum(bool(result.success) for result in results)
        markers = {**part.meta["batch_markers"], "pandas_data_fingerprint": fingerprint}
        said = {"run_id": run, "validation_time": run.run_time, "batch_parameters": {"dataframe": "<DATAFRAME>"}, "batch_markers": markers}
        whole = ExpectationSuiteValidationResult(
            success=passed == len(results),
            results=results,
            suite_name=name,
            statistics={
                "evaluated_expectations": len(results),
                "successful_expectations": passed,
                "unsuccessful_expectations": len(results) - passed,
                "success_percent": passed / len(results) * 100,
            },
            meta={**part.meta, **said},
            batch_id=part.batch_id,
        )
        suite = ExpectationSuiteIdentifier(name=name)
        key = ValidationResultIdentifier(expectation_suite_identifier=suite, run_id=run, batch_identifier=part.batch_id)
        self._context.validation_results_store.set(key, whole)

    def failing(self, frame: pd.DataFrame, expectations: list[Any]) -> list[NDArray[np.bool_]]:
        """The rows that fail each row expectation; a row without a value fails the not-null rule alone.

        This second question is put to the batch itself, so that lists of a million rows never reach Data Docs.

        Args:
            frame: the table, with a unique index.
            expectations: column map expectations of a suite that `validate` found broken on it.

        Returns:
            bool [rows] each, in the order of the expectations.

        Raises:
            RuntimeError: Great Expectations could not judge one, for example since its column is not there.
        """
        if not expectations:
            return []
        suite = gx.ExpectationSuite(name=f"rows of {expectations[0].id}", expectations=[copy(one) for one in expectations])
        asked = self.ask(suite)
        rows: dict[str, NDArray[np.bool_]] = {}
        for part, distinct, those in _parts(frame, asked.suite.expectations):
            found = asked.failing(part, those)
            rows |= {one: distinct.rows(bad) for one, bad in found.items()} if distinct else found
        return [rows[expectation.id] for expectation in asked.suite.expectations]

    def write_docs(self) -> None:
        """Render all results so far; the first page is index.html.

        Great Expectations escapes what it puts into sentences, but not the values in its tables of what was unexpected.
        """
        store = self._context.validation_results_store
        for key in store.list_keys():
            results = store.get(key)
            for found in results.results:
                found.result |= {name: _escaped(found.result[name]) for name in TABLES if name in found.result}
            store.set(key, results)
        self._context.build_data_docs(site_names=[SITE])


class Asked:
    """A suite whose expectations are asked of frames.

    Args:
        suite: the suite.
        batches: gives a frame to Great Expectations.

    Attributes:
        last: what was found the last time.
    """

    def __init__(self, suite: gx.ExpectationSuite, batches: Any) -> None:
        self.suite, self._batches = suite, batches
        self.last: Any = None

    def of(self, frame: pd.DataFrame, expectations: list[Any], form: Any) -> dict[str, Any]:
        """The results of some of the suite's expectations on a frame, by id; `form` is the result format."""
        batch = self._batches.get_batch(batch_parameters={"dataframe": frame})
        self.last = batch.validate(_part_of(self.suite, expectations), result_format=form)
        return self.found()

    def found(self) -> dict[str, Any]:
        """The results of the last time, by id."""
        return {result.expectation_config.id: result for result in self.last.results}

    def failing(self, frame: pd.DataFrame, expectations: list[Any]) -> dict[str, NDArray[np.bool_]]:
        """The rows of a frame that fail some of the suite's expectations, bool [rows], by id.

        Raises:
            RuntimeError: Great Expectations could not judge one.
        """
        rows = {}
        for one, result in self.of(frame, expectations, PLACES).items():
            if "element_count" not in result.result:
                raise RuntimeError(f"Great Expectations could not judge {result.expectation_config.type}: {result.exception_info}")
            rows[one] = frame.index.isin(result.result.get("unexpected_index_list") or [])
        return rows


@dataclass(frozen=True)
class Known:
    """What is known of a table that is not in memory.

    Attributes:
        rows: of the table.
        values: type of an expectation on an aggregate, and column -> the aggregate, as a column of one row; of none without any rows.
        fingerprint: of the table, see `Fingerprint`.
    """

    rows: int
    values: Mapping[tuple[str, str], pd.Series]
    fingerprint: str

    def result(self, asked: Asked, expectation: Any) -> Any:
        """The result of an expectation for which this is enough; else None."""
        if expectation.configuration.kwargs.get("row_condition"):
            return None  # these are aggregates of all rows
        kind, column = expectation.expectation_type, getattr(expectation, "column", "")
        if kind in ROWS_COUNT:
            result = asked.of(pd.DataFrame({"": []}), [expectation], "SUMMARY")[expectation.id]
            return measured_as({"table.row_count": self.rows}, result, expectation)
        value = self.values.get((kind, column))
        return None if value is None else asked.of(value.to_frame(column), [expectation], "SUMMARY")[expectation.id]


def _parts(frame: pd.DataFrame, expectations: list[Any]) -> Iterator[tuple[pd.DataFrame, Distinct | None, list[Any]]]:
    """The expectations by what they are judged on: the distinct values of a column, a few columns, or all of the table.

    An expectation that names no column, or one that is not there, is asked of the whole table, and of one column where rows alone count.
    """
    parts: dict[tuple[str, ...], list[Any]] = {}
    for one in expectations:
        columns = tuple(map(str, frame.columns[:1] if one.expectation_type in ROWS_COUNT else columns_of(one)))
        parts.setdefault(columns if columns and set(columns) <= set(frame) else tuple(map(str, frame)), []).append(one)
    for columns, those in parts.items():
        alone = [one for one in those if judges_alone(one)]
        distinct = Distinct.of(frame[columns[0]]) if alone and len(columns) == 1 else None
        if distinct:
            yield distinct.values, distinct, alone
        if rest := [one for one in those if not distinct or one not in alone]:
            yield frame[list(columns)], None, rest


def columns_of(expectation: Any) -> list[str]:
    """The columns that an expectation names."""
    said = expectation.configuration.kwargs
    named = [said[key] for key in COLUMN_KEYS if said.get(key) is not None] + list(said.get("column_list") or ())
    return list(dict.fromkeys(map(str, named)))


def _part_of(suite: gx.ExpectationSuite, expectations: list[Any]) -> gx.ExpectationSuite:
    """Some of a suite's expectations as a suite of that name; their results have the ids that they have in the whole."""
    part = gx.ExpectationSuite(name=suite.name, expectations=[copy(one) for one in expectations])
    for mine, whole in zip(part.expectations, expectations, strict=True):
        mine.id = whole.id
    return part


class Fingerprint:
    """What Great Expectations calls the fingerprint of a table, of rows that come some at a time: sums of each row's hash.

    Attributes:
        sums: so far; what is added to them gives the fingerprint of all rows.
    """

    def __init__(self) -> None:
        self.sums: tuple[int, ...] = (0, 0)

    def add(self, rows: pd.DataFrame) -> None:
        """More rows; the index is that of the whole table."""
        hashes = pd.util.hash_pandas_object(rows, index=True).to_numpy()
        more = (hashes.sum(dtype=np.uint64), (hashes * (hashes >> np.uint64(7) | np.uint64(1))).sum(dtype=np.uint64))
        self.sums = tuple((one + int(other)) % 2**64 for one, other in zip(self.sums, more, strict=True))

    def __str__(self) -> str:
        return "".join(f"{one:016x}" for one in self.sums)


def _fingerprint(frame: pd.DataFrame) -> str:
    """The fingerprint of a table in memory."""
    if any(column.dtype == object for _, column in frame.items()):
        return str(hash_pandas_dataframe(frame))
    digest = Fingerprint()
    for first in range(0, len(frame), HASHED_ROWS):
        digest.add(frame.iloc[first : first + HASHED_ROWS])
    return str(digest)


def _escaped(value: Any) -> Any:
    """Text as HTML shows it, also in lists and mappings."""
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {name: _escaped(one) for name, one in value.items()}
    return html.escape(value, quote=False) if isinstance(value, str) else value
