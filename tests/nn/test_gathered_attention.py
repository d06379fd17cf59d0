from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from blin.nn.attention import gathered
from blin.nn.attention.gathered import gathered_attention

GROUPS, SHARED, DIM, WIDTH, SLOTS, QUERIES, LISTS = 2, 3, 4, 2, 12, 7, 3


@pytest.fixture(params=[gathered.GATHERED, 100, 1], ids=["at once", "in parts", "one by one"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gathered, "GATHERED", request.param)
    yield


def given() -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Queries, keys and values; runs, what is seen of them, and scores of all but the last run."""
    generator = torch.Generator().manual_seed(5)
    heads = [
        torch.randn(*shape, DIM, generator=generator).double().requires_grad_()
        for shape in ((QUERIES, GROUPS, SHARED), (GROUPS, SLOTS), (GROUPS, SLOTS))
    ]
    runs = torch.randint(0, SLOTS // WIDTH, (QUERIES, GROUPS, LISTS), generator=generator)
    seen = torch.rand(QUERIES, LISTS * WIDTH, generator=generator) < 0.6
    seen[:, -1] = True
    scores = torch.zeros(QUERIES, GROUPS, LISTS - 1, dtype=torch.float64, requires_grad=True)
    return heads, runs, seen, scores


def by_loops(heads: list[Tensor], runs: Tensor, seen: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    queries, keys, values = heads
    outs, logs = [], []
    for p in range(QUERIES):
        for group in range(GROUPS):
            for shared in range(SHARED):
                logits, found = [], []
                for place in range(LISTS * WIDTH):
                    if not seen[p, place]:
                        continue
                    run, within = divmod(place, WIDTH)
                    slot = int(runs[p, group, run]) * WIDTH + within
                    logit = (queries[p, group, shared] * keys[group, slot]).sum() / DIM**0.5
                    if run < scores.shape[-1]:
                        logit = logit + scores[p, group, run]
                    logits.append(logit)
                    found.append(values[group, slot])
                total = torch.stack(logits)
                outs.append(total.softmax(0) @ torch.stack(found))
                logs.append(total.exp().sum().log())
    shape = (QUERIES, GROUPS, SHARED)
    return torch.stack(outs).view(*shape, DIM), torch.stack(logs).view(shape)


@pytest.mark.usefixtures("parts")
def test_it_is_the_formula_and_so_is_its_gradient() -> None:
    heads, runs, seen, scores = given()
    ours = gathered_attention(*heads, runs, seen, scores)
    expected = by_loops(heads, runs, seen, scores)
    generator = torch.Generator().manual_seed(6)
    weights = [torch.randn(part.shape, generator=generator).double() for part in expected]
    gradients = []
    for found in (ours, expected):
        summed = sum(((w * x).sum() for w, x in zip(weights, found, strict=True)), torch.zeros(()))
        gradients.append(torch.autograd.grad(summed, [*heads, scores]))
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_scores_leave_the_output_as_it_is() -> None:
    heads, runs, seen, scores = given()
    found = gathered_attention(*heads, runs, seen, scores)
    moved = gathered_attention(*heads, runs, seen, scores + 5)
    for one, other in zip(found, moved, strict=True):
        assert torch.equal(one, other)


def test_no_queries_are_no_trouble() -> None:
    heads, runs, seen, scores = given()
    nothing = (heads[0][:0], *heads[1:], runs[:0], seen[:0], scores[:0])
    out, logs = gathered_attention(*nothing)
    assert out.shape == (0, GROUPS, SHARED, DIM)
    (out.sum() + logs.sum()).backward()
    assert heads[1].grad is not None and not heads[1].grad.any()
