"""`nightloom compare`: which runs it takes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from nightloom.models.sequential.recommender import SequentialRecommender
from tests.unit.cli.conftest import per_user


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
