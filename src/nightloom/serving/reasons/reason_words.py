"""Reasons in words, English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Language = Literal["en", "zh"]
VERBS: dict[str, tuple[str, str]] = {
    "bought": ("bought", "购买了"),
    "listened": ("listened to", "听了"),
    "liked": ("liked", "喜欢"),
    "played": ("played", "玩了"),
    "read": ("read", "阅读了"),
    "viewed": ("viewed", "浏览了"),
    "watched": ("watched", "看了"),
}
"""What was done with an item, in English and Chinese."""
MEANT: dict[str, str] = {
    "buy": "bought",
    "click": "viewed",
    "like": "liked",
    "listen": "listened",
    "order": "bought",
    "play": "played",
    "purchase": "bought",
    "rating": "liked",
    "read": "read",
    "view": "viewed",
    "watch": "watched",
}
"""Name of an event that was positive -> what was done."""


def verb_of(event: str, *, positive: bool) -> str | None:
    """What was done with an item; None where the event's name does not say, or says no more than that the item was not liked."""
    done = MEANT.get(event.lower())
    return None if done == "liked" and not positive else done


def language_of(header: str) -> Language:
    """The language of an Accept-Language header that is wanted most and reasons are told in; English without one."""
    wanted: list[tuple[float, int, Language]] = []
    for place, part in enumerate(header.split(",")):
        name, _, rest = part.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=")) if rest else 1.0
        except ValueError:
            continue
        short = name.strip().lower()
        if weight > 0 and (short[:2] in ("en", "zh") and (len(short) == 2 or short[2] == "-")):
            wanted.append((-weight, place, "zh" if short[:2] == "zh" else "en"))
    return min(wanted)[2] if wanted else "en"


def sentence(
    named: Sequence[str],
    verbs: Sequence[str | None],
    without: Sequence[str],
    top: int,
    language: Language,
    *,
    history: bool,
    one_decides: bool,
) -> str:
    """Why an item is recommended, in a sentence or two.

    Args:
        named: titles of the events that count most; none where no event is sure to.
        verbs: what was done with each.
        without: titles of the events without which the item would not be in the list; empty where that was not found.
        top: length of that list.
        language: of the text.
        history: whether there is one at all.
        one_decides: whether a single event decides, though it may not be named.
    """
    chinese = language == "zh"
    if not history:
        return "您还没有历史记录：这是对所有人的推荐。" if chinese else "There is no history yet: this is recommended to everybody."  # noqa: RUF001
    if named:
        done = set(verbs)
        verb = VERBS[verbs[0]] if len(done) == 1 and verbs[0] is not None else None
        if chinese:
            text = f"因为您{verb[1]}{_joined_zh(named)}。" if verb else f"因为您历史中的{_joined_zh(named)}。"
        else:
            text = f"Because you {verb[0]} {_joined(named)}." if verb else f"Because of {_joined(named)} in your history."
    else:
        text = "根据您的整个历史推荐。" if chinese else "Recommended for your history as a whole."
    if without:
        if chinese:
            return f"{text}如果没有{_joined_zh(without)}，它就不会在您的前 {top} 名中。"  # noqa: RUF001
        return f"{text} Without {_joined(without)} this would not be in your top {top}."
    if one_decides or not top:
        return text
    return f"{text}没有哪一条历史单独起决定作用。" if chinese else f"{text} No single event decides."


def pinned_sentence(language: Language) -> str:
    """Why an item is shown that was put into its place by hand."""
    return "由本站编辑推荐。" if language == "zh" else "Chosen by this service's editors."


def _joined(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _joined_zh(titles: Sequence[str]) -> str:
    marked = [f"《{title}》" for title in titles]
    return marked[0] if len(marked) == 1 else f"{'、'.join(marked[:-1])}和{marked[-1]}"
