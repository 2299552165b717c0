"""The form that Prefect shows for a night: what a run by hand changes stands on top as fields, the rest below as JSON.

Prefect makes the form from the JSON schema of the flow's parameters. A section without `properties` becomes one editor,
which holds what the deployment's config says of it. So nobody scrolls past forty keys that a run by hand leaves alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

FIELDS: dict[str, tuple[str, ...]] = {
    "promotion": ("mode", "metric", "margin"),
    "training": ("epochs", "max_minutes", "patience", "learning_rate", "warm_start", "workers", "seed"),
    "evaluation": ("protocols", "baselines"),
    "explain": ("users",),
}
"""Sections that are shown as fields, in this order -> the keys that come first there."""
EDITORS = ("model", "data", "prepare", "validation", "pretrained")
"""Sections that are shown as JSON, in this order."""


class NightForm:
    """Annotates a `RunConfig` parameter with its form; what is accepted stays the same.

    Sections that nights do not read are left out of the form. A config that has them is accepted all the same.
    """

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The config's JSON schema with the order, and the sections, of the form."""
        made = handler(core)
        (config,) = [one for one in made.get("anyOf", [made]) if one.get("type") != "null"]  # an optional config is no choice of two
        content = dict(handler.resolve_ref_schema(config))
        sections = content["properties"]
        shown = {"name": sections["name"]}
        for name, first in FIELDS.items():
            section = handler.resolve_ref_schema(sections[name])
            keys = section["properties"]
            for position, key in enumerate([*first, *(key for key in keys if key not in first)]):
                keys[key]["position"] = position
            shown[name] = sections[name] | {"default": {}}
        for name in EDITORS:
            section = handler.resolve_ref_schema(sections[name])
            said = f"{section['description']} Keys: {', '.join(section['properties'])}."
            # The server checks what is typed against the section; the form does not look into `if` and `then`.
            shown[name] = {
                "type": "object",
                "title": sections[name]["title"],
                "description": said,
                "if": {},
                "then": {"$ref": sections[name]["$ref"]},
            }
            shown[name] |= {"default": {}} if name not in content["required"] else {}
        for position, one in enumerate(shown.values()):
            one["position"] = position
        content |= {"properties": shown, "additionalProperties": True}
        return content
