"""Item embeddings that begin with what is met with what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.batch import Interactions
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.encoder import EncoderConfig
from learned import ENCODERS, informed, module_of, training_sequences
from reference import spectral, transitions


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_can_begin_with_them(small_dataset: Dataset, name: str) -> None:
    plain: Any = module_of(name, small_dataset.num_items, ted_weight=0.0)
    module: Any = module_of(name, small_dataset.num_items, ted_weight=0.0, spectral_span=2)
    assert module.needs_interactions and not plain.needs_interactions
    informed(module, small_dataset)
    dim = module.config.dim
    pairs = transitions.counts(training_sequences(small_dataset), span=2)
    expected = spectral.products(pairs, small_dataset.num_items, dim)
    table, drawn = module.item_embedding.items.detach(), plain.item_embedding.items.detach()
    torch.testing.assert_close(table.norm(dim=1), drawn.norm(dim=1), atol=0, rtol=1e-5)
    directions = torch.nn.functional.normalize(table)
    torch.testing.assert_close(directions @ directions.t(), expected, atol=1e-3, rtol=0)
    others = dict(plain.named_parameters())
    for part, parameter in module.named_parameters():
        same = torch.equal(parameter, others[part])
        assert same == (parameter is not module.item_embedding.weight)


def test_items_that_are_met_with_no_other_are_drawn() -> None:
    plain: Any = module_of("sasrec", 5)
    module: Any = module_of("sasrec", 5, spectral_span=1)
    module.inform(Interactions(torch.tensor([1, 4, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1])))
    before, after = plain.item_embedding.items, module.item_embedding.items
    assert torch.equal((before == after).all(1), torch.tensor([1, 0, 1, 1, 0, 1]).bool())


def test_the_tokens_of_a_model_are_no_items() -> None:
    plain: Any = module_of("bert4rec", 4)
    module: Any = module_of("bert4rec", 4, spectral_span=1)
    module.inform(Interactions(torch.tensor([1, 2, 3, 4]), torch.tensor([0, 0, 0, 0])))
    before, after = plain.item_embedding.weight, module.item_embedding.weight
    assert torch.equal((before == after).all(1), torch.tensor([1, 0, 0, 0, 0, 1]).bool())


def test_they_need_no_teaching() -> None:
    # Told for its embeddings alone, a model has no TED.
    module: Any = module_of("sasrec", 3, spectral_span=1)
    module.inform(Interactions(torch.tensor([1, 2, 3]), torch.tensor([0, 0, 0])))
    assert module.config.ted_weight == 0 and module._transitions is None


def test_a_span_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="spectral_span: expected at least 0, found -1"):
        EncoderConfig(spectral_span=-1)
