"""The page docs/config.md, made from the sections: every key with its values, default and meaning.

Run `python -m nightloom.config.reference > docs/config.md` after a key has changed; a test holds that page and sections agree.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from textwrap import fill
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nightloom.config.run import RunConfig
from nightloom.config.section import Section

HEAD = """# Every key of the config

Generated from the sections in `src/nightloom/config/` by `python -m nightloom.config.reference`. Change it there.

One YAML is one run, the form in Prefect and the parameters in MLflow. What is left out has the default below.
An unknown key is refused. `--set training.epochs=5` overrides one key for one night.
Relative paths count from the YAML. Addresses and secrets come from
[the environment](deployment.md#environment-variables).
"""
WIDTH = 116
BAR = r"\|"
PLAIN = {int: "integer", float: "number", bool: "true, false", str: "text"}
_BOUNDS = (
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "<="),
    (annotated_types.Lt, "lt", "<"),
)


def page() -> str:
    """The whole page as Markdown, which ends with a line break."""
    sections = {name: field for name, field in RunConfig.model_fields.items() if _section(field)}
    plain = {name: field for name, field in RunConfig.model_fields.items() if name not in sections}
    parts = [HEAD, _table("", plain)]
    for name, field in sections.items():
        parts += _part(name, _section(field) or Section)
    return "\n".join(parts)


def _part(name: str, section: type[Section]) -> list[str]:
    """A heading, what the section is for, its table and its former names; sections inside it follow."""
    inner = {key: field for key, field in section.model_fields.items() if _section(field)}
    own = {key: field for key, field in section.model_fields.items() if key not in inner}
    parts = [f"## {name}\n\n{fill(section.__doc__ or '', WIDTH)}\n", _table(f"{name}.", own)]
    if section.renamed:
        former = ", ".join(f"`{new}` was `{old}`" for old, new in section.renamed.items())
        parts.append(fill(f"Former names, which work one version longer with a warning: {former}.", WIDTH) + "\n")
    for key, field in inner.items():
        parts += _part(f"{name}.{key}", _section(field) or Section)
    return parts


def _table(prefix: str, fields: dict[str, FieldInfo]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split())
        cells = (f"`{prefix}{name}`", _values(field), _default(field), meaning)
        lines.append(f"| {' | '.join(cell.replace('|', BAR).replace('<name>', '&lt;name&gt;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _values(field: FieldInfo) -> str:
    """What a key may be: type or choices, then its bounds."""
    return _bounded(field.annotation, field.metadata)


def _bounded(kind: Any, marks: Sequence[Any]) -> str:
    bounds = [f"{sign} {_number(getattr(mark, name))}" for limit, name, sign in _BOUNDS for mark in marks if isinstance(mark, limit)]
    return " ".join([_type(kind), *([", ".join(bounds)] if bounds else [])])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _bounded(arguments[0], arguments[1].metadata)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"[{_type(arguments[0])}, ...]" if Ellipsis in arguments else f"[{', '.join(map(_type, arguments))}]"
    if origin is dict:
        return f"{{{_type(arguments[0])}: {_type(arguments[1])}}}"
    return PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: FieldInfo) -> str:
    """The default as YAML writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if value is None or value in ({}, ()):
        return "empty"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{json.dumps(value).strip(chr(34))}`"


if __name__ == "__main__":
    sys.stdout.write(page())
