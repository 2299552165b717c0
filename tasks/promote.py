"""Stage promote: the gate decides, and only a challenger that passes reaches the registry.

The registry may have changed since the challenger was evaluated. Then nothing is decided, and it has to be evaluated again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.compress.parts import Part, parts_of
from nightloom.core.blocklist import Blocklist, blocklist_of
from nightloom.core.errors import NightloomError
from nightloom.evaluation.rivals import ANCHOR, CHAMPION
from nightloom.explain.explain import FIDELITY
from nightloom.explain.service_fidelity import CHALLENGER
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.reader import BundleReader
from nightloom.packaging.serving_format import EXPLAINER, ServingManifest
from nightloom.packaging.shown import blocked_ids
from nightloom.promotion.earlier import earlier_nights
from nightloom.promotion.gate import decide, held_back, with_limits
from nightloom.promotion.quality import quality_tags
from nightloom.promotion.registered import TRAINED_TAG, Version
from nightloom.promotion.registry import HeldError, OvertakenError, Registry
from nightloom.promotion.review import STARTED_BY, review_tag
from nightloom.promotion.standing import held
from nightloom.promotion.trust import group_limits, reasons_compared, tail_limits, with_trust
from nightloom.runs.keys import ReadKeys
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.serving.prepare import prepare
from tasks.cards import card_of_data, card_of_model
from tasks.evaluate import standing
from tasks.progress import log_done, report_progress, worth_retrying


@task(
    name="promote",
    task_run_name="promote {night.config.name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=worth_retrying,
)
def promote(
    night: Night, collected: Manifest, tuned: Manifest, evaluated: Manifest, explained: Manifest, model_run: str
) -> Manifest | None:
    """Compare with the champion, and move the aliases when the gate lets the challenger pass.

    Returns:
        The manifest; None where another version has become champion since, and the challenger must be evaluated again.
    """
    config = night.config
    protocol = config.evaluation.protocols[0]
    trained = f"{tuned.key} {protocol}"
    registry = Registry(night.root)
    found = standing(night, registry, trained)
    for stage, compared in (("evaluated", evaluated), ("explained", explained)):
        if found.champion != (then := compared.figures["champion"]):
            report_progress(f"promote: version {found.champion} stands now, not {then}. It is {stage} again.")
            return None

    def body(folder: Path) -> dict[str, Any]:
        rows = pd.read_parquet(evaluated.path / "per_user.parquet")
        families = dict(iter(rows[rows["protocol"] == protocol].groupby("family", observed=True)))
        baselines: dict[str, pd.DataFrame] = {name: families[name] for name in config.evaluation.baselines}
        mine, against = families[SequentialRecommender.family], evaluated.figures["champion"]
        judged = decide(
            mine,
            None if against is None else families.get(CHAMPION, mine.iloc[:0]),
            baselines,
            config.promotion,
            anchor=families.get(ANCHOR),
            earlier=earlier_nights(night.folder.parent, night.night, against, protocol, SequentialRecommender.family) if against else (),
        )
        judged = with_limits(judged, evaluated.figures["rivals"], found.notes)
        gaps, tail = evaluated.figures["fairness"].get(protocol, []), evaluated.figures["tail"].get(protocol, {})
        limits = group_limits(gaps, evaluated.figures["metrics"][SequentialRecommender.family][protocol], config.promotion)
        limits += tail_limits(tail, config.promotion)
        if against is None:
            judged = with_trust(judged, limits)
        else:
            fidelity = pd.read_parquet(explained.path / FIDELITY)
            tonight, before = (fidelity[fidelity["family"] == family] for family in (CHALLENGER, CHAMPION))
            reasons, unsaid = reasons_compared(tonight, before, config.promotion)
            judged = with_trust(judged, [*limits, *reasons], unsaid)
        if why := held(registry, config.name, config.promotion, night.night, trained):
            judged = held_back(judged, why)
        decision = asdict(judged)
        versions: dict[str, str | None] = {}
        serves: list[Part] = []
        if config.promotion.registers:
            if decision["decision"] == "promote":
                tags = run_tags(night, collected.figures["hash"]) | {"nightloom.night": night.night, TRAINED_TAG: trained}
                bundle = tuned.path / protocol / "bundle"
                card = card_of_model(night, decision, tags, collected=collected, tuned=tuned, evaluated=evaluated, explained=explained)
                reader = BundleReader.load(bundle)
                blocked = blocked_ids(reader, Blocklist.read(blocklist_of(night.root, config.name)))
                example = [[one for one in reader.item_ids.tolist() if one not in blocked][:3]]
                store = collected.path / "events.parquet"
                review, intent = config.promotion.mode == "review", found.intent(best=decision["moves_anchor"])
                by = {STARTED_BY: night.started_by} if review and night.started_by else {}
                version = registry.register(
                    config.name,
                    bundle,
                    model_run,
                    tags | quality_tags(decision) | (review_tag(intent) if review else {}) | by,
                    card,
                    example,
                    events=store,
                    exclude_seen=config.evaluation.exclude_seen,
                    intent=None if review else intent,
                    explainer=explained.path / EXPLAINER,
                    data_card=card_of_data(night, collected),
                    compress=config.promotion.compress,
                )
                if not review:
                    registry.promote(version)
                said = ServingManifest.read(registry.fetch_serving(version, night.root / "cache"))
                serves = parts_of(said.sequence, said.text_encoder)
                _ready(registry, version, night)
            versions = registry.aliases(config.name)
        (folder / "decision.json").write_text(json.dumps(decision, indent=2), encoding="utf-8")
        return {"decision": decision, "versions": versions, "serves": [asdict(part) for part in serves]}

    # Promotion moves aliases, so each night does it for itself.
    read = ReadKeys(config, "promotion", "evaluation")
    try:
        manifest = run_stage(night, "promote", body, inputs=[evaluated, explained], config=read.values, code=[decide, with_trust], own=True)
    except (OvertakenError, HeldError) as error:
        report_progress(f"promote: {error} It is evaluated again.")
        return None
    return log_done(manifest, f"{manifest.figures['decision']['decision']} ({config.promotion.mode})")


def _ready(registry: Registry, version: Version, night: Night) -> None:
    """Have the version checked and compiled for a service on this machine; where it would be refused there, say so."""
    try:
        ready = prepare(registry, version, night.root)
    except NightloomError as error:
        report_progress(f"promote: a service on this machine refuses version {version.version}: {error}")
    else:
        report_progress(f"promote: version {version.version} {'is ready to serve' if ready else 'waits for nightloom[serve] to serve'}")
