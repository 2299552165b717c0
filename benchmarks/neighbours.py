"""Which texts a language model takes for alike, shown on a small Chinese catalogue with a few English titles in it.

    python -m benchmarks.neighbours models/multilingual-e5-small sentence-transformers/all-MiniLM-L6-v2 [--table FILE]

Neighbours are those of the scorer `text_neighbours`, so this is what a shop gets before its first event.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console

from nightloom.core.errors import NightloomError
from nightloom.core.sequences import Histories
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.weights import resolve
from nightloom.models.scorers.text_neighbours import TextNeighbours

SHELVES = {
    "phones": (
        "华为智能手机 5G 全网通",
        "小米手机 大屏 长续航",
        "二手苹果手机 128G",
        "老人机 大字体 大音量",
        "A smartphone with a long battery life",
    ),
    "tea": ("西湖龙井 明前绿茶", "云南普洱茶饼 陈年熟茶", "茉莉花茶 散装", "铁观音 乌龙茶 礼盒", "Green tea from China, loose leaves"),
    "scarves": ("羊绒围巾 女 冬季", "真丝丝巾 春秋薄款", "男士格子围巾 保暖", "儿童毛线围脖", "A warm woollen scarf for the winter"),
    "novels": ("三体 刘慈欣 科幻小说", "红楼梦 古典文学名著", "活着 余华 长篇小说", "侦探推理小说集", "A science fiction novel"),
    "pans": ("不粘锅 平底煎锅", "铸铁炒锅 无涂层", "高压锅 家用电磁炉通用", "不锈钢汤锅 加厚", "A cast iron frying pan"),
}
"""Titles made for this page; the last of each shelf says in English what its neighbours sell."""
TITLES = [title for titles in SHELVES.values() for title in titles]
SHELF = [shelf for shelf, titles in SHELVES.items() for _ in titles]
ENGLISH = [title.isascii() for title in TITLES]
NEAREST = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description="Texts that a language model takes for alike.")
    parser.add_argument("models", nargs="+", help="hub names or local folders")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    given = parser.parse_args(arguments)
    console = Console()
    torch.set_num_threads(1)
    try:
        found = {Path(model).name: nearest(model) for model in given.models}
    except NightloomError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    page = "\n".join(["# Neighbours by text in a Chinese catalogue", "", *counts(found), "", *lists(*next(iter(found.items()))), ""])
    command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    page += f"\n{datetime.now(UTC):%Y-%m-%d}. Command: `python -m benchmarks.neighbours {command}`.\n"
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    if given.table:
        given.table.write_text(page, encoding="utf-8")
    return 0


def nearest(model: str) -> list[list[int]]:
    """The nearest titles of each title, best first."""
    vectors = torch.from_numpy(TextEncoder.from_weights(resolve(model)).encode(TITLES))
    near = TextNeighbours().read(vectors, torch.ones(len(TITLES), dtype=torch.bool))
    best, _ = near.recommend(Histories.of_items([[at] for at in range(len(TITLES))]), NEAREST)
    return [[int(at) for at in row] for row in best]


def counts(found: dict[str, list[list[int]]]) -> list[str]:
    """A row a model: how many of the neighbours stand on the title's own shelf."""
    lines = ["| model | Chinese titles whose nearest is of their shelf | English ones | of all three nearest |", "|---|---|---|---|"]
    for model, rows in found.items():
        own = [[SHELF[at] == shelf for at in row] for shelf, row in zip(SHELF, rows, strict=True)]
        first = [sum(row[0] for row, english in zip(own, ENGLISH, strict=True) if english is wanted) for wanted in (False, True)]
        totals = [ENGLISH.count(False), ENGLISH.count(True), NEAREST * len(TITLES)]
        cells = [f"{hits} of {total}" for hits, total in zip((*first, sum(map(sum, own))), totals, strict=True)]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def lists(model: str, rows: list[list[int]]) -> list[str]:
    """Every title with its nearest of one model; those of another shelf are marked."""
    lines = [f"| title | nearest by {model} (* another shelf) |", "|---|---|"]
    for at, row in enumerate(rows):
        lines.append(f"| {TITLES[at]} | {'; '.join(TITLES[one] + ('' if SHELF[one] == SHELF[at] else ' *') for one in row)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
