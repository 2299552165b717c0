"""RunConfig, and how it is read from a preset or a YAML file, with errors that name each key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from nightloom.config.data_sections import RANDOM, DataConfig, PrepareConfig, ValidationConfig
from nightloom.config.section import Section
from nightloom.config.sections import (
    ClicksConfig,
    EvaluationConfig,
    ExplainConfig,
    ModelConfig,
    PretrainedConfig,
    PromotionConfig,
    TrainingConfig,
)
from nightloom.core.errors import InputError
from nightloom.core.names import NAME
from nightloom.core.secrets import hidden
from nightloom.core.streaming import IN_TIME

LONGEST = 200
"""Characters of what was given that a message repeats."""


class RunConfig(Section):
    """One night's whole configuration."""

    name: str = Field(pattern=f"^{NAME}$")
    """Name of the recommender; the registered model is nightloom-NAME."""
    data: DataConfig
    validation: ValidationConfig = ValidationConfig()
    prepare: PrepareConfig = PrepareConfig()
    pretrained: PretrainedConfig = PretrainedConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    clicks: ClicksConfig = ClicksConfig()
    explain: ExplainConfig = ExplainConfig()
    promotion: PromotionConfig = PromotionConfig()

    @model_validator(mode="before")
    @classmethod
    def _random_split(cls, given: Any) -> Any:
        """Where events are in random order the split is a random one, and is called so."""
        if not isinstance(given, Mapping) or not _in_random_order(given.get("data")):
            return given
        evaluation = given.get("evaluation") or {}
        if not isinstance(evaluation, Mapping) or "protocols" in evaluation:
            return given
        return {**given, "evaluation": {**evaluation, "protocols": (RANDOM,)}}

    @model_validator(mode="after")
    def _fitting_protocols(self) -> RunConfig:
        wrong = next((one for one in self.evaluation.protocols if (one in IN_TIME if self.data.random_order else one == RANDOM)), None)
        if wrong:
            told = "the order of events is random" if self.data.random_order else "data.columns.events.order is not random"
            right = RANDOM if self.data.random_order else "streaming, temporal"
            raise ValueError(f"evaluation.protocols: {told}, so the split can not be {wrong}; write {right} or leave_one_out")
        return self

    def digest(self) -> str:
        """SHA-256 (hex) of everything that shapes the result, addresses of the tables left out.

        Addresses are left out since the snapshot's content hash speaks for the data: the same
        tables in another folder are the same run.
        """
        content = self.model_dump(mode="json")
        for table in ("events", "items", "users", "links", "store"):
            content["data"].pop(table)
        return hash_json(content)


def _in_random_order(data: Any) -> bool:
    """`DataConfig.random_order` of values that are not checked yet."""
    for key in ("columns", "events", "order"):
        data = data.get(key) if isinstance(data, Mapping) else getattr(data, key, None)
    return bool(data == RANDOM)


def hash_json(content: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def presets() -> list[str]:
    """Names of the presets that ship with Nightloom."""
    return sorted(entry.name[:-5] for entry in resources.files("nightloom.presets").iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a shipped preset, with `key=value` overrides.

    Raises:
        InputError: no preset has that name, or a key or value is refused.
    """
    if name not in presets():
        raise InputError(f"no preset is named '{name}'. There are: {', '.join(presets())}")
    text = (resources.files("nightloom.presets") / f"{name}.yaml").read_text(encoding="utf-8")
    return _build(text, f"preset {name}", overrides, None)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a config file; relative table paths in it are relative to the file.

    Args:
        path: YAML file.
        overrides: `section.key=value` strings; values are read as YAML.

    Raises:
        InputError: the file cannot be read, or a key or value is refused; names the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: another encoding, or a NUL in the path
        raise InputError(f"{path}: the config cannot be read ({error}). Name an existing YAML file in UTF-8.") from error
    return _build(text, str(path), overrides, path.resolve().parent)


class _Loader(yaml.SafeLoader):
    """YAML in which a date stays text: one that does not exist is then refused by its key, as any other value is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def config_from_dict(content: Mapping[str, Any], source: str = "the given config") -> RunConfig:
    """Build a RunConfig from plain values, with errors that name each key.

    Raises:
        InputError: a key is unknown or a value is refused.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in problem['loc']) or '(top)'}: {_explain(problem)}" for problem in error.errors()]
        raise InputError(f"{source}: the config is refused:\n" + "\n".join(lines)) from error


def _build(text: str, source: str, overrides: Sequence[str], base: Path | None) -> RunConfig:
    content = _read(text, source)
    if not isinstance(content, dict):
        raise InputError(f"{source}: expected keys and values at the top, found {type(content).__name__}")
    for override in overrides:
        _override(content, override)
    data = content.get("data")
    if base is not None and isinstance(data, dict):
        for table in ("events", "items", "users", "links"):
            place = data.get(table)
            if not isinstance(place, str) or "\0" in place:  # which the checks of the sections refuse
                continue
            if "://" not in place:
                data[table] = _resolved(base, place, f"{source}: data.{table}")
            elif place.startswith("sqlite:///") and (base / (file := place[10:].partition("?")[0])).is_file():
                data[table] = f"sqlite:///{(base / file).resolve()}{place[10 + len(file) :]}"
        if isinstance(store := data.get("store"), str) and ("/" in store or store.endswith(".db")):
            data["store"] = str((base / Path(store).expanduser()).resolve())
    return config_from_dict(content, source)


def _resolved(base: Path, place: str, key: str) -> str:
    try:
        return str((base / Path(place).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a user, ~name, that there is not; a loop of links; no file name
        raise InputError(f"{key}: {hidden(place[:LONGEST])!r} is no path ({error}).") from None


def _read(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader, less dates
    except RecursionError:
        raise InputError(f"{hidden(source[:LONGEST])}: not valid YAML: its brackets or indents are too many levels deep.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number with an explicit tag that is none, or with too many digits
        said = str(error)
        if hidden(text) != text:  # YAML shows the line, cut anywhere
            mark = getattr(error, "problem_mark", None)
            said = f"line {mark.line + 1}" if mark else "a value that can not be read"
        raise InputError(f"{hidden(source)}: not valid YAML: {said}") from None


def _override(content: dict[str, Any], override: str) -> None:
    key, mark, value = override.partition("=")
    if not mark or not key:
        raise InputError(f"--set {hidden(override)}: write it as section.key=value, for example --set training.epochs=5")
    *sections, leaf = key.split(".")
    for section in sections:
        if content.get(section) is None:  # not there, or there without a key
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise InputError(f"--set {hidden(override)}: '{section}' is a value, not a section")
    content[leaf] = _read(value, f"--set {override}")


def _explain(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        section: type[BaseModel] = RunConfig
        for part in problem["loc"][:-1]:
            annotation = section.model_fields[part].annotation if part in section.model_fields else None
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                return "unknown key"
            section = annotation
        import difflib

        near = difflib.get_close_matches(str(problem["loc"][-1]), section.model_fields, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(section.model_fields)}"
        return "unknown key" + hint
    return str(problem["msg"]).removeprefix("Value error, ")
