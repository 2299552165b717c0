"""Great Expectations, and nothing of ours: run a suite on a frame, find the rows that failed, render Data Docs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by great_expectations when it is imported

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.validator.metric_configuration import MetricConfiguration

__all__ = ["Engine", "FailureSeverity", "gx", "gxe"]

SITE = "data_docs"


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
        """Results of a suite's expectations, in their order (SUMMARY: counts and a few examples)."""
        if not suite.expectations:
            return []
        batch = self._source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
        suite = self._context.suites.add(suite)
        definition = self._context.validation_definitions.add(gx.ValidationDefinition(name=suite.name, data=batch, suite=suite))
        results = definition.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY").results
        by_id = {result.expectation_config.id: result for result in results}
        return [by_id[expectation.id] for expectation in suite.expectations]

    def failing(self, frame: pd.DataFrame, expectation: Any) -> NDArray[np.bool_]:
        """The rows that fail a row expectation: bool [rows].

        This is the condition that Great Expectations itself counts, asked for as a metric: a COMPLETE result would hold
        a Python object for every bad row.
        """
        name = f"rows of {expectation.id}"
        definition = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        wanted = expectation.get_validation_dependencies(runtime_configuration={"result_format": {"result_format": "BASIC"}})
        count = wanted.metric_configurations[f"{expectation.map_metric}.unexpected_count"]
        domain = {**count.metric_domain_kwargs, "batch_id": batch.id}
        metric = MetricConfiguration(f"{expectation.map_metric}.condition", domain, count.metric_value_kwargs)
        condition = self._context.get_validator(batch_list=[batch]).get_metric(metric)[0]
        # Rows without a value are not in the condition: only the not-null rule is about them.
        return condition.reindex(frame.index, fill_value=False).to_numpy(dtype=bool)

    def write_docs(self) -> None:
        """Render all results so far; the first page is index.html."""
        self._context.build_data_docs(site_names=[SITE])
