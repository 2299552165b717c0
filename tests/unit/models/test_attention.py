"""Attention by spans, with its written-out backward, against the same thing said plainly in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from nightloom.core.sequences import Histories
from nightloom.models.sequential import attention
from nightloom.models.sequential.attend import attend, with_kernels
from nightloom.models.sequential.attention import (
    NO_TIME,
    POSITION_BUCKETS,
    TIME_BUCKETS,
    Attention,
    Span,
    bias_table,
    position_bucket,
    time_bucket,
)
from nightloom.models.sequential.history_encoder import Packed
from nightloom.models.sequential.windows import Windows

HEADS, WIDTH = 2, 3
CPU = torch.device("cpu")


def windows_of(lengths: list[int], gap: int) -> Windows:
    """Histories of these lengths with ever longer gaps, asked in training."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = int(offsets[-1])
    places = np.arange(n) - np.repeat(offsets[:-1], lengths)
    times = 1_000 + gap * places**2
    asked = 1_000 + gap * np.array(lengths) ** 2
    plain = Histories.of_items([[1] * length for length in lengths])
    histories = Histories(offsets, plain.items, times.astype(np.int64), plain.event_types, plain.positive, asked.astype(np.int64))
    return Windows.to_answer(histories, 99)


def plainly(qkv: torch.Tensor, position: torch.Tensor, time: torch.Tensor | None, windows: Windows) -> torch.Tensor:
    """One window, one head and one query at a time."""
    dim, answers = HEADS * WIDTH, []
    for start, stop in zip(windows.offsets[:-1], windows.offsets[1:], strict=True):
        for query in range(start, stop):
            heads = []
            for head in range(HEADS):
                q, k, v = (qkv[:, at + head * WIDTH : at + (head + 1) * WIDTH] for at in (0, dim, 2 * dim))
                scores = k[start : query + 1] @ q[query] / WIDTH**0.5
                scores = scores + position[head, position_bucket(query - torch.arange(start, query + 1))]
                if time is not None:
                    gaps = torch.from_numpy((windows.request_times[query] - windows.times[start : query + 1]).astype(np.int32))
                    buckets = time_bucket(gaps).masked_fill(torch.from_numpy(windows.items[start : query + 1] < 0), NO_TIME)
                    scores = scores + time[head, buckets.long()]
                heads.append(torch.softmax(scores, 0) @ v[start : query + 1])
            answers.append(torch.cat(heads))
    return torch.stack(answers)


def drawn(windows: Windows, span: int, use_time: bool) -> tuple[Packed, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """A batch in spans of a length, with queries, keys and values, both biases, and a weight of each answer."""
    torch.manual_seed(0)
    position = torch.randn(HEADS, POSITION_BUCKETS, requires_grad=True)
    time = torch.randn(HEADS, TIME_BUCKETS, requires_grad=True) if use_time else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SPAN", span)
        batch = Packed.of(windows, CPU, use_time=use_time)
    qkv = torch.randn(len(batch.items), 3 * HEADS * WIDTH, requires_grad=True)
    return batch, qkv, position, time, torch.randn(len(windows.items), HEADS * WIDTH)


@pytest.mark.parametrize("span", [3, 8, 64])
@pytest.mark.parametrize("use_time", [True, False])
@given(lengths=st.lists(st.integers(0, 21), min_size=1, max_size=4), gap=st.sampled_from([0, 7, 100_000]))
@settings(deadline=None, max_examples=10)
def test_answers_and_gradients_are_those_of_plain_attention(span: int, use_time: bool, lengths: list[int], gap: int) -> None:
    windows = windows_of(lengths, gap)
    batch, qkv, position, time, weight = drawn(windows, span, use_time)
    tokens, learning = len(windows.items), [qkv, position, *([] if time is None else [time])]

    found = Attention.apply(qkv, bias_table(position, time), batch.place, batch.inside, batch.spans)[:tokens]
    gradients = torch.autograd.grad((found * weight).sum(), learning)
    wanted = plainly(qkv, position, time, windows)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, torch.autograd.grad((wanted * weight).sum(), learning), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("span", [8, 64])
@pytest.mark.parametrize("use_time", [True, False])
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4), gap=st.sampled_from([0, 7, 100_000]))
@settings(deadline=None, max_examples=10)
def test_the_kernels_of_other_devices_give_the_same(span: int, use_time: bool, lengths: list[int], gap: int) -> None:
    """By the plain kernel (`SDPBackend.MATH`), since those of a GPU are not here."""
    windows = windows_of(lengths, gap)
    batch, qkv, position, time, weight = drawn(windows, span, use_time)
    tokens, learning = len(windows.items), [qkv, position, *([] if time is None else [time])]
    found = []
    for path in (attend, with_kernels):
        with sdpa_kernel(SDPBackend.MATH):
            answers = path(qkv, bias_table(position, time), batch.place, batch.inside, batch.spans)[:tokens]
            found.append([answers, *torch.autograd.grad((answers * weight).sum(), learning)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_device_other_than_a_cpu_takes_the_kernels() -> None:
    """Shapes alone: torch's device "meta" computes nothing."""
    batch = Packed.of(windows_of([3, 9], 7), CPU, use_time=True)
    elsewhere = [Span(one.first, one.stop, one.cells.to("meta")) for one in batch.spans]
    qkv, table = torch.zeros(len(batch.items), 3 * HEADS * WIDTH, device="meta"), torch.zeros(HEADS, 3000, device="meta")
    attended = attend(qkv, table, batch.place.to("meta"), batch.inside.to("meta"), elsewhere)
    assert attended.shape == (len(batch.items), HEADS * WIDTH)


def test_buckets_of_time_are_logarithms_and_what_is_unknown_has_its_own() -> None:
    gaps = torch.tensor([-5, 0, 1, 2, 3, 6, 7, 2**31 - 1], dtype=torch.int32)
    assert time_bucket(gaps).tolist() == [NO_TIME, 1, 2, 2, 3, 3, 4, 32]
    assert int(time_bucket(gaps).max()) < TIME_BUCKETS


def test_an_event_after_the_request_counts_as_just_now() -> None:
    plain = Histories.of_items([[1, 2, 3]])
    late, now = (
        Histories(plain.offsets, plain.items, np.array([10, 20, at]), plain.event_types, plain.positive, np.array([30])) for at in (500, 30)
    )
    one, other = (Packed.of(Windows.to_answer(which, 9), CPU, use_time=True) for which in (late, now))
    last = 3  # after BOS and two events; fillers follow
    assert int(one.gap[last]) == int(other.gap[last]) == 1
