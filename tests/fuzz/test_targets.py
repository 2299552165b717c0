"""Damaged inputs, made by hypothesis from good ones, for each target; `make fuzz` tries more, guided by coverage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CONFIG, TARGETS, seeds

STRANGE = [
    b"\0",
    b'"',
    b"{",
    b"]",
    b"&a ",
    b"*a",
    b"!!python/object:os.system ",
    b"1e999",
    b".inf",
    b"- ",
    b"? ",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
]
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(STRANGE) | st.binary(max_size=8)), min_size=1, max_size=5)
VALUES = ["null", "[]", "{}", "-1", "1e400", ".nan", "''", '"\\0"', "[[1]]", "{a: {b: c}}", "2026-02-30", "yes", "99999999999999999999"]


def damaged(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Some bytes lost and others put in their place."""
    for where, lost, put in changes:
        at = int(where * len(content))
        content = content[:at] + put + content[at + lost :]
    return content


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_starts_from_is_well(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_it_is_read_or_refused(target: str, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from(seeds(target)))
    TARGETS[target](damaged(start, data.draw(edits)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, CONFIG.count(b":") - 1), st.sampled_from(VALUES) | st.text(max_size=12))
def test_a_config_with_a_strange_value_is_read_or_refused(number: int, value: str) -> None:
    parts = CONFIG.split(b":")
    TARGETS["config"](b":".join(parts[: number + 1]) + f": {value}\n".encode("utf-8", "surrogatepass"))
