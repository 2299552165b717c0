"""Stage promote of a click head: the gate decides, and only a head that passes reaches the registry, as `nightloom-<name>-clicks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.data.preparation.impressions import Impressions
from nightloom.models.ctr.save import probabilities as answers
from nightloom.packaging.card import click_card
from nightloom.packaging.served import click_head, write_click_files
from nightloom.promotion.click_gate import decide
from nightloom.promotion.registry import CLICKS, Registry
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import run_tags
from tasks.progress import log_done, worth_retrying

HEAD = "head"
USUAL = "the usual rate"


@task(
    name="promote-clicks", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=exponential_backoff(5), retry_condition_fn=worth_retrying
)
def promote_clicks(night: Night, collected: Manifest, prepared: Manifest, fitted: Sequence[Manifest], head_run: str) -> Manifest:
    """Compare the head with the champion, or with its baselines, and move the aliases where the gate lets it pass."""
    config, name = night.config, night.config.name + CLICKS
    tags, registry = run_tags(night, collected.figures["hash"]), Registry(night.root)
    places = {one.figures["family"]: one.path for one in fitted}

    def body(folder: Path) -> dict[str, Any]:
        champion = registry.champion(name) if config.promotion.mode != "disabled" else None
        if champion and tags.items() <= champion.tags.items():
            said = f"Version {champion.version} serves already, made from the same data, config and code."
            return {"decision": {"decision": "keep", "reasons": [said]}, "versions": registry.aliases(name)}
        rows = Impressions.load(prepared.path)
        probabilities = {
            family: pd.read_parquet(place / "probabilities.parquet")["probability"].to_numpy() for family, place in places.items()
        }
        mine, standing, odd = probabilities.pop(HEAD), None, list[str]()
        probabilities[USUAL] = np.full(len(mine), rows.clicked[: rows.test_start].mean())  # who knows nothing of a row can say that
        if champion:
            try:
                place = registry.fetch(champion, night.root / "cache" / "champions", holds="clicks.json")
                standing = answers(place, rows, rows.test_start)[rows.test_start :]
            except InputError as error:
                odd = [f"The champion can not answer, so the baselines decide. {error}"]
        decision = asdict(decide(rows.clicked[rows.test_start :], mine, standing, probabilities, config.promotion))
        decision["reasons"] = [*odd, *decision["reasons"]]
        write_json(folder / "decision.json", decision)
        if config.promotion.mode == "enabled" and decision["decision"] == "promote":
            served = write_click_files(places[HEAD], prepared.path, folder / "served")
            marks = tags | {"nightloom.night": night.night}
            card = click_card(name, decision, marks, collected.figures["licence"])
            registry.promote(registry.register_served(name, click_head(served), head_run, marks, card))
        return {"decision": decision, "versions": registry.aliases(name) if config.promotion.mode == "enabled" else {}}

    # Promotion moves aliases, so each night does it for itself.
    read, inputs = ReadKeys(config, "promotion"), [prepared, *fitted]
    manifest = run_stage(night, "promote_clicks", body, inputs=inputs, config=read.values, code=[decide], salt=night.night)
    return log_done(manifest, f"{manifest.figures['decision']['decision']} ({config.promotion.mode})")
