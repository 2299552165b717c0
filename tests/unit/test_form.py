"""The form of a night, as Prefect makes it from the flow's parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import is_valid_schema, validate

from flows.form import FIELDS
from flows.nightly import nightly
from nightloom.config import RunConfig, load_preset


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    made = parameter_schema(nightly.fn).model_dump_for_openapi()
    is_valid_schema(made)
    return made


def problems(schema: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """What Prefect's server says against a run's parameters."""
    return [f"{list(found.path)}: {found.message}" for found in validate({"config": config}, schema, preprocess=True)]


def test_sections_in_order_with_titles(schema: dict[str, Any]) -> None:
    assert list(schema["properties"]) == ["force", "config", "started_by", "as_of"]
    shown = schema["properties"]["config"]["properties"]
    assert sorted(shown, key=lambda name: shown[name]["position"]) == ["name", *FIELDS]
    titles = [shown[name]["title"] for name in FIELDS]
    assert titles == ["Gate", "Training", "Evaluation", "Explain", "Model", "Data", "Prepare", "Data contract", "Pretrained models"]
    assert {name: tuple(shown[name].get("properties", ())) for name in FIELDS} == FIELDS
    every = set(RunConfig.model_fields) - {"name", "clicks"}
    assert set(FIELDS) == every, "a section that nights read is missing in the form, or one is there that they do not read"


def test_every_key_is_documented_without_html(schema: dict[str, Any]) -> None:
    assert "<" not in json.dumps(schema)
    shown = schema["properties"]["config"]["properties"]
    for name, fields in FIELDS.items():
        keys = RunConfig.model_fields[name].annotation.model_fields  # type: ignore[union-attr]
        assert all(shown[name]["properties"][key]["description"] for key in fields)
        assert all(key in shown[name]["description"] for key in keys if key not in fields)


def test_a_run_without_parameters_has_a_config(schema: dict[str, Any]) -> None:
    assert not schema.get("required")
    assert validate({}, schema, preprocess=True) == []


def test_what_is_typed_is_checked(schema: dict[str, Any]) -> None:
    whole = load_preset("movies-small").model_dump(mode="json")
    assert problems(schema, whole) == []
    assert problems(schema, {"name": "a", "data": {"set": "movies"}, "training": {"epochs": 3, "batch_users": 16}, "clicks": {}}) == []
    (said,) = problems(schema, whole | {"training": {"epochs": 0}})[:1]
    assert "less than the minimum" in said
    assert "'epoch' was unexpected" in "".join(problems(schema, whole | {"training": {"epoch": 5}}))
    assert "'drop_out' was unexpected" in "".join(problems(schema, whole | {"model": {"drop_out": 0.1}}))
