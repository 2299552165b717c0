"""The serving artefact: whole, checked, and enough alone, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from nightloom.core.digests import read_sealed, write_sealed
from nightloom.core.errors import InputError, NightloomError
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import label_arrays, write_serving
from nightloom.packaging.serving_format import FILE
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.warm import check
from tests.serving_bundle import serving_bundle

ANSWER = """
import json, sys
from pathlib import Path
from nightloom.core.queries import Query
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.warm import check
engine = Engine.open(Path(sys.argv[1]))
items, _ = engine.recommend(Query(["i1", "i2"]), 5)
heavy = {"torch", "pandas", "pyarrow", "prefect", "great_expectations", "mlflow", "transformers", "pydantic"}
print(json.dumps([items.tolist(), sorted(heavy & {name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artefact")
    write_serving(serving_bundle(folder / "bundle", reranker=True, labels=True), folder / "serving")
    return folder / "serving"


def test_it_answers_alone_and_imports_nothing_heavy(artefact: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    for path in artefact.iterdir():
        (alone / path.name).write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(alone)], capture_output=True, text=True, check=False, env={**os.environ}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    items, heavy = json.loads(done.stdout)
    assert len(items) == 5
    assert heavy == []


def test_the_same_bundle_gives_the_same_files(artefact: Path, tmp_path: Path) -> None:
    again = write_serving(artefact.with_name("bundle"), tmp_path / "again")
    assert again.files == json.loads((artefact / FILE).read_text())["files"]
    assert {path.name for path in artefact.iterdir()} == {*again.files, FILE}


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "of a newer format", "no manifest"])
def test_a_damaged_artefact_is_refused(artefact: Path, tmp_path: Path, harm: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in artefact.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    file = broken / "network.safetensors"
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-1])
    elif harm == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "gone":
        file.unlink()
    elif harm == "no manifest":
        (broken / FILE).unlink()
    else:
        said = read_sealed(broken / FILE)
        write_sealed(broken / FILE, said | {"format": said["format"] + 1})
    with pytest.raises(InputError, match=FILE if harm in ("of a newer format", "no manifest") else "network.safetensors"):
        Engine.open(broken)


def test_a_graph_without_counts_is_refused(tmp_path: Path) -> None:
    bundle = serving_bundle(tmp_path / "bundle", scorers=("graph",))
    with np.load(bundle / "graph.npz") as arrays:
        kept = {name: arrays[name] for name in arrays if name != "seen"}
    np.savez(bundle / "graph.npz", **kept)
    said = read_sealed(bundle / "bundle.json")
    del said["files"]["graph.npz"]
    write_sealed(bundle / "bundle.json", said)
    with pytest.raises(InputError, match="how often items were seen"):
        write_serving(bundle, tmp_path / "serving")
    assert not (tmp_path / "serving").exists()


def test_a_label_head_is_not_made_up(tmp_path: Path) -> None:
    bundle = Bundle.load(serving_bundle(tmp_path / "bundle", scorers=()))
    with pytest.raises(ValueError, match="no calibrated label head"):
        label_arrays(bundle.recommender)


@pytest.mark.parametrize("newcomers", [True, False])
def test_it_says_both_sets_of_weights(tmp_path: Path, newcomers: bool) -> None:
    bundle = serving_bundle(tmp_path / "bundle", scorers=("popularity", "als"), newcomers=newcomers)
    said, of_bundle = write_serving(bundle, tmp_path / "serving"), json.loads((bundle / "bundle.json").read_text())
    assert said.weights == of_bundle["weights"]
    assert said.newcomer_weights == (of_bundle["newcomer_weights"] if newcomers else of_bundle["weights"])
    assert (said.newcomer_weights != said.weights) == newcomers


def test_the_probes_are_answered_as_by_the_bundle(artefact: Path) -> None:
    engine = Engine.open(artefact)
    check(engine)
    assert [len(probe["history"]) for probe in engine.artefact.probes] == [0, 1, 50, engine.max_history + 1]


def test_an_engine_that_answers_otherwise_is_found_out(artefact: Path) -> None:
    engine = Engine.open(artefact)
    engine.net.down[-1] *= 1.01
    with pytest.raises(NightloomError, match=r"probe \d .* is answered otherwise"):
        check(engine)


WARM = """
import sys
from pathlib import Path
from nightloom.serving.model.warm import warm
warm(Path(sys.argv[1]))
from nightloom.serving.items import growing, new_items
from nightloom.serving.model import counters, rerank, scoring, transformer
modules = (counters, growing, new_items, rerank, scoring, transformer)
kernels = [one for module in modules for one in vars(module).values() if hasattr(one, "stats") and one.__module__ == module.__name__]
print(sum(sum(one.stats.cache_misses.values()) for one in kernels))
print(sorted(one.__name__ for one in kernels if len(one.signatures) > 1))
"""


def test_once_warm_nothing_is_compiled_any_more(artefact: Path) -> None:
    """Every kernel is called with one set of types, and the next process finds all compiled."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WARM, str(artefact)], capture_output=True, text=True, check=False, env={**os.environ}, timeout=300
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0", "[]"]


def test_where_no_cache_can_be_written_kernels_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(lambda x: x + 1)
    assert kernel(lambda x: x + 1)(2) == 3
