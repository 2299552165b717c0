"""`nightloom compare`: which runs it takes, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nightloom.models.sequential.recommender import SequentialRecommender


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
    assert [line for line in named.splitlines() if "hr_at_10 " in line] == [
        line
        for line in nightloom("compare", home.runs[1].baseline, home.runs[1].model, "--root", home.root)[1].splitlines()
        if "hr_at_10 " in line
    ]


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
