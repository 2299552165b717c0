"""Draws for newcomers: the same all day, different between people, and as likely as the scores say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.exploration import DAY, LEAST, lift, noise

NIGHT = 20_000 * DAY


@given(person=st.text(max_size=20), time=st.integers(0, 2**40), n=st.integers(0, 300), more=st.integers(0, 50))
def test_noise_depends_on_the_person_and_the_day_alone_and_not_on_later_items(person: str, time: int, n: int, more: int) -> None:
    first = noise(person, time, n)
    np.testing.assert_array_equal(first, noise(person, time - time % DAY + DAY - 1, n))
    np.testing.assert_array_equal(first, noise(person, time, n + more)[:n])
    assert (first > -LEAST).all()
    assert np.isfinite(first).all()
    if n > 20:
        assert (first != noise(person, time + DAY, n)).any()
        assert (first != noise(f"{person}!", time, n)).any()


@given(seed=st.integers(0, 1000), temperature=st.floats(0.01, 5))
def test_the_head_stays_ahead(seed: int, temperature: float) -> None:
    scores = np.sort(np.random.default_rng(seed).normal(size=200).astype(np.float32))[::-1]
    head = np.arange(100)
    order = np.argsort(-(scores + lift(head, str(seed), NIGHT, 200, temperature)), kind="stable")
    assert set(order[:100]) == set(head)
    assert (order[100:] == np.arange(100, 200)).all()


def test_items_come_first_as_often_as_plackett_and_luce_say() -> None:
    scores, temperature = np.array([1.0, 0.7, 0.4, 0.0], np.float32), 0.5
    wanted = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    first = [int(np.argmax(scores + lift(np.arange(4), f"u{person}", NIGHT, 4, temperature))) for person in range(20_000)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / len(first), wanted, atol=0.01)


def test_nothing_is_drawn_at_temperature_zero() -> None:
    assert not lift(np.arange(5), "u", NIGHT, 9, 0.0).any()
    with pytest.raises(IndexError):
        lift(np.array([9]), "u", NIGHT, 9, 1.0)
