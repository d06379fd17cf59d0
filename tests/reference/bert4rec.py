"""BERT4Rec, one position after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from blin.batch import Batch, View
from blin.models.bert4rec import BERT4RecConfig
from reference.attention import softmax_attention
from reference.sasrec import activated, layer_norm, linear

Weights = Mapping[str, Tensor]


def whole_sequences(view: View) -> list[list[tuple[int, int, int, int, int, float]]]:
    """The items of each copy, row by row and from the left.

    Each with its segment, the position for its embedding, its copy, the step that it stands for (-1
    for a copy's first item) and its weight.
    """
    found = []
    for row in range(len(view.items)):
        copies: list[list[tuple[int, int, int, int, int, float]]] = []
        before = (0, 0)
        for place, item in enumerate(view.items[row].tolist()):
            mark = (int(view.segments[row, place]), int(view.copies[row, place]))
            weight = 1.0 if view.weights is None else float(view.weights[row, place])
            position = int(view.positions[row, place])
            if mark[0] > 0 and mark != before:
                copies.append([(item, mark[0], position, mark[1], -1, weight)])
            if mark[0] > 0:
                target, step = int(view.targets[row, place]), int(view.steps[row, place])
                copies[-1].append((target, mark[0], position + 1, mark[1], step, weight))
            before = mark
        found += copies
    return found


def states(
    items: Sequence[int], positions: Sequence[int], weights: Weights, config: BERT4RecConfig
) -> list[Tensor]:
    """The states of the positions of one segment."""
    width = config.dim // config.num_heads
    rows = []
    for item, position in zip(items, positions, strict=True):
        x = weights["item_embedding.weight"][item] + weights["position_embedding.weight"][position]
        rows.append(layer_norm(x, weights, "embedding_norm"))
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        projected = torch.stack([linear(x, weights, f"{name}.attention.qkv") for x in rows])
        queries, keys, values = projected.split(config.dim, dim=1)
        heads = [
            softmax_attention(
                *(part[:, head * width :][:, :width] for part in (queries, keys, values)),
                [1] * len(rows),
                causal=False,
            )
            for head in range(config.num_heads)
        ]
        attended = [linear(x, weights, f"{name}.attention.out") for x in torch.cat(heads, dim=1)]
        rows = [
            layer_norm(x + a, weights, f"{name}.attention_norm")
            for x, a in zip(rows, attended, strict=True)
        ]
        for place, x in enumerate(rows):
            hidden = activated(linear(x, weights, f"{name}.feed_forward.expand"), config.activation)
            added = x + linear(hidden, weights, f"{name}.feed_forward.contract")
            rows[place] = layer_norm(added, weights, f"{name}.feed_forward_norm")
    return rows


def scores(state: Tensor, weights: Weights) -> Tensor:
    """The scores of padding and all items for a hidden place (Eq. 7, and a layer norm)."""
    output = layer_norm(
        activated(linear(state, weights, "transform.0"), "gelu"), weights, "transform.2"
    )
    table, bias = weights["item_embedding.weight"], weights["item_bias"]
    return torch.stack([output @ table[item] + bias[item] for item in range(len(bias))])


def history_scores(history: Sequence[int], weights: Weights, config: BERT4RecConfig) -> Tensor:
    """The scores after a history whose newest items stand at the end of the positions."""
    kept = list(history[-config.max_len :])
    positions = list(range(config.max_len - len(kept), config.max_len + 1))
    items = [*kept, len(weights["item_bias"])]
    return scores(states(items, positions, weights, config)[-1], weights)


def logits(
    scores: Tensor, target: int, step: int, copy: int, batch: Batch, config: BERT4RecConfig
) -> Tensor:
    """The score of a target and of what it competes with, the target's first."""
    if config.num_negatives == 0:
        others = [scores[item] for item in range(1, len(scores)) if item != target]
        return torch.stack([scores[target], *others])
    own = {"batch": (), "position": (step,), "copy": (copy - 1, step)}[config.negatives_per]
    negatives, corrections = batch.negatives[own].tolist(), batch.log_q[own].tolist()
    kept = [scores[target]]
    for place, (item, correction) in enumerate(zip(negatives, corrections, strict=True)):
        excluded = batch.excluded is not None and batch.excluded[batch.step_users[step], place]
        if item != target and not excluded:
            kept.append(scores[item] - (correction if config.log_q else 0.0))
    return torch.stack(kept)


def loss(batch: Batch, hidden: Sequence[bool], weights: Weights, config: BERT4RecConfig) -> Tensor:
    """The mean of -log p(target) over the hidden items, which are told of every item in turn."""
    terms: list[tuple[float, int, int, Tensor]] = []  # weight, step, user and loss
    told = iter(hidden)
    for copy in whole_sequences(batch.views[0]):
        masked = [next(told) for _ in copy]
        items = [
            len(weights["item_bias"]) if is_hidden else place[0]
            for place, is_hidden in zip(copy, masked, strict=True)
        ]
        found = states(items, [place[2] for place in copy], weights, config)
        for state, (target, _, _, number, own, weight), is_hidden in zip(
            found, copy, masked, strict=True
        ):
            if is_hidden:
                # A copy's first item has the negatives of its first target, but no part in it.
                step = copy[1][4] if own < 0 else own
                scored = logits(scores(state, weights), target, step, number, batch, config)
                number = step - len(batch.step_users) if own < 0 else step
                user = int(batch.step_users[step])
                terms.append((weight, number, user, -scored.log_softmax(0)[0]))
    shares = []
    for weight, number, user, _ in terms:
        share = weight
        if config.loss_average == "copy":
            share = 1 / sum(other == number for _, other, _, _ in terms)
        if config.loss_average == "user":
            share /= sum(other for other, _, owner, _ in terms if owner == user)
        shares.append(share)
    total = sum(shares)
    parts = [share / total * term[3] for share, term in zip(shares, terms, strict=True)]
    return torch.stack(parts).sum()
