"""The command `nightloom`: look at data, compare runs, ask a model, see and move registered versions.

Heavy libraries are imported by the commands that need them, so that `nightloom --help` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nightloom.core.errors import InputError, NightloomError

if TYPE_CHECKING:
    import pandas as pd

    from nightloom.promotion.compare import Origin
    from nightloom.promotion.registry import Registry

app = typer.Typer(
    name="nightloom",
    help="Look at a recommender's data, runs and versions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Root = Annotated[Path, typer.Option("--root", help="The mlruns folder.", envvar="NIGHTLOOM_ROOT")]
MLRUNS = Path("mlruns")
RUN_ID = re.compile(r"[0-9a-f]{32}")


@app.command()
def data(
    preset: Annotated[str | None, typer.Option(help="A preset that ships with Nightloom.")] = None,
    config: Annotated[Path | None, typer.Option(help="Your own YAML.")] = None,
    root: Root = MLRUNS,
) -> None:
    """Read the tables of a config into a snapshot, and describe it."""
    from nightloom.config import load_config, load_preset
    from nightloom.data.collect import collect
    from nightloom.data.tables.snapshot import read_snapshot

    if (preset is None) == (config is None):
        raise InputError("name either --preset NAME or --config FILE.yaml.")
    settings = load_preset(preset) if preset is not None else load_config(config or "")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    snapshot = collect(settings.name, settings.data, root, lambda line: errors.print(line, style="dim", markup=False))
    console = _console()
    for name, frame in read_snapshot(snapshot.path).present().items():
        table = Table(
            "column", "type", "feature", "missing", "distinct", "example", title=f"{name}: {len(frame):,} rows", title_justify="left"
        )
        for column in frame.columns:
            values = frame[column]
            kind = snapshot.features.get(column, "") if name == "items" else ""
            known = values.dropna()
            example = str(known.iloc[0])[:40] if len(known) else ""
            table.add_row(column, str(values.dtype), kind, f"{int(values.isna().sum()):,}", f"{known.nunique():,}", _plain(example))
        console.print(table)
    for name, count in snapshot.rejected.items():
        console.print(f"{name}: {count:,} rows could not be read; they are in {snapshot.path / f'rejected_{name}.parquet'}", markup=False)
    if snapshot.licence:
        console.print(f"Licence: {snapshot.licence}", markup=False)
    console.print(f"Snapshot: {snapshot.path}", markup=False)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="MLflow run id, a night's folder, NAME (its last night), or NAME/NIGHT.")],
    b: Annotated[str, typer.Argument(help="The run to compare with: same forms.")],
    family: Annotated[str | None, typer.Option(help="Family of both runs. Default: that of the MLflow run, else the model.")] = None,
    family_b: Annotated[str | None, typer.Option(help="Family of the second run, where it is another.")] = None,
    protocol: Annotated[str | None, typer.Option(help="temporal or leave_one_out. Default: the first of run A.")] = None,
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
    found = statistics(_rows(rows_a, a, family_a, protocol), _rows(rows_b, b, other, protocol), confidence=confidence)
    table = Table("metric", title=f"{family_a} of {_plain(a)} less {other} of {_plain(b)} ({protocol})", title_justify="left")
    for heading in ("A", "B", "A - B", "relative", f"{confidence:.0%} interval", "users"):
        table.add_column(heading, justify="right")
    for metric, first, second, difference, low, high, users in found.itertuples(index=False, name=None):
        style = "green" if low > 0 else "red" if high < 0 else None
        figures = [f"{first:.4f}", f"{second:.4f}", f"{difference:+.4f}", f"{difference / second:+.1%}" if second else "n/a"]
        decides = metric == made_a.metric
        table.add_row(f"{metric} (decides)" if decides else metric, *figures, f"{low:+.4f} to {high:+.4f}", f"{users:,}", style=style)
    _console().print(table)
    if differences := config_differences(made_a, made_b):
        said = Table("key", "A", "B", title="What differs in their configs", title_justify="left")
        for row in differences:
            said.add_row(*map(_plain, row))
        _console().print(said)
    _console().print("Intervals above zero: A is better. Below: B is. Across zero: these users can not tell.")


@app.command()
def recommend(
    model: Annotated[str, typer.Argument(help="NAME (its champion) or a bundle's folder.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    item: Annotated[
        list[str] | None, typer.Option(help="One item id as it is, commas too. Say it again for the next, after --history.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    seen: Annotated[bool, typer.Option(help="Recommend items of the history too.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Recommend for a history of item ids."""
    from nightloom.core.queries import Query
    from nightloom.packaging.bundle import Bundle

    bundle = Bundle.load(_bundle(model, root))
    asked = [*(part.strip() for part in history.split(",") if part.strip()), *(item or [])]
    if unknown := [one for one in asked if one not in bundle.index]:
        comma = " Give ids that hold a comma with --item, one each." if history.strip() in bundle.index else ""
        raise InputError(
            f"history: {len(unknown)} of {len(asked)} ids are not in the catalogue of {len(bundle.index):,} items, for example "
            f"'{unknown[0]}'. Its ids look like '{bundle.item_ids[0]}'.{comma}"
        )
    names = bundle.titles()
    named = not (names == bundle.item_ids).all()
    queries = [Query(asked)]
    answers = bundle.recommend(queries, k, exclude_seen=not seen)
    probabilities = bundle.answer_probabilities(queries, answers)
    table = Table("rank", "item", *(["title"] if named else []), "score", *(name.replace("_", " ") for name in probabilities))
    for place, (best, score) in enumerate(answers[0]):
        figures = [f"{score:.4f}", *(f"{column[0][place]:.4f}" for column in probabilities.values())]
        table.add_row(str(place + 1), _plain(best), *([_plain(str(names[bundle.index[best]]))] if named else []), *figures)
    _console().print(table)


@app.command()
def versions(name: Annotated[str, typer.Argument(help="The config's name.")], root: Root = MLRUNS) -> None:
    """Registered versions of a recommender, the newest first: how good, how old, from which night, and why promoted."""
    from nightloom.promotion.quality import age, quality_of

    found = _registry(root).versions(name)
    if not found:
        raise InputError(f"nothing is registered as nightloom-{name} in {root}. A night registers what passes its gate.")
    columns = ("version", "aliases", "quality", "age", "night", "data", "config", "git", "reason")
    table = Table(*columns, title=f"nightloom-{name}", title_justify="left")
    for one in found:
        hashes = [one.tags.get(f"nightloom.{key}", "") for key in ("data_hash", "config_hash", "git")]
        short = [value[:8] + ("+dirty" if value.endswith("+dirty") else "") for value in hashes]
        quality, night = quality_of(one.tags), one.tags.get("nightloom.night", "")
        measured = f"{quality.metric} {quality.value}".strip()
        table.add_row(one.version, ", ".join(one.aliases), measured, age(one.created), night, *short, _plain(quality.reason))
    _console().print(table)


@app.command()
def rollback(name: Annotated[str, typer.Argument(help="The config's name.")], root: Root = MLRUNS) -> None:
    """Make the previous version the champion again."""
    back = _registry(root).rollback(name)
    _console().print(f"nightloom-{back.name}: version {back.version} is the champion again.")


@app.command()
def trim(
    keep: Annotated[int, typer.Option(min=1, help="Nights of each recommender whose files are kept.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Delete what old nights left: stages, snapshots with their pictures, fetched champions and text vectors that nothing needs any more.

    All that the last nights and the registered versions with an alias need is kept; so are reports, and MLflow's own files.
    """
    from nightloom.promotion.trim import aliased, delete, old
    from nightloom.promotion.trim_store import old_places
    from nightloom.runs.locks import not_in_use
    from nightloom.runs.storage import Storage

    root = root.resolve()
    storage = Storage.of(root)
    with not_in_use(root):
        known = "NIGHTLOOM_MLFLOW_URI" in os.environ or (root / "mlflow.db").exists()
        versions = aliased(storage, _registry(root)) if known else {}
        found, stored = old(root, keep, versions), old_places(storage, keep, versions)
        if not dry_run:
            delete(found)
            for away in stored:
                storage.delete(away.place)
    lines: dict[str, list[int]] = {}
    for one in found:  # pictures are many, and their names say nothing
        place = f"{one.path.parents[1].relative_to(root)} (some of it)" if one.kind == "pictures" else str(one.path.relative_to(root))
        lines.setdefault(place, []).append(one.bytes)
    for place, sizes in lines.items():
        _console().print(f"{sum(sizes) / 2**20:10,.1f} MiB  {place}", markup=False, soft_wrap=True)
    done = f"{'would be ' if dry_run else ''}deleted under"
    total = sum(one.bytes for one in found) / 2**20
    _console().print(f"{total:10,.1f} MiB in {len(found):,} folders and files {done} {root}", markup=False)
    if storage.url:
        total = sum(one.bytes for one in stored) / 2**20
        _console().print(f"{total:10,.1f} MiB in {len(stored):,} folders {done} {storage.url}", markup=False)


def main() -> None:
    """Entry point: refused input exits with 2 and faults that can be helped with 1, each with a plain message."""
    from nightloom.runs.environment import telemetry_off

    telemetry_off()
    try:
        app()
    except NightloomError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"nightloom: {error}", markup=False)
        sys.exit(error.exit_code)


def _console() -> Console:
    """Standard output; a pipe or file gets lines as long as they are."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def _plain(text: str) -> str:
    """Text in a table as it is, brackets included."""
    return text.replace("[", r"\[")


def _registry(root: Path) -> Registry:
    """The registry, but no new one where there is none yet."""
    from nightloom.promotion.registry import Registry

    if "NIGHTLOOM_MLFLOW_URI" not in os.environ and not (root / "mlflow.db").exists():
        raise InputError(f"{root}/mlflow.db: no night has run there. Set --root to the mlruns folder, or NIGHTLOOM_MLFLOW_URI.")
    return Registry(root)


def _results(run: str, root: Path) -> tuple[pd.DataFrame, str, Origin]:
    """A run's per-user results, the family that it names (else the model), and what it was made from."""
    import pandas as pd

    from nightloom.models.sequential.recommender import SequentialRecommender
    from nightloom.promotion.compare import origin_of_night

    if RUN_ID.fullmatch(run):
        return _logged(run, root)
    places = [Path(run), root / "nights" / run / "latest", root / "nights" / run]
    for place in places:
        if (place / "per_user.parquet").is_file():
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

    tracking = _registry(root).tracking
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


def _bundle(model: str, root: Path) -> Path:
    """A bundle's folder: as named, or that of a registered champion."""
    if Path(model).is_dir():
        return Path(model)
    registry = _registry(root)
    champion = registry.champion(model)
    if champion is None:
        raise InputError(f"'{model}' is no folder, and nightloom-{model} has no champion in {registry.tracking.uri}. Run a night first.")
    return registry.fetch(champion, root / "cache" / "champions")


if __name__ == "__main__":
    main()
