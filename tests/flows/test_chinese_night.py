"""A Chinese shop: tables in Chinese with Chinese column names, from the CSV to the list, the report and its figures."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.cli import main
from nightloom.config import load_config
from nightloom.core.errors import InputError
from nightloom.core.fonts import drawable
from nightloom.data.collect import collect
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.explain import plots
from nightloom.explain.reasons import Reason
from tests.sections import of_collect
from tests.tiny_models import tiny_bert

REPOSITORY = Path(__file__).parents[2]
EVENT_TYPES = {
    "手机": ("数码", "通讯"),
    "耳机": ("数码", "音频"),
    "茶杯": ("家居", "厨房"),
    "围巾": ("服饰", "冬季"),
    "童书": ("图书", "儿童"),
}
MAKES = ["华为", "小米", "青花", "丝绸", "红楼", "长城"]
TITLES = [f"{make}{kind}" for kind in EVENT_TYPES for make in MAKES]
CONFIG = """
name: {name}
data:
  events: {folder}/行为.csv
  items: {folder}/商品.csv
  users: {folder}/用户.csv
  encoding: {encoding}
  columns:
    events: {{user_id: 用户编号, item_id: 商品编号, timestamp: 时间, event: 行为}}
    items: {{item_id: 商品编号, 标题: 标题, 标签: 标签}}
    users: {{user_id: 用户编号, 城市: 城市}}
  features: {{标题: text, 标签: tags}}
  tags_separator: 、
validation: {{allowed_events: [购买]}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 2, workers: 1}}
evaluation: {{baselines: [popularity]}}
explain: {{users: 2, max_events: 4, samples: 32}}
promotion: {{must_beat_baselines: false, resamples: 200}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same three tables in UTF-8 and in GB 18030, and a config of each."""
    home = tmp_path_factory.mktemp("chinese")
    random, users, steps = np.random.default_rng(0), 60, 8
    user, step = np.repeat(np.arange(users), steps), np.tile(np.arange(steps), users)
    item = (np.repeat(random.integers(0, len(TITLES), users), steps) + step) % len(TITLES)
    ids = [f"货号,{number}" for number in range(len(TITLES))]  # with a comma, as some shops have them
    tables = {
        "行为": {
            "用户编号": [f"客户{one}" for one in user],
            "商品编号": [ids[one] for one in item],
            "时间": 1_700_000_000 + 90_000 * step + user,
            "行为": "购买",
        },
        "商品": {"商品编号": ids, "标题": TITLES, "标签": ["、".join(EVENT_TYPES[title[2:]]) for title in TITLES]},
        "用户": {"用户编号": [f"客户{one}" for one in range(users)], "城市": ["北京" if one % 2 else "上海" for one in range(users)]},
    }
    model = tiny_bert(home / "bert", letters="".join(sorted({*"".join(TITLES), *"".join(sum(EVENT_TYPES.values(), ()))})))
    for encoding in ("utf-8", "gb18030"):
        (home / encoding).mkdir()
        for name, table in tables.items():
            pd.DataFrame(table).to_csv(home / encoding / f"{name}.csv", index=False, encoding=encoding)
        content = CONFIG.format(name=f"zh-{encoding}", folder=encoding, encoding=encoding, model=model)
        (home / f"{encoding}.yaml").write_text(content, encoding="utf-8")
    return home


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",  # those of other kinds are shown then, which a command else keeps off
    }
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False)


def test_either_encoding_gives_the_same_good_tables(home: Path, tmp_path: Path) -> None:
    made = [collect(*of_collect(load_config(home / f"{encoding}.yaml")), tmp_path) for encoding in ("utf-8", "gb18030")]
    assert made[0].hash == made[1].hash
    assert made[0].features == {"标题": "text", "标签": "tags"}
    tables = read_snapshot(made[1].path)
    assert tables.items is not None
    assert tables.items["标题"].tolist() == TITLES
    assert {"华为手机", "长城童书"} <= set(tables.items["标题"])


def test_the_wrong_encoding_is_refused_with_the_likely_one(home: Path, tmp_path: Path) -> None:
    config = load_config(home / "gb18030.yaml", ["data.encoding=utf-8"])
    with pytest.raises(InputError, match=r"for example data\.encoding: gb18030"):
        collect(config.name, config.data, tmp_path)


def test_a_night_reads_ranks_and_reports_chinese(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(home, "flows.nightly", "--config", "gb18030.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Glyph" not in done.stderr
    assert "Warning" not in done.stderr
    (prepared,) = (home / "mlruns" / "stages" / "zh-gb18030" / "prepare").glob("*/items.parquet")
    text = pd.read_parquet(prepared)["text"]
    assert text.iloc[0].startswith("华为手机")
    assert "数码" in text.iloc[0]
    assert "、" not in text.iloc[0]  # the tags are apart
    report = (home / "mlruns" / "nights" / "zh-gb18030" / "latest" / "report.html").read_text(encoding="utf-8")
    assert any(title in report for title in TITLES)
    assert "城市=北京" in report

    def recommend(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nightloom", "recommend", "zh-gb18030", "--root", str(home / "mlruns"), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    code, out, _ = recommend("--item", "货号,3", "--item", "货号,4", "-k", "5")
    assert code == 0
    rows = [line for line in out.splitlines() if "货号," in line]
    assert len(rows) == 5
    assert not any("货号,3 " in row or "货号,4 " in row for row in rows)  # they were had
    assert all(any(title in row for title in TITLES) for row in rows)
    code, _, error = recommend("--history", "货号,3")
    assert code == 2
    assert "Give ids that hold a comma with --item" in error


def test_figures_hold_no_empty_boxes(tmp_path: Path) -> None:
    reasons = [Reason("event", "sku-1", "华为手机", 0.5, 0.1, 1.0, position=1), Reason("field", "标签", "标签 (数码)", 0.2, 0.0, 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.recommendation(tmp_path / "one.png", drawable("小米耳机, for user 客户1", "recommendation 1"), reasons)
        plots.summary(tmp_path / "all.png", [reasons])
    assert drawable("Été à Łódź", "other") == "Été à Łódź"
    assert drawable("华为手机", "sku-1") in ("华为手机", "sku-1")  # by the fonts that are installed
    assert drawable("\ue000", "\ue001", "field 1") == "field 1"
