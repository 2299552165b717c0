"""What leaves the model that was trained as it is, and what trains anew: the keys of a whole chain up to fine_tune."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect.logging import disable_run_logger
from pydantic import BaseModel, create_model

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.files import write_json
from nightloom.runs import code, keys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks import explain, fine_tune, replay
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.validate import validate
from tests.tiny_models import tiny_bert

STAGES = ("validate", "prepare", "load_pretrained", "fine_tune")
Change = Callable[[Path], None]


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_trained() -> Iterator[None]:
    """fine_tune, explain and replay get their folder and their key, and a file in place of a model; no flow runs around them."""
    figures = {"streaming": {"best_epoch": 1, "best_validation_ndcg_at_10": 0.1}, "users": 0, "day": "", "ndcg_at_10": {}}

    def body(folder: Path) -> Mapping[str, Any]:
        (folder / "streaming" / "bundle").mkdir(parents=True, exist_ok=True)
        (folder / "streaming" / "bundle" / "model").write_text("weights")
        return figures

    def keyed(night: Night, stage: str, _: Any, **given: Any) -> Manifest:
        return run_stage(night, stage, body, **given)

    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        for shell in (fine_tune, explain, replay):
            patch.setattr(shell, "run_stage", keyed)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tables")
    tiny_bert(home / "bert")
    rows = [(f"u{one % 7}", f"i{one * one % 9}", 1_700_000_000 + 3600 * one) for one in range(90)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(home / "events.csv", index=False)
    items = [(f"i{one}", f"star {one}", "a|b,c") for one in range(9)]
    pd.DataFrame(items, columns=["item_id", "title", "genres"]).to_csv(home / "items.csv", index=False)
    return home


def config_of(home: Path, **changed: Mapping[str, Any]) -> RunConfig:
    sections: dict[str, Any] = {
        "data": {"events": str(home / "events.csv"), "items": str(home / "items.csv"), "features": {"genres": "tags"}},
        "validation": {"min_events": 10},
        "pretrained": {"model": str(home / "bert")},
        "evaluation": {"exclude_seen": False},
    }
    return config_from_dict({"name": "mine"} | {name: sections.get(name, {}) | changed.get(name, {}) for name in {*sections, *changed}})


def chain(config: RunConfig, root: Path, number: int = 1) -> dict[str, Manifest]:
    """The stages up to fine_tune, by name, and the rows of the night as the next one finds them."""
    night = Night(config, f"20260101-00000{number}", root)
    collected = collect.fn(night)
    checked = validate.fn(night, collected)
    prepared = prepare.fn(night, checked)
    pretrained = load_pretrained.fn(night, prepared)
    tuned = fine_tune.fine_tune.fn(night, "run", collected, prepared, pretrained)
    write_json(night.folder / "report.json", {"rows": checked.figures["rows"]})
    night.latest.unlink(missing_ok=True)
    night.latest.symlink_to(night.night)
    return {one.stage: one for one in (checked, prepared, pretrained, tuned)}


@pytest.fixture(scope="module")
def root(home: Path) -> Path:
    """Where the first night, `before`, was."""
    return home / "mlruns"


@pytest.fixture(scope="module")
def before(home: Path, root: Path) -> dict[str, Manifest]:
    """What the first night made; those of the tests come after it."""
    return chain(config_of(home), root)


def statuses(made: Mapping[str, Manifest]) -> list[str]:
    return [made[stage].status for stage in STAGES]


def test_the_same_snapshot_is_trained_once_whatever_the_last_night_counted(home: Path, tmp_path: Path) -> None:
    first, second = (chain(config_of(home), tmp_path, number) for number in (1, 2))
    assert first["validate"].key != second["validate"].key  # it is judged against the night before
    assert statuses(second) == ["done", "reused", "reused", "reused"]


def test_a_night_that_is_started_again_finds_what_was_done(home: Path, tmp_path: Path) -> None:
    first = chain(config_of(home), tmp_path)
    (tmp_path / "nights" / "mine" / "latest").unlink()  # it was killed before it ended
    shutil.rmtree(first["fine_tune"].path)
    again = chain(config_of(home), tmp_path, 2)
    assert statuses(again) == ["reused", "reused", "reused", "done"]
    assert (again["fine_tune"].key, again["fine_tune"].content) == (first["fine_tune"].key, first["fine_tune"].content)


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluation": {"baselines": ["popularity", "ease"]}},
        {"promotion": {"margin": 0.5, "mode": "dry_run"}},
        {"explain": {"users": 3}},
        {"clicks": {"epochs": 2}},
        {"validation": {"max_shrink": 0.5}},
        {"prepare": {"positive_events": None}},
    ],
)
def test_what_training_does_not_read_trains_nothing(home: Path, root: Path, before: dict[str, Manifest], changed: dict[str, Any]) -> None:
    after = chain(config_of(home, **changed), root, 2)
    assert statuses(after)[1:] == ["reused"] * 3
    assert before["fine_tune"].key == after["fine_tune"].key


@pytest.mark.parametrize(
    "changed",
    [
        {"training": {"learning_rate": 0.01}},
        {"model": {"dim": 32}},
        {"evaluation": {"exclude_seen": True}},
        {"evaluation": {"protocols": ["streaming", "leave_one_out"]}},
        {"prepare": {"test_share": 0.3}},
        {"data": {"tags_separator": ","}},
        {"pretrained": {"max_tokens": 8}},
    ],
)
def test_what_shapes_the_model_trains_it_anew(home: Path, root: Path, before: dict[str, Manifest], changed: dict[str, Any]) -> None:
    assert chain(config_of(home, **changed), root, 2)["fine_tune"].key != before["fine_tune"].key


def test_changed_data_and_a_changed_language_model_train_anew(home: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(home, tmp_path / "copied")
    found = [chain(config_of(copied), tmp_path / "mlruns")]
    with (copied / "events.csv").open("a") as file:
        file.write("u1,i5,1700999999\n")
    found.append(chain(config_of(copied), tmp_path / "mlruns", 2))
    tiny_bert(copied / "bert", seed=1)
    found.append(chain(config_of(copied), tmp_path / "mlruns", 3))
    assert len({one["fine_tune"].key for one in found}) == 3


def widened(section: BaseModel, default: Any) -> Any:
    """A section as a later version has it: with one key more."""
    wider = create_model(type(section).__name__, __base__=type(section), momentum=(float, 0.9))
    return wider(**section.model_dump(), momentum=default)


def test_an_added_key_counts_once_it_has_another_value(home: Path, root: Path, before: dict[str, Manifest]) -> None:
    config = config_of(home)
    found = [
        chain(config.model_copy(update={name: widened(getattr(config, name), value) for name in ("training", "prepare")}), root, 2)
        for value in (0.9, 0.5)
    ]
    assert statuses(found[0])[1:] == ["reused"] * 3
    assert found[1]["fine_tune"].key != before["fine_tune"].key


def test_a_default_that_has_changed_counts(home: Path, root: Path, before: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FIRST_DEFAULTS", {"training.patience": 5})  # as if it had been 5 when the key came into being
    assert chain(config_of(home), root, 2)["fine_tune"].key != before["fine_tune"].key


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's code, which stages are keyed by."""
    for package, folder in code.PLACES.items():
        shutil.copytree(folder, tmp_path / "source" / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PLACES", {package: tmp_path / "source" / package for package in code.PLACES})
    return tmp_path / "source"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


TRAINER = "nightloom/training/trainer.py"


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (TRAINER, "\n\n\n", "\n\n\n# a comment\n"),
        (TRAINER, '"""', '"""Another docstring: '),
        ("nightloom/promotion/gate.py", "\n\n\n", "\n\n\nNEW_SETTING = 1\n\n\n"),
        ("nightloom/report/words.py", "\n\n\n", "\n\n\nNEW = 1\n\n\n"),
        (
            "nightloom/config/sections.py",
            "margin: float = Field(0.02, ge=0, le=1)",
            'added: int = 3\n    """New."""\n    margin: float = Field(0.02, ge=0)',
        ),
        ("nightloom/__init__.py", "__version__ = ", '__version__ = "9" + '),
    ],
)
@pytest.mark.usefixtures("before")
def test_edits_that_leave_the_model_as_it_is(home: Path, root: Path, source: Path, path: str, old: str, new: str) -> None:
    edit(source / path, old, new)
    assert statuses(chain(config_of(home), root, 2))[1:] == ["reused"] * 3


@pytest.mark.parametrize("path", [TRAINER, "nightloom/core/ragged.py", "nightloom/models/scorers/graph.py", "nightloom/encoders/text.py"])
def test_changed_code_of_the_trainer_or_of_what_it_imports_trains_anew(
    home: Path, root: Path, before: dict[str, Manifest], source: Path, path: str
) -> None:
    with (source / path).open("a") as file:
        file.write("\n\nADDED = 1\n")
    assert chain(config_of(home), root, 2)["fine_tune"].key != before["fine_tune"].key


def test_another_torch_trains_anew(home: Path, root: Path, before: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "version", lambda library: "9.9" if library == "torch" else "1.0")
    assert chain(config_of(home), root, 2)["fine_tune"].key != before["fine_tune"].key


def test_explain_knows_all_that_it_reads(home: Path, root: Path, before: dict[str, Manifest]) -> None:
    protocols = ["leave_one_out", "streaming"]
    configs = [
        config_of(home),
        config_of(home, training={"seed": 8}),
        config_of(home, evaluation={"exclude_seen": True}),
        config_of(home, evaluation={"protocols": protocols}),
        config_of(home, explain={"users": 3}),
    ]
    given = before["prepare"], before["fine_tune"]
    found = {explain.explain.fn(Night(config, "20260101-000009", root), *given).key for config in configs}
    assert len(found) == len(configs)


def test_replay_knows_what_separates_tags(home: Path, root: Path, before: dict[str, Manifest]) -> None:
    moment = replay.replay.Moment(at=1_700_100_000, until=1_700_200_000)
    configs = [config_of(home), config_of(home, data={"tags_separator": ","})]
    made = [replay.replay_scratch.fn(Night(config, "20260101-000009", root), before["validate"], [moment], 1) for config in configs]
    assert len({scratch.key for (scratch,) in made}) == 2


def test_a_replayed_night_is_judged_anew_where_the_code_that_judges_has_changed(
    home: Path, root: Path, before: dict[str, Manifest], source: Path
) -> None:
    moment, night = replay.replay.Moment(at=1_700_100_000, until=1_700_200_000), Night(config_of(home), "20260101-000009", root)
    (scratch,) = replay.replay_scratch.fn(night, before["validate"], [moment], 1)
    judged = replay.replay_night.fn(night, moment, scratch, None, scratch)
    with (source / "nightloom/experiments/replay.py").open("a") as file:
        file.write("\n\nADDED = 1\n")
    (again,) = replay.replay_scratch.fn(night, before["validate"], [moment], 1)
    assert again.content == scratch.content
    assert replay.replay_night.fn(night, moment, again, None, again).key != judged.key


def test_every_stage_names_its_code() -> None:
    calls = [
        node
        for path in Path("tasks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run_stage"
    ]
    assert len(calls) >= 12
    assert all("code" in {one.arg for one in call.keywords} for call in calls)
