"""Stage promote of a click head: the gate decides, and only a head that passes reaches the registry, as `nightloom-<name>-clicks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.core.privacy_key import FILE
from nightloom.data.preparation.impressions import Impressions
from nightloom.models.ctr.save import probabilities as answers
from nightloom.packaging.card import click_card
from nightloom.packaging.served import click_head, write_click_files
from nightloom.promotion.click_gate import decide
from nightloom.promotion.ledger import Intent
from nightloom.promotion.registered import CLICKS
from nightloom.promotion.registry import HeldError, OvertakenError, Registry
from nightloom.promotion.review import review_tag
from nightloom.promotion.standing import held
from nightloom.promotion.version_files import UnreadableError
from nightloom.runs.keys import ReadKeys
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done, report_progress, worth_retrying

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
        while True:
            try:
                return judged(folder)
            except (OvertakenError, HeldError) as error:
                report_progress(f"promote_clicks: {error}")

    def judged(folder: Path) -> dict[str, Any]:
        if config.promotion.registers:
            registry.settle(name)
        champion = registry.champion(name) if config.promotion.mode != "disabled" else None
        if champion and tags.items() <= champion.tags.items():
            said = f"Version {champion.version} serves already, made from the same data, config and code."
            return {"decision": {"decision": "keep", "reasons": [said]}, "versions": registry.aliases(name)}
        rows = Impressions.load(prepared.path)
        probabilities = {
            family: pd.read_parquet(place / "probabilities.parquet")["probability"].to_numpy() for family, place in places.items()
        }
        mine, standing, previous, odd = probabilities.pop(HEAD), None, None, list[str]()
        probabilities[USUAL] = np.full(len(mine), rows.clicked[: rows.test_start].mean())  # who knows nothing of a row can say that
        if lost := registry.lost_champion(name):
            odd.append(f"Version {lost} was champion, and is not in {registry.tracking.uri} any more.")
        for version in registry.candidates(name, None) if config.promotion.mode != "disabled" else ():
            try:
                place = registry.fetch(version, night.root / "cache" / "champions", holds="clicks.json")
                standing, previous = answers(place, rows, rows.test_start)[rows.test_start :], version.version
                break
            except (InputError, UnreadableError) as error:
                odd.append(f"Version {version.version} can not answer. {error}")
        if odd:
            odd.append(f"So it was compared with version {previous}." if previous else "So the baselines decide.")
        judgement = decide(rows.clicked[rows.test_start :], mine, standing, probabilities, config.promotion)
        why = held(registry, name, config.promotion, night.night)
        decision = asdict(replace(judgement, decision="reject") if why else judgement)
        decision["reasons"] = [*([why] if why else []), *odd, *decision["reasons"]]
        write_json(folder / "decision.json", decision)
        if config.promotion.registers and decision["decision"] == "promote":
            served = write_click_files(places[HEAD], prepared.path, folder / "served")
            marks = tags | {"nightloom.night": night.night}
            card = click_card(name, decision, marks, collected.figures["licence"])
            intent = Intent(champion.version if champion else None, previous)
            review = config.promotion.mode == "review"
            marks |= review_tag(intent) if review else {}
            head = click_head(served, night.root / FILE)
            version = registry.register_served(name, head, head_run, marks, card, intent=None if review else intent)
            if not review:
                registry.promote(version)
        return {"decision": decision, "versions": registry.aliases(name) if config.promotion.registers else {}}

    # Promotion moves aliases, so each night does it for itself.
    read, inputs = ReadKeys(config, "promotion"), [prepared, *fitted]
    manifest = run_stage(night, "promote_clicks", body, inputs=inputs, config=read.values, code=[decide], own=True)
    return log_done(manifest, f"{manifest.figures['decision']['decision']} ({config.promotion.mode})")
