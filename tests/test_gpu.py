"""What a GPU does is what the CPU does; skipped where there is none."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from blin import Blin, Recommender, evaluate
from blin.batch import Batch
from blin.checkpoint import load_run
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.losses import softmax_loss
from blin.models import Learned
from blin.training.trainer import resume, train
from learned import LEARNED, informed, loader_of, module_of
from small import SMALL

GPU = torch.device("cuda")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
DROPOUTS = ("dropout", "attention_dropout", "item_dropout")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def histories(dataset: Dataset, module: Learned) -> Batch:
    starts, ends = dataset.training_ranges()
    return history_batch(np.asarray(dataset.items), starts, ends, module.batch_spec)


@pytest.mark.parametrize("name", LEARNED)
def test_scores_are_those_of_the_cpu(small_dataset: Dataset, name: str) -> None:
    module = module_of(name, small_dataset.num_items)
    batch = histories(small_dataset, module)
    expected = module.score(batch)
    found = module.to(GPU).score(batch.to(GPU))
    assert found.device.type == GPU.type
    torch.testing.assert_close(found.cpu(), expected, **CLOSE)


# BERT4Rec draws its masks where it computes: others on a GPU than on a CPU.
@pytest.mark.parametrize("name", [name for name in LEARNED if name != "bert4rec"])
def test_losses_and_gradients_are_those_of_the_cpu(small_dataset: Dataset, name: str) -> None:
    known = vars(module_of(name, small_dataset.num_items).config)
    none = {drop: 0.0 for drop in DROPOUTS if drop in known}
    here = module_of(name, small_dataset.num_items, max_len=16, **none).train()
    there = copy.deepcopy(here).to(GPU)
    informed(here, small_dataset)
    informed(there, small_dataset)
    batch = next(iter(loader_of(small_dataset, here.batch_spec, name, max_len=16).epoch(0)))
    losses = []
    for module, own in ((here, batch), (there, batch.to(GPU))):
        torch.manual_seed(0)
        loss = module(own)
        loss.total.backward()
        losses.append(loss.total.detach().cpu())
    torch.testing.assert_close(losses[1], losses[0], **CLOSE)
    for (parameter, mine), other in zip(here.named_parameters(), there.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None, parameter
        torch.testing.assert_close(other.grad.cpu(), mine.grad, **CLOSE)


@pytest.mark.parametrize("views", [1, 2])
def test_the_pieces_of_a_loss_make_no_difference(views: int) -> None:
    torch.manual_seed(0)
    states = torch.randn(views, 3_000, 8, dtype=torch.float64)
    table = torch.randn(6_001, 8, dtype=torch.float64)
    targets = torch.randint(1, 6_001, (3_000,))
    kl_weights = torch.rand(3_000, dtype=torch.float64) if views == 2 else None
    found = []
    for device in (torch.device("cpu"), GPU):
        own = [tensor.to(device, copy=True).requires_grad_() for tensor in (states, table)]
        weights = None if kl_weights is None else kl_weights.to(device)
        loss = softmax_loss(own[0], own[1], targets.to(device), kl_weights=weights)
        loss.total.backward()
        found.append([loss.total.detach().cpu(), *(leaf.grad.cpu() for leaf in own)])  # type: ignore[union-attr]
    torch.testing.assert_close(found[1], found[0], **CLOSE)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_model_trained_there_is_as_good_here(
    small_dataset: Dataset, tmp_path: Path, precision: str
) -> None:
    settings = {**SMALL, "epochs": 8, "learning_rate": 0.01, "precision": precision}
    model = Blin(device=str(GPU), **settings).fit(small_dataset, runs_dir=tmp_path)
    assert model.result is not None
    popularity = Recommender("popularity", device="cpu").fit(small_dataset)
    metrics = evaluate(model, small_dataset).metrics
    assert metrics["NDCG@10"] > 1.5 * evaluate(popularity, small_dataset).metrics["NDCG@10"]
    here = load_run(model.result.run, device="cpu").model
    again = evaluate(here, small_dataset).metrics
    # Scores that are all but equal may change places.
    assert again["NDCG@10"] == pytest.approx(metrics["NDCG@10"], abs=0.01)


def test_a_training_goes_on_there(small_dataset: Dataset, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 2}
    first = train(
        small_dataset, model="blin", settings=settings, runs_dir=tmp_path, device=str(GPU)
    )
    result = resume(first.run, settings={"epochs": 4}, device=str(GPU))
    assert (result.run, result.epochs) == (first.run, 4)


def test_a_session_there_is_the_full_pass(small_dataset: Dataset) -> None:
    settings = {**SMALL, "epochs": 1, "positions": "none"}
    model = Blin(device=str(GPU), **settings).fit(small_dataset)
    history = [f"i{number}" for number in (3, 1, 4, 15, 9)]
    session = model.session()
    session.push(*history)
    expected = model.recommend(histories=[history], k=5).to_pydict()
    found = session.top(5)
    assert [item for item, _ in found] == expected["item_id"]
    assert [score for _, score in found] == pytest.approx(expected["score"], abs=1e-4)
