"""The data card of a night, in Markdown: what the data are, what was left out of them, and what is known of the people in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.config import RunConfig
from nightloom.core.markup import plain_markdown
from nightloom.core.secrets import hidden
from nightloom.packaging.card_figures import removed, table


def data_card(
    config: RunConfig,
    *,
    data_hash: str,
    counts: Mapping[str, int],
    period: Sequence[Any] | None,
    features: Mapping[str, str],
    prepared: Mapping[str, Any],
    left_out: Mapping[str, int],
    quarantined: Mapping[str, int],
    rules: int,
    notes: Sequence[str] = (),
    licence: str | None = None,
) -> str:
    """A data card.

    Args:
        config: the run's configuration.
        data_hash: content hash of the snapshot.
        counts: table -> rows.
        period: times of the oldest and of the newest good event, or their order.
        features: column of the items -> kind.
        prepared: figures of stage prepare.
        left_out: reason -> events that collect left out; people who asked to be forgotten among them, as a number.
        quarantined: table -> rows that the data contract set aside.
        rules: of the contract.
        notes: what a person should know of the tables.
        licence: terms of the data.
    """
    events, users, items = (int(prepared[name]) for name in ("events", "users", "items"))
    filled = f"{100 * events / (users * items):.3f} %" if users and items else "none"
    people = "pseudonyms by a key that is not here" if config.data.pseudonyms else "the ids that the source has"
    parts = [
        f"# Data of nightloom-{config.name}",
        f"Snapshot {data_hash[:16]}. What it holds was read as it is; nothing was made up or filled in.",
        "## What it holds",
        table(["table", "rows"], [[name, f"{rows:,}"] for name, rows in counts.items() if isinstance(rows, int)]),
        "\n".join(
            [
                f"- after cleaning: {events:,} events of {users:,} users on {items:,} items ({filled} of all pairs)",
                f"- positive by the rules of the config: {int(prepared['positive']):,} events",
                f"- items without a text: {int(prepared['items_without_text']):,}",
                *([f"- from {plain_markdown(str(period[0]))} to {plain_markdown(str(period[1]))}"] if period and len(period) > 1 else []),
                *([f"- licence: {plain_markdown(licence)}"] if licence else []),
            ]
        ),
        *(["## Columns of the items", table(["column", "read as"], [list(one) for one in features.items()])] if features else []),
        "## What was left out, and why",
        "\n".join(removed({**left_out, **prepared["removed"]}, quarantined)),
        f"The data contract has {rules:,} rules; what breaks one is in the night's quarantine, with the reason.",
        "## People",
        f"- People are named by {people}. Nothing of them ships with a model but what many share; see the model card.\n"
        "- Who asked to be forgotten is left out by a keyed hash, also where the source still has the rows.",
        *(["## Notes", "\n".join(f"- {plain_markdown(note)}" for note in notes)] if notes else []),
        "## Limits",
        "- It holds what people did with what they were shown, not what they would have done with the rest.\n"
        "- Popular items and busy users are most of the events.\n"
        "- The test part is the newest: a change of taste or of the catalogue shows there first.",
    ]
    return hidden("\n\n".join(parts) + "\n")
