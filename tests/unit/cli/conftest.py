"""An mlruns folder that commands look at, and a way to run a command in this process."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from nightloom.cli import main
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.promotion.quality import quality_tags
from nightloom.promotion.registry import Registry
from nightloom.runs.stages import Night
from tests.small_bundle import small_bundle, small_config


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
