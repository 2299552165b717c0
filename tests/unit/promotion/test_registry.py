"""The registry on a real MLflow database, with a real bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.core.digests import folder_digest, read_sealed, write_sealed
from nightloom.core.errors import InputError, NightloomError, RenamedWarning
from nightloom.core.queries import Query
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_format import READABLE
from nightloom.promotion.registered import TRAINED_TAG, Version
from nightloom.promotion.registry import Registry
from nightloom.promotion.standing import stand
from nightloom.promotion.version_files import FILES_TAG
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.warm import check
from tests.small_bundle import headed_bundle, small_bundle

TAGS = {"nightloom.data_hash": "d" * 64, "nightloom.config_hash": "c" * 64, "nightloom.git": "unknown", "nightloom.night": "n1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A registry, a bundle and a store of events; each test uses a recommender of its own name."""
    folder = tmp_path_factory.mktemp("registry")
    at = pd.to_datetime([3000, 1000, 2000, 5000], unit="s", utc=True).as_unit("ms")
    events = pd.DataFrame({"user_id": ["ann", "ann", "ann", "bob"], "item_id": ["i3", "i1", "i2", "i9"], "timestamp": at, "event": "buy"})
    (folder / "snapshot").mkdir()
    events.to_parquet(folder / "snapshot" / "events.parquet", index=False)
    return SimpleNamespace(
        root=folder / "mlruns", registry=Registry(folder / "mlruns"), bundle=small_bundle(folder / "bundle"), events=folder / "snapshot"
    )


def register(home: SimpleNamespace, name: str, **more: Any) -> Version:
    """Register the bundle under a run of its own."""
    tracking = home.registry.tracking
    run = tracking.client.create_run(tracking.experiment(name)).info.run_id
    card = "# A card\n" + "x" * 6000
    return home.registry.register(name, home.bundle, run, more.pop("tags", TAGS), card, [["i1", "i2"]], **more)


def test_first_night_and_the_next(home: SimpleNamespace) -> None:
    registry = home.registry
    assert registry.champion("films") is None
    assert registry.versions("films") == []
    assert registry.aliases("films") == {"champion": None, "challenger": None, "previous": None, "anchor": None}

    first = register(home, "films")
    assert registry.champion("films") is None
    registry.promote(first)
    assert registry.aliases("films") == {"champion": "1", "challenger": "1", "previous": None, "anchor": "1"}

    second = register(home, "films")
    assert registry.aliases("films") == {"champion": "1", "challenger": "2", "previous": None, "anchor": "1"}
    registry.promote(second)
    registry.promote(second)
    assert registry.aliases("films") == {"champion": "2", "challenger": "2", "previous": "1", "anchor": "1"}

    newest, oldest = registry.versions("films")
    assert (newest.version, newest.aliases, newest.tags) == (
        "2",
        ("challenger", "champion"),
        TAGS | {FILES_TAG: folder_digest(home.bundle)},
    )
    assert (oldest.aliases, oldest.name, oldest.run_id) == (("anchor", "previous"), "films", first.run_id)


def test_a_run_registers_once(home: SimpleNamespace) -> None:
    first = register(home, "again")
    again = home.registry.register("again", home.bundle, first.run_id, TAGS, "card", [["i1"]])
    assert again.version == first.version
    assert len(home.registry.versions("again")) == 1


def test_what_was_trained_once_is_registered_once_whatever_run_asks(home: SimpleNamespace) -> None:
    """A night started again has another run, finds its version, and is compared with what stood before it."""
    registry, trained = home.registry, [{TRAINED_TAG: f"{letter * 16} temporal"} for letter in "ab"]
    assert registry.candidates("twice", trained[0][TRAINED_TAG]) == []
    first = register(home, "twice", tags=TAGS | trained[0])
    again = register(home, "twice", tags=TAGS | trained[0])
    assert (again.version, again.run_id) == (first.version, first.run_id)
    registry.promote(first)
    assert registry.candidates("twice", trained[0][TRAINED_TAG]) == []
    assert registry.candidates("twice", trained[1][TRAINED_TAG]) == [registry.champion("twice")]
    second = register(home, "twice", tags=TAGS | trained[1])
    registry.promote(second)
    for _ in range(2):  # killed after the promotion, twice
        registry.promote(register(home, "twice", tags=TAGS | trained[1]))
    assert registry.aliases("twice") == {"champion": "2", "challenger": "2", "previous": "1", "anchor": "1"}
    (before,) = registry.candidates("twice", trained[1][TRAINED_TAG])
    assert before.version == "1"
    assert registry.rollback("twice").version == "1"


@pytest.mark.parametrize("call", ["promote", "rollback"])
def test_a_kill_between_alias_writes_leaves_a_champion_and_may_be_repeated(
    home: SimpleNamespace, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    registry, name = home.registry, f"killed-{call}"
    first, second = register(home, name), register(home, name)
    registry.promote(first)
    if call == "rollback":
        registry.promote(second)
    act = {"promote": lambda: registry.promote(second), "rollback": lambda: registry.rollback(name)}[call]
    writes = []
    real_set, real_delete = registry.client.set_registered_model_alias, registry.client.delete_registered_model_alias

    def counted(real: Any) -> Any:
        def write(*arguments: Any) -> None:
            if writes:
                raise Killed
            writes.append(arguments)
            real(*arguments)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(registry.client, "set_registered_model_alias", counted(real_set))
        patch.setattr(registry.client, "delete_registered_model_alias", counted(real_delete))
        with pytest.raises(Killed):
            act()
    assert registry.champion(name) is not None
    act()
    expected = {"promote": {"champion": "2", "previous": "1"}, "rollback": {"champion": "1", "previous": None}}[call]
    assert registry.aliases(name) == expected | {"challenger": "2", "anchor": "1"}


def test_rollback_needs_a_previous_version_and_does_not_toggle(home: SimpleNamespace) -> None:
    registry = home.registry
    registry.promote(register(home, "back"))
    with pytest.raises(InputError, match="no previous version"):
        registry.rollback("back")
    registry.promote(register(home, "back"))
    assert registry.rollback("back").version == "1"
    with pytest.raises(InputError, match="no previous version"):
        registry.rollback("back")
    assert registry.aliases("back") == {"champion": "1", "challenger": "2", "previous": None, "anchor": "1"}


def test_the_best_version_stays_the_anchor_until_a_better_one_comes_or_it_is_taken_back(home: SimpleNamespace, tmp_path: Path) -> None:
    registry = home.registry

    def rivals() -> dict[str, str]:
        return {name: one.version for name, one in stand(registry, "best", "new", tmp_path / "champions").rivals.items()}

    versions = [register(home, "best", tags=TAGS | {"nightloom.trained": str(number)}) for number in range(4)]
    registry.promote(versions[0], best=True)
    registry.promote(versions[1])
    assert rivals() == {"champion": "2", "anchor": "1"}
    registry.promote(versions[2], best=True)
    assert rivals() == {"champion": "3"}
    registry.promote(versions[3])
    registry.rollback("best")
    assert registry.aliases("best") == {"champion": "3", "challenger": "4", "previous": None, "anchor": "3"}
    registry.release("best")
    registry.promote(versions[3], best=True)
    registry.rollback("best")
    assert registry.aliases("best")["anchor"] == "3"


def test_fetch_gives_the_bundle_that_was_registered(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "fetched")
    folder = home.registry.fetch(version, tmp_path / "champions")
    assert home.registry.fetch(version, tmp_path / "champions") == folder
    assert [path.name for path in (tmp_path / "champions").iterdir()] == [folder.name]
    assert Bundle.load(folder).recommend([Query(["i1"])], 3) == Bundle.load(home.bundle).recommend([Query(["i1"])], 3)


def test_a_version_holds_what_the_service_reads(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "served")
    folder = home.registry.fetch_serving(version, tmp_path)
    assert home.registry.fetch_serving(version, tmp_path) == folder
    check(Engine.open(folder))
    query = Query(["i1"])
    items, _ = Engine.open(folder).recommend(query, 3)
    assert [f"i{item}" for item in items] == [item for item, _ in Bundle.load(home.bundle).recommend([query], 3)[0]]
    assert not (tmp_path / "champions").exists()
    assert home.registry.fetch(version, tmp_path / "champions") != folder


def test_a_version_without_one_gets_it_where_it_is_fetched(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "earlier")
    place = Path(home.registry.client.get_model_version_download_uri(version.model, version.version).removeprefix("file://"))
    (artefact,) = (path.parent for path in place.rglob("serving.json"))
    shutil.rmtree(artefact)
    check(Engine.open(home.registry.fetch_serving(version, tmp_path)))


@pytest.mark.parametrize("where", ["registered", "fetched"])
def test_an_artefact_of_another_format_is_made_anew(home: SimpleNamespace, tmp_path: Path, where: str) -> None:
    version = register(home, f"format-{where}")
    place = Path(home.registry.client.get_model_version_download_uri(version.model, version.version).removeprefix("file://"))
    (artefact,) = (path.parent for path in place.rglob("serving.json"))
    if where == "fetched":
        artefact = home.registry.fetch_serving(version, tmp_path)
    said = read_sealed(artefact / "serving.json")
    write_sealed(artefact / "serving.json", {"format": min(READABLE) - 1, "nightloom": "0.2.0", "files": said["files"]})
    folder = home.registry.fetch_serving(version, tmp_path)
    check(Engine.open(folder))
    assert home.registry.fetch_serving(version, tmp_path) == folder


def test_a_champion_of_the_version_before_can_still_be_compared(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "old")
    place = Path(home.registry.client.get_model_version_download_uri(version.model, version.version).removeprefix("file://"))
    (bundle,) = (path.parent for path in place.rglob("bundle.json"))
    shutil.rmtree(bundle)
    with zipfile.ZipFile(Path(__file__).parents[1] / "packaging" / "bundle_of_format_1.zip") as packed:
        packed.extractall(bundle)
    folder = home.registry.fetch(replace(version, tags=TAGS), tmp_path / "champions")  # such versions have no tag of their files
    with pytest.warns(RenamedWarning, match="a bundle of the version before"):
        champion = Bundle.load(folder)
    histories = champion.histories([Query(["i1", "i2"])])
    found = champion.reindex(champion.items.iloc[::-1].reset_index(drop=True), None).network_scores(
        champion.histories([Query(["i8", "i7"])])
    )
    np.testing.assert_allclose(found[:, ::-1], champion.recommender.network_scores(histories), rtol=1e-4, atol=1e-5)


def test_fetch_of_lost_files_says_what_to_do(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "lost")
    shutil.rmtree(home.registry.client.get_model_version_download_uri(version.model, version.version).removeprefix("file://"))
    with pytest.raises(NightloomError, match=r"nightloom-lost version 1: its files can not be read from .*nightloom rollback lost"):
        home.registry.fetch(version, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_global_state_of_mlflow_is_left_alone(home: SimpleNamespace) -> None:
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), list(sys.path)
    register(home, "global")
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), list(sys.path)) == before
    assert mlflow.active_run() is None


def test_what_stands_beside_the_model(home: SimpleNamespace) -> None:
    from mlflow.models import Model

    version = register(home, "beside")
    found = home.registry.client.get_model_version(version.model, version.version)
    assert found.description.startswith("# A card")
    folder = Path(home.registry.client.get_model_version_download_uri(version.model, version.version).removeprefix("file://"))
    assert (folder / "model_card.md").read_text().startswith("# A card")
    assert not list(folder.rglob("__pycache__"))
    said = Model.load(str(folder))
    assert home.registry.client.get_logged_model(said.model_id).source_run_id == version.run_id
    assert [one.name for one in said.signature.inputs] == [
        "history",
        "times",
        "events",
        "positive",
        "friends",
        "user_id",
        "request_time",
        "asked_at",
    ]
    assert said.load_input_example(str(folder)).to_dict("list") == {"history": [["i1", "i2"]]}
    requirements = (folder / "requirements.txt").read_text().split()
    assert any(one.startswith("torch==") and "+" not in one for one in requirements)
    assert not any(one.startswith(("nightloom", "prefect", "great")) for one in requirements)


ASK = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/nightloom-clean@champion")
def ask(rows, **params):
    answer = model.predict(pd.DataFrame(rows), params=params)
    assert list(answer.columns) == ["items", "scores"]
    return answer["items"].tolist()
def fails(rows):
    try:
        ask(rows)
    except Exception as error:
        return str(error)
from nightloom import __file__ as where
said = {
    "history": ask({"history": [["i1", "i2"], ["no such item"], []]}, k=3),
    "default_k": len(ask({"history": [["i1"]]})[0]),
    "seen": ask({"history": [["i1", "i2"]]}, k=10, exclude_seen=True)[0],
    "ann": ask({"user_id": ["ann", "nobody"]}, k=3),
    "ann_told": ask({"history": [["i1", "i2", "i3"], []], "times": [[1000, 2000, 3000], []]}, k=3),
    "mixed": ask([{"history": ["i1", "i2"], "user_id": None}, {"history": None, "user_id": "ann"}], k=3),
    "friends": ask({"history": [["i1", "i2"]], "friends": [[["i0"], ["i0"]]]}, k=3)[0],
    "named": ask({"history": [["i1", "i2"]], "events": [["buy", "buy"]]}, k=3)[0],
    "other_event": fails({"history": [["i1"]], "events": [["sold"]]}),
    "neither": fails({"something": ["x"]}),
    "where": where,
}
import os
os.environ["NIGHTLOOM_EVENTS"] = "/nowhere/events.parquet"
said["no_store"] = fails({"user_id": ["ann"]})
json.dump(said, sys.stdout)
"""


def in_a_clean_process(script: str, uri: str, folder: Path) -> Any:
    """What a script prints as JSON where nothing of this checkout can be imported, called with the address of MLflow."""
    (folder / "elsewhere").mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "NIGHTLOOM_EVENTS")}
    # -S leaves out site's .pth files, through which an editable install would find nightloom; the packages are named instead.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, uri],
        cwd=folder / "elsewhere",
        env=environment | {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_registered_model_answers_in_a_clean_process(home: SimpleNamespace, tmp_path: Path) -> None:
    home.registry.promote(register(home, "clean", events=home.events, exclude_seen=False))
    said = in_a_clean_process(ASK, home.registry.tracking.uri, tmp_path)
    bundle = Bundle.load(home.bundle)

    def items(history: list[str], times: list[int] | None = None, k: int = 3) -> list[str]:
        return [item for item, _ in bundle.recommend([Query(history, times)], k, exclude_seen=False)[0]]

    assert "/src/nightloom/" not in said["where"]
    assert said["history"] == [items(["i1", "i2"]), items([]), items([])]
    assert said["default_k"] == 10
    assert not {"i1", "i2"} & set(said["seen"])
    assert said["ann"] == said["ann_told"] == [items(["i1", "i2", "i3"], [1000, 2000, 3000]), items([])]
    assert said["mixed"] == [items(["i1", "i2"]), said["ann"][0]]
    linked = bundle.recommend([Query(["i1", "i2"], friends=[["i0"], ["i0"]])], 3, exclude_seen=False)[0]
    assert said["friends"] == [item for item, _ in linked]
    assert said["friends"] != items(["i1", "i2"])
    assert said["named"] == items(["i1", "i2"])
    assert "the model knows no event 'sold'. It knows: buy." in said["other_event"]
    assert "history" in said["neither"]
    assert "/nowhere/events.parquet" in said["no_store"]
    assert "NIGHTLOOM_EVENTS" in said["no_store"]


CHANCES = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/nightloom-heads@champion")
rows = [{"history": ["i1", "i2"], "times": [1700000000, 1700000500]}, {"history": ["i3"], "times": None}]
told = [{}, {"positive": [True, False]}, {"request_time": 1700864000}, {"asked_at": 1700864000}]
said = [model.predict(pd.DataFrame([{**rows[0], **more}, *(rows[1:] if not more else [])]), params={"k": 4}) for more in told]
signature = model.metadata.signature
names = [[one.name for one in side] for side in (signature.inputs, signature.outputs)]
json.dump({"answers": [one.to_dict("list") for one in said], "names": names}, sys.stdout)
"""


def test_the_registered_model_gives_the_chances_of_its_heads(home: SimpleNamespace, tmp_path: Path) -> None:
    bundle = Bundle.load(headed_bundle(tmp_path / "bundle"))
    run = home.registry.tracking.client.create_run(home.registry.tracking.experiment("heads")).info.run_id
    home.registry.promote(home.registry.register("heads", tmp_path / "bundle", run, TAGS, "# A card", [["i1", "i2"]]))
    said = in_a_clean_process(CHANCES, home.registry.tracking.uri, tmp_path)
    first, liked_less, later, by_the_old_name = said["answers"]
    assert by_the_old_name == later
    inputs, outputs = said["names"]
    assert list(first) == outputs == ["items", "scores", "probability", "label_probability"]
    assert inputs == ["history", "times", "events", "positive", "friends", "user_id", "request_time", "asked_at"]
    for row, query in enumerate([Query(["i1", "i2"], [1_700_000_000, 1_700_000_500]), Query(["i3"])]):
        answers = bundle.recommend([query], 4)
        items, scores = zip(*answers[0], strict=True)
        assert first["items"][row] == list(items)
        assert first["scores"][row] == pytest.approx(scores, abs=1e-5)
        assert first["probability"][row] == pytest.approx([1 / (1 + np.exp(-score)) for score in scores], abs=1e-6)
        assert first["label_probability"][row] == pytest.approx(bundle.probabilities([query], [list(items)])[0], abs=1e-6)
    after = bundle.recommend([Query(["i1", "i2"], [1_700_000_000, 1_700_000_500], request_time=1_700_864_000)], 4)[0]
    assert later["probability"][0] == pytest.approx([1 / (1 + np.exp(-score)) for _, score in after], abs=1e-6)
    assert later["probability"][0] != pytest.approx(first["probability"][0], abs=1e-6)
    assert liked_less["label_probability"][0] != pytest.approx(first["label_probability"][0], abs=1e-6)
