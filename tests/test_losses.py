from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blin import losses
from blin.losses import Candidates, SequenceLoss, binary_loss, softmax_loss
from reference import losses as reference

ITEMS = 11
KINDS = ("full", "shared", "shared with log_q", "shared with excluded", "own", "own with log_q")


def leaves(views: int, rows: int, *, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + views)
    states = torch.randn(views, rows, dim, generator=generator, dtype=torch.float64)
    table = torch.randn(ITEMS + 1, dim, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, ITEMS + 1, (rows,), generator=generator)
    return states.requires_grad_(), table.requires_grad_(), targets


def candidates_of(kind: str, targets: Tensor) -> Candidates:
    """Item 3 twice, and at least one negative that is some target."""
    if kind == "full":
        return Candidates()
    shared = torch.cat([targets[:1], torch.tensor([3, 3, 5])])
    log_q = torch.tensor([-1.0, 0.5, 0.5, 2.0], dtype=torch.float64)
    if kind.startswith("own"):
        negatives = (shared + torch.arange(len(targets)).unsqueeze(-1)) % ITEMS + 1
        own_q = log_q + torch.arange(len(targets)).unsqueeze(-1) / 7
        return Candidates(negatives, own_q if kind.endswith("log_q") else None)
    excluded = torch.zeros(len(targets), 4, dtype=torch.bool)
    excluded[::2, 1:3] = True
    return Candidates(
        shared,
        log_q if kind.endswith("log_q") else None,
        excluded if kind.endswith("excluded") else None,
    )


def check(ours: SequenceLoss, sequence: Tensor, divergence: Tensor, *leaf: Tensor) -> None:
    torch.testing.assert_close(ours.sequence, sequence.detach())
    torch.testing.assert_close(ours.divergence, divergence.detach())
    torch.testing.assert_close(ours.total, sequence + divergence)
    for got, want in zip(
        torch.autograd.grad(2.0 * ours.total, leaf),
        torch.autograd.grad(2.0 * (sequence + divergence), leaf),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def weights_of(views: int, rows: int) -> tuple[Tensor, Tensor | None]:
    weights = torch.linspace(0.2, 1.5, views * rows, dtype=torch.float64).view(views, rows)
    kl_weights = torch.arange(rows, dtype=torch.float64) % 3 / 2
    return weights, kl_weights if views == 2 else None


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 20, 1 << 18])
def test_softmax_loss_is_the_formula_and_so_is_its_gradient(
    views: int, rows: int, kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(losses, "SHARING_ROWS", 3)
    states, table, targets = leaves(views, rows)
    candidates = candidates_of(kind, targets)
    weights, kl_weights = weights_of(views, rows)
    ours = softmax_loss(
        states, table, targets, candidates=candidates, weights=weights, kl_weights=kl_weights
    )
    sequence = reference.softmax_loss(states, table, targets, candidates, weights)
    divergence = torch.zeros((), dtype=torch.float64)
    if kl_weights is not None:
        divergence = reference.divergence(states, table, targets, candidates, kl_weights)
    check(ours, sequence, divergence, states, table)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("chunk", [20, 1 << 18])
def test_binary_loss_is_the_formula_and_so_is_its_gradient(
    views: int, kind: str, calibration: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(losses, "SHARING_ROWS", 3)
    states, table, targets = leaves(views, 7)
    candidates = candidates_of(kind, targets)
    weights, kl_weights = weights_of(views, 7)
    ours = binary_loss(
        states,
        table,
        targets,
        candidates=candidates,
        calibration=calibration,
        weights=weights,
        kl_weights=kl_weights,
    )
    sequence = reference.binary_loss(states, table, targets, candidates, weights, calibration)
    divergence = torch.zeros((), dtype=torch.float64)
    if kl_weights is not None:
        divergence = reference.divergence(states, table, targets, candidates, kl_weights)
    check(ours, sequence, divergence, states, table)


def test_without_weights_every_target_counts_once() -> None:
    states, table, targets = leaves(1, 5)
    expected = reference.softmax_loss(states, table, targets, Candidates(), torch.ones(1, 5))
    torch.testing.assert_close(softmax_loss(states, table, targets).total, expected)


def test_padding_is_never_a_candidate() -> None:
    states, table, targets = leaves(1, 5)
    before = softmax_loss(states, table, targets).total
    with torch.no_grad():
        table[0] = 100.0
    torch.testing.assert_close(softmax_loss(states, table, targets).total, before)


def test_equal_views_do_not_diverge() -> None:
    states, table, targets = leaves(1, 5)
    twice = states.detach().expand(2, -1, -1)
    assert softmax_loss(twice, table, targets, kl_weights=torch.ones(5)).divergence == 0


def test_no_targets_cost_nothing() -> None:
    states, table, targets = leaves(2, 0)
    loss = softmax_loss(states, table, targets, kl_weights=torch.ones(0))
    loss.total.backward()
    assert loss.total == 0
    assert table.grad is not None and not table.grad.any()


def test_half_precision_states_are_summed_in_single() -> None:
    states, table, targets = leaves(2, 7)
    half = states.detach().bfloat16().requires_grad_()
    single = half.detach().float().requires_grad_()
    narrow = table.detach().float().requires_grad_()
    for given in (half, single):
        loss = softmax_loss(given, narrow, targets, kl_weights=torch.ones(7))
        assert loss.total.dtype == torch.float32
        loss.total.backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16
    assert single.grad is not None
    torch.testing.assert_close(half.grad, single.grad.bfloat16())


def test_a_scaler_saves_what_is_too_small_for_16_bits() -> None:
    """Of many targets each has so small a share that its gradient is nothing in 16 bits."""
    states, table, targets = leaves(1, 7)
    half = states.detach().half().requires_grad_()
    single = half.detach().float().requires_grad_()
    weights = torch.full((1, 7), 2.0**-26)
    for given in (half, single):
        loss = softmax_loss(given, table.detach().float(), targets, weights=weights)
        (2.0**20 * loss.total).backward()
    assert half.grad is not None and single.grad is not None
    torch.testing.assert_close(half.grad, single.grad.half(), rtol=0, atol=0)


def test_one_view_cannot_diverge() -> None:
    states, table, targets = leaves(1, 2)
    with pytest.raises(ValueError, match="two views"):
        softmax_loss(states, table, targets, kl_weights=torch.ones(2))


def test_a_binary_loss_needs_negatives() -> None:
    states, table, targets = leaves(1, 2)
    with pytest.raises(ValueError, match="needs negatives"):
        binary_loss(states, table, targets, candidates=Candidates())
