from __future__ import annotations

import pytest
import torch

from blin.nn.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_it_keeps_the_mean_and_drops_the_share_asked_for(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 301)
    out = Dropout(p)(x)
    assert abs((out == 0).double().mean().item() - p) < 0.004  # 1/512 by rounding, the rest by luck
    assert abs(out.double().mean().item() - 1) < 0.02
    assert len(out.unique()) == 2


@pytest.mark.parametrize(("p", "share"), [(1e-9, 1 / 256), (0.0019, 1 / 256), (0.999, 255 / 256)])
def test_a_probability_is_rounded_but_never_to_none_or_all(p: float, share: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1000, 512))
    assert abs((out == 0).double().mean().item() - share) < 0.001


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    x = torch.ones(5, 7, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())


def test_units_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(20_000, 16)) > 0).double()
    correlation = torch.corrcoef(kept.t()) - torch.eye(16)
    assert correlation.abs().max() < 0.04


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x


def test_the_draws_do_not_depend_on_the_number_of_threads() -> None:
    outs = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        outs.append(Dropout(0.3)(torch.ones(700, 900)))
    torch.set_num_threads(before)
    assert torch.equal(*outs)
