"""Great Expectations by its public interface: run a checkpoint on a table, find the rows that failed, render Data Docs."""

from __future__ import annotations

import html
import logging
import os
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by great_expectations when it is imported

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.expectations.metadata_types import FailureSeverity

# Some of its modules send all warnings of the process to a logger that nobody reads, when they are imported.
logging.captureWarnings(False)

__all__ = ["Engine", "FailureSeverity", "gx", "gxe"]

SITE = "data_docs"
PLACES = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "return_unexpected_index_query": False}
"""A result that lists the index of every failing row, and neither its values nor a query: an int a row at most."""

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

    def validate(self, frame: pd.DataFrame, suite: gx.ExpectationSuite) -> list[Any]:
        """Run a checkpoint of one suite on a table.

        Args:
            frame: the table.
            suite: its name must be new to this engine; Data Docs show it.

        Returns:
            The results of the suite's expectations, in their order (SUMMARY: counts and a few examples).
        """
        if not suite.expectations:
            return []
        batch = self._source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
        suite = self._context.suites.add(suite)
        definition = gx.ValidationDefinition(name=suite.name, data=batch, suite=suite)
        definition = self._context.validation_definitions.add(definition)
        checkpoint = gx.Checkpoint(name=suite.name, validation_definitions=[definition], result_format="SUMMARY")
        checkpoint = self._context.checkpoints.add(checkpoint)
        (found,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
        by_id = {result.expectation_config.id: result for result in found.results}
        return [by_id[expectation.id] for expectation in suite.expectations]

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
        suite = self._context.suites.add(suite)  # gives each copy an id of its own
        batch = self._source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
        results = batch.get_batch(batch_parameters={"dataframe": frame}).validate(suite, result_format=PLACES).results
        for result in results:
            if "element_count" not in result.result:
                raise RuntimeError(f"Great Expectations could not judge {result.expectation_config.type}: {result.exception_info}")
        places = {result.expectation_config.id: result.result.get("unexpected_index_list") or [] for result in results}
        return [frame.index.isin(places[expectation.id]) for expectation in suite.expectations]

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


def _escaped(value: Any) -> Any:
    """Text as HTML shows it, also in lists and mappings."""
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {name: _escaped(one) for name, one in value.items()}
    return html.escape(value, quote=False) if isinstance(value, str) else value
