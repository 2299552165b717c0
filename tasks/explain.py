"""Stage explain: Shapley reasons for a sample of recommendations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.core.blocklist import Blocklist, blocklist_of
from nightloom.core.errors import NightloomError
from nightloom.evaluation.rivals import CHAMPION
from nightloom.explain.explain import explain as find_reasons
from nightloom.promotion.registered import Version
from nightloom.promotion.registry import Registry
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.evaluate import standing
from tasks.progress import log_done, report_progress


@task(name="explain", task_run_name="explain {night.config.name}", cache_policy=NO_CACHE)
def explain(night: Night, prepared: Manifest, tuned: Manifest) -> Manifest:
    """Say why, for some held-out users, the first recommendation is what it is, and whether such reasons hold as well as the champion's."""
    read, protocol = ReadKeys(night.config, "explain", "evaluation.exclude_seen", "training.seed"), night.config.evaluation.protocols[0]
    blocklist = Blocklist.read(blocklist_of(night.root, night.config.name))

    registry = Registry(night.root)
    champion = standing(night, registry, f"{tuned.key} {protocol}").rivals.get(CHAMPION)

    def body(folder: Path) -> dict[str, Any]:
        said = {"explain": read.explain, "exclude_seen": read.evaluation.exclude_seen, "seed": read.training.seed, "blocklist": blocklist}
        serving = None if champion is None else _serving(registry, champion, night.root)
        bundle = tuned.path / protocol / "bundle"
        figures = find_reasons(prepared.path, bundle, folder, report_progress, protocol=protocol, champion=serving, **said)
        return figures | {"champion": None if champion is None else champion.version}

    manifest = run_stage(
        night,
        "explain",
        body,
        inputs=[prepared, tuned],
        config=read.values | {"protocol": protocol},
        code=[find_reasons],
        salt=blocklist.digest + ("" if champion is None else f" {champion.version} {champion.run_id}"),
    )
    return log_done(manifest, f"reasons for {manifest.figures['users']} users")


def _serving(registry: Registry, champion: Version, root: Path) -> Path | None:
    """The champion's serving artefact; None where it can not be had, and then its reasons are not compared."""
    try:
        return registry.fetch_serving(champion, root / "cache")
    except NightloomError as error:
        report_progress(f"explain: the reasons of version {champion.version} are not measured: {error}")
        return None
