"""Two runs side by side."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, plain, registry
from nightloom.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from nightloom.promotion.compare import Origin

RUN_ID = re.compile(r"[0-9a-f]{32}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="MLflow run id, a night's folder, NAME (its last night), or NAME/NIGHT.")],
    b: Annotated[str, typer.Argument(help="The run to compare with: same forms.")],
    family: Annotated[str | None, typer.Option(help="Family of both runs. Default: that of the MLflow run, else the model.")] = None,
    family_b: Annotated[str | None, typer.Option(help="Family of the second run, where it is another.")] = None,
    protocol: Annotated[str | None, typer.Option(help="streaming, temporal, random or leave_one_out. Default: the first of run A.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence of the intervals.")] = 0.95,
    other_data: Annotated[bool, typer.Option("--other-data", help="Compare runs of different data too, on what both have.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Paired statistics of two runs on the held-out users of both: A less B, with intervals, and what differs in their configs."""
    from nightloom.evaluation.statistics import compare as statistics
    from nightloom.promotion.compare import check_same_data, config_differences

    (rows_a, family_a, made_a), (rows_b, other, made_b) = _results(a, root), _results(b, root)
    if not other_data:
        check_same_data(made_a, made_b, (a, b))
    protocol = protocol or str(rows_a["protocol"].iloc[0])
    family_a, other = family or family_a, family_b or family or other
    found = statistics(
        _rows(rows_a, a, family_a, protocol), _rows(rows_b, b, other, protocol), confidence=confidence, resamples=made_a.resamples
    )
    table = Table("metric", title=f"{family_a} of {plain(a)} less {other} of {plain(b)} ({protocol})", title_justify="left")
    measured = ["users"] if (found["users"] == found["queries"]).all() else ["users", "events"]
    for heading in ("A", "B", "A - B", "relative", f"{confidence:.0%} interval", *measured):
        table.add_column(heading, justify="right")
    for metric, first, second, difference, low, high, users, queries in found.itertuples(index=False, name=None):
        style = "green" if low > 0 else "red" if high < 0 else None
        figures = [f"{first:.4f}", f"{second:.4f}", f"{difference:+.4f}", f"{difference / second:+.1%}" if second else "n/a"]
        counts = [f"{users:,}", f"{queries:,}"]
        said = f"{metric} (decides)" if metric == made_a.metric else metric
        table.add_row(said, *figures, f"{low:+.4f} to {high:+.4f}", *counts[: len(measured)], style=style)
    console().print(table)
    if differences := config_differences(made_a, made_b):
        keys = Table("key", "A", "B", title="What differs in their configs", title_justify="left")
        for row in differences:
            keys.add_row(*map(plain, row))
        console().print(keys)
    console().print("Intervals above zero: A is better. Below: B is. Across zero: these users can not tell.")


def _results(run: str, root: Path) -> tuple[pd.DataFrame, str, Origin]:
    """A run's per-user results, the family that it names (else the model), and what it was made from."""
    import pandas as pd

    from nightloom.models.sequential.recommender import SequentialRecommender
    from nightloom.promotion.compare import origin_of_night
    from nightloom.runs.nights import check_copy

    if RUN_ID.fullmatch(run):
        return _logged(run, root)
    places = [Path(run), root / "nights" / run / "latest", root / "nights" / run]
    for place in places:
        if (place / "per_user.parquet").is_file():
            check_copy(place, "evaluate", "per_user.parquet")
            return pd.read_parquet(place / "per_user.parquet"), SequentialRecommender.family, origin_of_night(place)
    looked = ", ".join(str(place / "per_user.parquet") for place in places)
    raise InputError(
        f"'{run}' is no MLflow run id, and no night was found at {looked}. Name a run id, a night's folder, NAME or NAME/NIGHT."
    )


def _logged(run: str, root: Path) -> tuple[pd.DataFrame, str, Origin]:
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from nightloom.models.sequential.recommender import SequentialRecommender
    from nightloom.promotion.compare import origin_of_run
    from nightloom.runs.tracking import FAMILY_TAG

    tracking = registry(root).tracking
    with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
        try:
            found = tracking.download(run, "per_user.parquet", Path(scratch))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise InputError(f"MLflow at {tracking.uri} has no run {run}. Name another, or set --root or NIGHTLOOM_MLFLOW_URI.") from error
        if found is None:
            raise InputError(f"run {run} has no per_user.parquet among its artifacts: its night did not get to the end.")
        family = tracking.client.get_run(run).data.tags.get(FAMILY_TAG, SequentialRecommender.family)
        return pd.read_parquet(found), family, origin_of_run(tracking, run)


def _rows(results: pd.DataFrame, run: str, family: str, protocol: str) -> pd.DataFrame:
    """The rows of one family and protocol."""
    rows = results[(results["family"] == family) & (results["protocol"] == protocol)]
    if rows.empty:
        there = sorted(set(zip(results["family"].astype(str), results["protocol"].astype(str), strict=True)))
        raise InputError(
            f"{run}: no results of family '{family}' under '{protocol}'. There are: {', '.join(' / '.join(pair) for pair in there)}"
        )
    return rows
