"""Which letters the fonts here can draw, so that a figure shows words or something else, but never a row of empty boxes.

Item texts and attribute values come in any script. Matplotlib brings a font for the scripts of Europe alone; what else it can draw
hangs on what is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Heiti SC", "Hiragino Sans GB", "Noto Sans CJK JP"),
    *("Noto Sans", "Arial Unicode MS", "GNU Unifont"),
)
"""Families asked after matplotlib's own, in this order; those that are not installed are passed over."""


@contextmanager
def with_fonts() -> Iterator[None]:
    """Within it figures are made with all families that are here; of those, the first that knows a letter draws it."""
    from matplotlib import rc_context  # only here, since most of nightloom draws nothing

    with rc_context({"font.family": families()}):
        yield


@lru_cache(maxsize=1)
def families() -> list[str]:
    """Matplotlib's own family and those of `FALLBACKS` that are installed."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    from matplotlib import font_manager

    paths = [font_manager.findfont(name, fallback_to_default=False) for name in families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


def drawable(*choices: str) -> str:
    """The first choice whose letters can all be drawn; the last one where none can.

    Args:
        choices: what might be written, best first. The last should be plain ASCII.
    """
    return next((text for text in choices if all(letter.isspace() or ord(letter) in _letters() for letter in text)), choices[-1])
