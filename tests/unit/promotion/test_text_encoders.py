"""The text encoder of a version: made and judged at promotion, kept once for all versions, fetched where it serves."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from nightloom.core.digests import folder_digest
from nightloom.encoders.exported import ExportedEncoder
from nightloom.packaging.serving_format import TEXT_ENCODER, ServingManifest
from nightloom.promotion.registered import Version
from nightloom.promotion.registry import Registry
from tests.serving_bundle import serving_bundle
from tests.tiny_models import tiny_bert

TAGS = {"nightloom.data_hash": "d" * 64, "nightloom.config_hash": "c" * 64, "nightloom.git": "unknown", "nightloom.night": "n1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("encoders")
    bert = tiny_bert(folder / "bert")
    return SimpleNamespace(bundle=serving_bundle(folder / "bundle", encoder=str(bert)), registry=Registry(folder / "mlruns"), folder=folder)


def register(home: SimpleNamespace, name: str, bundle: Path | None = None) -> Version:
    registry: Registry = home.registry
    run = registry.tracking.client.create_run(registry.tracking.experiment(name)).info.run_id
    return registry.register(name, bundle or home.bundle, run, TAGS, "card", [["i1"]])


def kept(home: SimpleNamespace, name: str) -> Path:
    tracking = home.registry.tracking
    place = tracking.client.get_experiment(tracking.experiment(name)).artifact_location
    return Path(urlsplit(place).path) / "encoders"


def test_versions_share_one_and_it_is_fetched_whole(home: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = register(home, "shared"), register(home, "shared")
    (there,) = kept(home, "shared").iterdir()
    artefacts = [home.registry.fetch_serving(version, tmp_path) for version in (first, second)]
    said = [ServingManifest.read(artefact).text_encoder for artefact in artefacts]
    assert said[0] == said[1]
    assert said[0] is not None
    assert (said[0]["name"], said[0]["sha256"], said[0]["tuned"]) == (there.name, folder_digest(there), False)
    assert said[0]["neighbours_kept"] > 0.9
    assert not list(artefacts[0].rglob("model.bin"))

    found = home.registry.fetch_text_encoder(second, artefacts[1], tmp_path)
    assert found == tmp_path / "encoders" / there.name
    assert ExportedEncoder(found).dim == said[0]["dim"]
    (found / "model.bin").write_bytes(b"damaged")
    assert home.registry.fetch_text_encoder(second, artefacts[1], tmp_path) == found
    assert folder_digest(found) == said[0]["sha256"]

    before = (there / "model.bin").read_bytes()
    (there / "model.bin").write_bytes(before[:-1] + b"?")
    shutil.rmtree(found)
    with caplog.at_level(logging.WARNING):
        assert home.registry.fetch_text_encoder(second, artefacts[1], tmp_path) is None
    assert there.name in caplog.text
    (there / "model.bin").write_bytes(before[:-1])  # as an upload that was killed leaves it
    register(home, "shared")
    assert home.registry.fetch_text_encoder(second, artefacts[1], tmp_path) == found


def test_that_of_a_tuned_model_lies_in_its_artefact(home: SimpleNamespace, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(home.bundle, tuned)
    shutil.copytree(home.folder / "bert", tuned / "language_model")
    from nightloom.packaging.manifest import seal

    said = json.loads((tuned / "bundle.json").read_text())
    (tuned / "bundle.json").write_text(json.dumps({name: said[name] for name in ("family", "model", "shape", "weights", "heads")}))
    seal(tuned, {"text": said["encoder"]["text"] | {"tuned": True}})
    version = register(home, "tuned", tuned)
    artefact = home.registry.fetch_serving(version, tmp_path)
    assert home.registry.fetch_text_encoder(version, artefact, tmp_path) == artefact / TEXT_ENCODER
    assert ExportedEncoder(artefact / TEXT_ENCODER).dim == 32


def test_without_texts_there_is_none(home: SimpleNamespace, tmp_path: Path) -> None:
    version = register(home, "plain", serving_bundle(tmp_path / "plain"))
    artefact = home.registry.fetch_serving(version, tmp_path)
    assert ServingManifest.read(artefact).text_encoder is None
    assert home.registry.fetch_text_encoder(version, artefact, tmp_path) is None
