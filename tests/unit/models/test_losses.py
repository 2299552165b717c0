import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nightloom.models.sequential import losses
from nightloom.models.sequential.losses import sampled_softmax_loss, softmax_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmax_loss_and_gradients_are_those_of_torch(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS", 7)
    torch.manual_seed(0)
    users, items = torch.randn(23, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    targets = torch.randint(0, 11, (23,))
    (softmax_loss(users, items, targets, smoothing) / 2).backward()
    mine = users.grad.clone(), items.grad.clone()
    users.grad = items.grad = None
    expected = F.cross_entropy(users @ items.T, targets, label_smoothing=smoothing, reduction="sum")
    (expected / 2).backward()
    assert softmax_loss(users, items, targets, smoothing).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(mine[0], users.grad)
    torch.testing.assert_close(mine[1], items.grad)


def test_softmax_loss_in_bfloat16_is_near_and_its_sums_are_float32() -> None:
    torch.manual_seed(0)
    users, items = torch.randn(600, 16, requires_grad=True), torch.randn(90, 16, requires_grad=True)
    targets = torch.randint(0, 90, (600,))
    exact = softmax_loss(users, items, targets)
    expected = torch.autograd.grad(exact, [users, items])
    half = softmax_loss(users, items, targets, precision=torch.bfloat16)
    found = torch.autograd.grad(half, [users, items])
    assert half.item() == pytest.approx(exact.item(), rel=5e-3)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


def test_softmax_loss_of_a_hopeless_target_is_exact() -> None:
    users, items = torch.tensor([[1000.0]]), torch.tensor([[1.0], [-1.0]])
    assert softmax_loss(users, items, torch.tensor([1])).item() == pytest.approx(2000.0)


def test_sampled_softmax_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    users, items, targets = torch.randn(50, 4), torch.randn(40, 4), torch.randint(0, 40, (50,))
    q = np.random.default_rng(0).dirichlet(np.ones(40)) * 0.5 + 0.5 / 40
    drawn = np.random.default_rng(1).choice(40, 40_000, p=q)
    log_q = torch.from_numpy(np.log(q[drawn] * len(drawn)).astype(np.float32))
    sampled = sampled_softmax_loss(users, items, targets, torch.from_numpy(drawn), log_q).item()
    assert sampled == pytest.approx(softmax_loss(users, items, targets).item(), rel=0.01)


def test_a_negative_that_is_the_target_does_not_count() -> None:
    users, items = torch.randn(1, 4), torch.randn(3, 4)
    only_itself = sampled_softmax_loss(users, items, torch.tensor([2]), torch.tensor([2, 2]), torch.zeros(2))
    assert only_itself.item() == pytest.approx(0.0, abs=1e-6)


def test_a_share_without_targets_costs_nothing_and_teaches_nothing() -> None:
    users, items = torch.randn(0, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    loss = softmax_loss(users, items, torch.zeros(0, dtype=torch.int64), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert items.grad is not None
    assert not items.grad.any()
