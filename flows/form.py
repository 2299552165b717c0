"""The form that Prefect shows for a night: what a run by hand changes stands on top as fields, the rest below as JSON.

Prefect makes the form from the JSON schema of the flow's parameters. A section without `properties` becomes one editor,
which holds what the deployment's config says of it. So nobody scrolls past seventy keys that a run by hand leaves alone.
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
    "model": (),
    "data": (),
    "prepare": (),
    "validation": (),
    "pretrained": (),
}
"""Sections that nights read, in the form's order -> their keys that are fields; a section without any is one editor."""


class NightForm:
    """Annotates a `RunConfig` parameter with its form. What is accepted stays the same, sections that are not shown included."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The config's JSON schema, in the shape of the form."""
        made = handler(core)
        (config,) = [one for one in made.get("anyOf", [made]) if one.get("type") != "null"]  # an optional config is no choice of two
        content = dict(handler.resolve_ref_schema(config))
        sections = content["properties"]
        shown = {"name": sections["name"]}
        for name, fields in FIELDS.items():
            whole = handler.resolve_ref_schema(sections[name])
            keys = whole["properties"]
            others = ", ".join(key for key in keys if key not in fields)
            said = f"Use JSON input (in the menu) for: {others}." if fields else f"Keys: {others}."
            shown[name] = {
                "type": "object",
                "title": sections[name]["title"],
                "description": f"{whole['description']} {said}",
                # The server checks the whole section; the form does not look into `if` and `then`.
                "if": {},
                "then": {"$ref": sections[name]["$ref"]},
            }
            if fields:
                shown[name]["properties"] = {key: keys[key] | {"position": position} for position, key in enumerate(fields)}
            if name not in content["required"]:
                shown[name]["default"] = {}
        for position, one in enumerate(shown.values()):
            one["position"] = position
        return content | {"properties": shown, "additionalProperties": True}
