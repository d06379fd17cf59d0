from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blin import losses
from blin.losses import softmax_loss
from reference import losses as reference


def leaves(
    views: int, rows: int, *, items: int = 11, dim: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + views)
    states = torch.randn(views, rows, dim, generator=generator, dtype=torch.float64)
    table = torch.randn(items + 1, dim, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, items + 1, (rows,), generator=generator)
    return states.requires_grad_(), table.requires_grad_(), targets


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("candidates", ["full", "sampled", "sampled with log_q"])
@pytest.mark.parametrize("chunk", [1, 20, 1 << 18])
def test_softmax_loss_is_the_formula_and_so_is_its_gradient(
    views: int, rows: int, candidates: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    states, table, targets = leaves(views, rows)
    # Item 3 twice, and at least one negative that is some row's target.
    negatives = None if candidates == "full" else torch.cat([targets[:1], torch.tensor([3, 3, 5])])
    log_q = None
    if candidates.endswith("log_q"):
        log_q = torch.tensor([-1.0, 0.5, 0.5, 2.0], dtype=torch.float64)
    kl_weight = 0.7 if views == 2 else 0.0

    ours = softmax_loss(
        states,
        table,
        targets,
        negatives=negatives,
        log_q=log_q,
        cross_entropy_weight=0.3,
        kl_weight=kl_weight,
    )
    cross_entropy, divergence = reference.softmax_loss(
        states, table, targets, negatives, log_q=log_q
    )
    expected = 0.3 * cross_entropy + kl_weight * divergence

    torch.testing.assert_close(ours.cross_entropy, cross_entropy.detach())
    torch.testing.assert_close(ours.divergence, divergence.detach())
    torch.testing.assert_close(ours.total, expected)
    for got, want in zip(
        torch.autograd.grad(2.0 * ours.total, [states, table]),
        torch.autograd.grad(2.0 * expected, [states, table]),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_padding_is_never_a_candidate() -> None:
    states, table, targets = leaves(1, 5)
    before = softmax_loss(states, table, targets).total
    with torch.no_grad():
        table[0] = 100.0
    torch.testing.assert_close(softmax_loss(states, table, targets).total, before)


def test_equal_views_do_not_diverge() -> None:
    states, table, targets = leaves(1, 5)
    twice = states.detach().expand(2, -1, -1)
    assert softmax_loss(twice, table, targets, kl_weight=1.0).divergence == 0


def test_no_targets_cost_nothing() -> None:
    states, table, targets = leaves(2, 0)
    loss = softmax_loss(states, table, targets, kl_weight=1.0)
    loss.total.backward()
    assert loss.total == 0
    assert table.grad is not None and not table.grad.any()


def test_one_view_cannot_diverge() -> None:
    states, table, targets = leaves(1, 2)
    with pytest.raises(ValueError, match="two views"):
        softmax_loss(states, table, targets, kl_weight=1.0)
