"""The command, run in this process, and as its entry point where exit codes count."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from nightloom.cli import main
from nightloom.core.queries import Query
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.promotion.quality import quality_tags
from nightloom.promotion.registry import Registry
from nightloom.runs.stages import Night
from tests.small_bundle import headed_bundle, small_bundle, small_config

EVENTS = "user,film,when,stars\nann,m1,1000000000,5\nann,m2,1000000100,3\nbob,m1,1000000200,4\n"
CONFIG = """
name: mine
data:
  events: ratings.csv
  columns:
    events: {user_id: user, item_id: film, timestamp: when, value: stars}
"""


def per_user(better: int) -> pd.DataFrame:
    """Results of 40 users: the model ranks first for the first `better` of them, popularity always second."""
    rows = [
        {"family": family, "protocol": protocol, "user_id": f"u{user}", "item_id": f"i{user}", "rank": rank, "history": 3, "slices": ""}
        for protocol in ("temporal", "leave_one_out")
        for user in range(40)
        for family, rank in ((SequentialRecommender.family, 1 if user < better else 30), ("popularity", 2))
    ]
    return pd.DataFrame(rows).astype({"rank": "Int32"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An mlruns folder with two nights, as files and as MLflow runs, and a registered champion."""
    folder = tmp_path_factory.mktemp("cli")
    root = folder / "mlruns"
    registry = Registry(root)
    runs = {}
    for number, better in (("20260101-020000", 10), ("20260102-020000", 38)):
        night = Night(small_config("shop"), number, root)
        night.folder.mkdir(parents=True)
        per_user(better).to_parquet(night.folder / "per_user.parquet", index=False)
        with registry.tracking.night(night, {}) as run:
            files = [night.folder / "per_user.parquet"]
            model = registry.tracking.log_family(run, SequentialRecommender.family, {}, tags={}, files=files)
            runs[number] = SimpleNamespace(night=run, model=model, baseline=registry.tracking.log_family(run, "popularity", {}, tags={}))
    night.latest.symlink_to(night.night)
    bundle = small_bundle(folder / "bundle")
    tags = quality_tags({"metric": "ndcg_at_10", "challenger": 0.25, "reasons": ["No champion [stands]."]})
    tags |= {"nightloom.night": "20260102-020000", "nightloom.data_hash": "d" * 64, "nightloom.git": "a" * 40 + "+dirty"}
    for run in runs.values():
        registry.promote(registry.register("shop", bundle, run.model, tags, "card", [["i1"]]))
    return SimpleNamespace(root=root, runs=list(runs.values()), bundle=bundle)


@pytest.fixture
def nightloom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """A function: arguments -> (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nightloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_data_describes_a_table_of_ones_own(nightloom, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(EVENTS)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    code, out, _ = nightloom("data", "--config", tmp_path / "mine.yaml", "--root", tmp_path / "mlruns")
    assert code == 0
    assert "events: 3 rows" in out
    assert all(column in out for column in ("user_id", "item_id", "timestamp", "value"))
    assert str(next((tmp_path / "mlruns" / "snapshots" / "mine").glob("[0-9a-f]*"))) in out


@pytest.mark.parametrize(
    "arguments", [(), ("--preset", "movies-small", "--config", "a.yaml"), ("--preset", "no-such"), ("--config", "a.yaml")]
)
def test_data_refuses(nightloom, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = nightloom("data", *arguments, "--root", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("nightloom: ")


@pytest.mark.parametrize("form", ["name", "name/night", "folder", "run of the night", "run of the model"])
def test_compare_takes_runs_by_every_name(nightloom, home: SimpleNamespace, form: str) -> None:
    nights = home.root / "nights" / "shop"
    a, b = {
        "name": ("shop", "shop/20260101-020000"),
        "name/night": ("shop/20260102-020000", "shop/20260101-020000"),
        "folder": (nights / "latest", nights / "20260101-020000"),
        "run of the night": (home.runs[1].night, home.runs[0].night),
        "run of the model": (home.runs[1].model, home.runs[0].model),
    }[form]
    code, out, _ = nightloom("compare", a, b, "--root", home.root)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "hr_at_10 " in line]
    assert [cell.strip() for cell in line.strip("│").split("│")][:5] == ["hr_at_10", "0.9500", "0.2500", "+0.7000", "+280.0%"]
    assert line.rstrip("│ ").endswith("40")
    assert "temporal" in out


def test_compare_takes_the_family_of_a_nested_run(nightloom, home: SimpleNamespace) -> None:
    code, out, _ = nightloom("compare", home.runs[1].baseline, home.runs[1].model, "--protocol", "leave_one_out", "--root", home.root)
    assert code == 0
    assert out.splitlines()[0].startswith(f"popularity of {home.runs[1].baseline} less {SequentialRecommender.family} of")
    assert "leave_one_out" in out
    named = nightloom("compare", "shop", "shop", "--family", "popularity", "--family-b", SequentialRecommender.family, "--root", home.root)[
        1
    ]
    by_run = nightloom("compare", home.runs[1].baseline, home.runs[1].model, "--root", home.root)[1]
    figures = [[line.split() for line in said.splitlines() if "hr_at_10 " in line] for said in (named, by_run)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such", "shop"), "'no-such' is no MLflow run id"),
        (("0" * 32, "shop"), f"has no run {'0' * 32}"),
        (
            ("shop", "shop", "--family", "magic"),
            f"no results of family 'magic' under 'temporal'. There are: {SequentialRecommender.family} / leave_one_out",
        ),
    ],
)
def test_compare_refuses(nightloom, home: SimpleNamespace, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = nightloom("compare", *arguments, "--root", home.root)
    assert (code, out) == (2, "")
    assert said in err


def test_compare_refuses_other_data_and_shows_what_differs(nightloom, home: SimpleNamespace, tmp_path: Path) -> None:
    for name, data, epochs in (("a", "a", 60), ("b", "b", 60), ("c", "a", 5)):
        (tmp_path / name).mkdir()
        per_user(20).to_parquet(tmp_path / name / "per_user.parquet", index=False)
        content = {"data_hash": data * 64, "config": {"training": {"epochs": epochs}}, "gate": {"metric": "hr_at_10"}}
        (tmp_path / name / "report.json").write_text(json.dumps(content))
    code, out, err = nightloom("compare", tmp_path / "a", tmp_path / "b", "--root", home.root)
    assert (code, out) == (2, "")
    assert "different data" in err
    assert nightloom("compare", tmp_path / "a", tmp_path / "b", "--other-data", "--root", home.root)[0] == 0
    code, out, _ = nightloom("compare", tmp_path / "a", tmp_path / "c", "--root", home.root)
    assert code == 0
    assert [line.split()[1:3] for line in out.splitlines() if "(decides)" in line] == [["hr_at_10", "(decides)"]]
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if "training.epochs" in line] == [
        ["training.epochs", "60", "5"]
    ]


@pytest.mark.parametrize("by", ["name", "folder"])
def test_recommend(nightloom, home: SimpleNamespace, by: str) -> None:
    model = "shop" if by == "name" else home.bundle
    code, out, _ = nightloom("recommend", model, "--history", "i1, i2", "-k", 3, "--root", home.root)
    assert code == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    expected = Bundle.load(home.bundle).recommend([Query(["i1", "i2"])], 3)[0]
    assert rows == [[str(rank), item, f"Title [{item[1:]}]", f"{score:.4f}"] for rank, (item, score) in enumerate(expected, start=1)]


def test_recommend_prints_the_chances_of_the_heads(nightloom, tmp_path: Path) -> None:
    code, out, _ = nightloom("recommend", headed_bundle(tmp_path / "bundle"), "--history", "i1,i2", "-k", 2)
    assert code == 0
    heads, *rows = [[cell.strip() for cell in line.strip("│┃").split(line[0])] for line in out.splitlines() if line[0] in "│┃"]
    assert heads == ["rank", "item", "title", "score", "probability", "label probability"]
    for _, _, _, score, probability, label in rows:
        assert float(probability) == pytest.approx(1 / (1 + math.exp(-float(score))), abs=1e-4)
        assert 0 < float(label) < 1


def test_recommend_refuses(nightloom, home: SimpleNamespace) -> None:
    code, _, err = nightloom("recommend", "shop", "--history", "i1,toaster", "--root", home.root)
    assert code == 2
    assert "1 of 2 ids are not in the catalogue of 10 items, for example 'toaster'. Its ids look like 'i0'" in err
    code, _, err = nightloom("recommend", "no-such", "--root", home.root)
    assert code == 2
    assert "nightloom-no-such has no champion" in err


def test_versions_and_rollback(nightloom, home: SimpleNamespace) -> None:
    code, out, _ = nightloom("versions", "shop", "--root", home.root)
    assert code == 0
    newest, oldest = [line for line in out.splitlines() if line.startswith("│")]
    assert all(word in newest for word in ("2", "challenger, champion", "20260102-020000", "dddddddd", "aaaaaaaa+dirty"))
    assert all(word in newest for word in ("ndcg_at_10 0.2500", " min ", "No champion [stands]."))
    assert "previous" in oldest
    assert nightloom("rollback", "shop", "--root", home.root)[:2] == (0, "nightloom-shop: version 1 is the champion again.\n")
    code, _, err = nightloom("rollback", "shop", "--root", home.root)
    assert (code, err.startswith("nightloom: nightloom-shop has no previous version")) == (2, True)


@pytest.mark.parametrize("command", [("versions", "shop"), ("rollback", "shop"), ("recommend", "shop"), ("compare", "0" * 32, "shop")])
def test_looking_where_no_night_has_run_makes_nothing(nightloom, tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, err = nightloom(*command, "--root", tmp_path / "mlruns")
    assert code == 2
    assert "no night has run there" in err
    assert list(tmp_path.iterdir()) == []


def test_the_entry_point_tells_refused_input_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from nightloom.cli import main; main()", "versions", "shop"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nightloom: mlruns/mlflow.db: no night has run there. Set --root to the mlruns folder, or NIGHTLOOM_MLFLOW_URI.\n"
    assert list(tmp_path.iterdir()) == []
