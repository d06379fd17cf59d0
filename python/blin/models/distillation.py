"""Distillation of intermediate features: a student learns to keep what its teacher knows.

After the abstract of the thesis that SPNN comes from, of which we know no more: a knowledge
detector picks the key features of a teacher, and knowledge embeddings take them to the student.
Everything beyond that is our reading of it. The teacher is not here: its features are computed
beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Losses, View
from blin.config import check_at_least
from blin.models import Learned
from blin.models.encoder import Encoder
from blin.nn.sparsemax import sparsemax


@dataclass(frozen=True)
class DistillationConfig:
    """How a student learns from a teacher.

    Attributes:
        distill_weight: of the distance between what the two know, beside the student's own loss.
        knowledge_dim: width K of the space in which student and teacher are compared.
    """

    distill_weight: float = 1.0
    knowledge_dim: int = 32

    def __post_init__(self) -> None:
        """Refuses values that nothing can be learned by."""
        check_at_least(self, 0, "distill_weight")
        check_at_least(self, 1, "knowledge_dim")


class TeacherShape(NamedTuple):
    """What the shapes of a student's distillation depend on.

    Attributes:
        layers: L, how many features there are of a step.
        dim: D, how wide each is.
        item_dim: how wide the teacher's item embeddings are.
    """

    layers: int
    dim: int
    item_dim: int

    @classmethod
    def of(cls, teacher: Learned) -> TeacherShape:
        """Returns that of a teacher."""
        return cls(layers_of(teacher), teacher.state_dim, teacher.item_embedding.items.shape[1])


@dataclass(frozen=True)
class Knowledge:
    """What a teacher makes of all training steps, on the CPU.

    Attributes:
        features: (S, L, D), user by user and by time within a user.
        items: (V + 1, ``item_dim``), the teacher's item embeddings.
        shifts: (U,) int64: a step whose newest input is at place p of the dataset's items has the
            features of row p minus the shift of its user.
    """

    features: Tensor
    items: Tensor
    shifts: Tensor

    def of(self, batch: Batch) -> Tensor:
        """Returns the features of the steps of a batch, (T, L, D)."""
        if batch.step_places is None:
            raise ValueError("expected a batch that tells the places of its steps")
        users = batch.users.cpu()[batch.step_users.cpu()]
        return self.features[batch.step_places.cpu() - self.shifts[users]]


def layers_of(module: Learned) -> int:
    """Returns how many tensors :func:`features_of` returns."""
    return module.config.num_blocks + 1 if isinstance(module, Encoder) else 1


def features_of(module: Learned, view: View) -> list[Tensor]:
    """Returns what the layers of a model make of a view, (B, N, D) each; the last is its states.

    Of a model that is no :class:`~blin.models.encoder.Encoder` these are the states alone.
    """
    return list(module.features(view)) if isinstance(module, Encoder) else [module.encode(view)]


class LayerMaps(nn.Module):
    """A linear map of its own for each layer, from its normalised features.

        y_l = W_l LN(h_l) + b_l

    Args:
        layers: L.
        dim: width D of the features.
        out: width K of what they become.
    """

    def __init__(self, layers: int, dim: int, out: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight = nn.Parameter(torch.empty(layers, dim, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(layers, out))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps features of each layer, (M_l, D), to one (M_1 + … + M_L, K), layer by layer."""
        return torch.cat(
            [
                torch.addmm(bias, nn.functional.layer_norm(layer, layer.shape[-1:]), weight)
                for layer, weight, bias in zip(features, self.weight, self.bias, strict=True)
            ]
        )


class Picked(NamedTuple):
    """What a detector finds in the features of a batch: M of them, layer by layer.

    Attributes:
        steps: for each layer the steps whose feature it picks, rising.
        weights: (M,), how much each of these matters; those of a user sum to 1.
        knowledge: (M, K), these features in the space of knowledge.
        loss: of the detector, a scalar.
    """

    steps: Sequence[Tensor]
    weights: Tensor
    knowledge: Tensor
    loss: Tensor


class Detector(nn.Module):
    """Tells which features of a teacher matter, and what of them.

        s_tl = v_l · tanh(W_l LN(h_tl) + b_l)
        a    = sparsemax of s over all steps t and layers l of a user
        k_tl = φ_l LN(h_tl) + c_l,    k = Σ_tl a_tl k_tl
        loss = - mean over users of log softmax over the batch's targets of k · ψ(e_target)

    It learns by a task of the teacher: from the weighted sum k the user's newest target must be
    told among those of the batch, e being the teacher's embedding of it. Were it to learn by how
    well the student does, it would pick what is easy to copy. Other users' equal targets do not
    count.

    What has no weight adds nothing, and of it nothing is learned but its score: only the few
    features that are picked are mapped.

    Args:
        teacher: the shape of the features.
        dim: width K.
    """

    def __init__(self, teacher: TeacherShape, dim: int) -> None:
        super().__init__()
        self.hidden = LayerMaps(teacher.layers, teacher.dim, dim)
        self.score = nn.Parameter(
            torch.empty(teacher.layers, dim).uniform_(-(dim**-0.5), dim**-0.5)
        )
        self.knowledge = LayerMaps(teacher.layers, teacher.dim, dim)
        self.items = nn.Linear(teacher.item_dim, dim)

    def forward(
        self, features: Tensor, step_users: Tensor, targets: Tensor, embeddings: Tensor
    ) -> Picked:
        """Picks among the features of a batch of U users.

        Args:
            features: (T, L, D).
            step_users: (T,), the user of each step, in the order of the users.
            targets: (U,), the newest target of each user.
            embeddings: (U, ``item_dim``), of these targets.
        """
        layers = features.unbind(1)
        hidden = self.hidden(layers).tanh().view(len(layers), len(step_users), -1)
        scores = torch.einsum("ltk,lk->tl", hidden, self.score)
        weights = _weights_by_user(scores, step_users, len(targets))
        steps = [torch.nonzero(layer).squeeze(1) for layer in weights.detach().unbind(1)]
        picked = torch.cat(
            [layer[chosen] for layer, chosen in zip(weights.unbind(1), steps, strict=True)]
        )
        knowledge = self.knowledge(
            [layer[chosen] for layer, chosen in zip(layers, steps, strict=True)]
        )
        pooled = knowledge.new_zeros(len(targets), knowledge.shape[-1])
        pooled = pooled.index_add(0, step_users[torch.cat(steps)], picked.unsqueeze(1) * knowledge)
        logits = pooled @ self.items(embeddings).t()  # (U, U)
        own = torch.arange(len(targets), device=targets.device)
        equal = (targets.unsqueeze(1) == targets) & (own.unsqueeze(1) != own)
        loss = nn.functional.cross_entropy(logits.masked_fill(equal, -torch.inf), own)
        return Picked(steps, picked, knowledge, loss)


def _weights_by_user(scores: Tensor, step_users: Tensor, num_users: int) -> Tensor:
    """Returns the sparsemax of (T, L) scores over all that belong to a user, (T, L)."""
    counts = torch.bincount(step_users, minlength=num_users)
    firsts = counts.cumsum(0) - counts
    longest = int(counts.max())
    steps = torch.arange(len(step_users), device=step_users.device)
    slots = step_users * longest + steps - firsts[step_users]
    rows = scores.new_full((num_users * longest, scores.shape[1]), -torch.inf)
    rows = rows.index_copy(0, slots, scores).view(num_users, -1)
    return sparsemax(rows).view(num_users * longest, -1)[slots]


class Distilled(nn.Module):
    """A student with all that it learns by from a teacher's features; only the student is kept.

        total = the student's own loss + distill_weight · distance + the detector's loss
        distance = mean over users of Σ_tl a_tl ‖ n(σ_l LN(g_tl) + d_l) - n(k_tl) ‖²

    where n(x) = x / ‖x‖ and g_tl is the student's feature of step t at the depth of the teacher's
    layer l: that of its own M layers whose number is nearest to l (M - 1) / (L - 1). From a teacher
    of one layer its last learns.

    Weights a and knowledge k are constants here. They come of the detector, which learns by its own
    task alone, and so they cannot be made small, nor all alike, to please the student; and the
    student's maps σ cannot be, as n keeps the length of what they give.

    Where the student is given a sequence in pieces of a few inputs, the teacher has seen all of it:
    so the features of a short history come to be those of the long one.

    Args:
        student: learns by a loss.
        teacher: the shape of the teacher's features.
        config: how it learns.
    """

    def __init__(self, student: Learned, teacher: TeacherShape, config: DistillationConfig) -> None:
        super().__init__()
        self.config = config
        self.student = student
        self.detector = Detector(teacher, config.knowledge_dim)
        self.embeddings = LayerMaps(teacher.layers, student.state_dim, config.knowledge_dim)
        self.knowledge: Knowledge | None = None
        self._depths = matching_layers(teacher.layers, layers_of(student))

    @property
    def batch_spec(self) -> BatchSpec:
        """That of the student, and where the steps stand."""
        return replace(self.student.batch_spec, places=True)

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch, with ``distill`` and ``detector`` among its parts."""
        if self.knowledge is None:
            raise ValueError("expected the knowledge of a teacher, found none")
        losses, features = self._learn(batch)
        view = batch.views[0]
        steps = view.newest & (view.steps >= 0)
        newest = torch.ones_like(batch.step_users, dtype=torch.bool)
        newest[:-1] = batch.step_users[1:] != batch.step_users[:-1]
        targets = view.targets[steps][newest]
        weight = self.embeddings.weight
        with torch.autocast(device_type=weight.device.type, enabled=False):
            picked = self.detector(
                self.knowledge.of(batch).to(weight.device, weight.dtype),
                batch.step_users,
                targets,
                self.knowledge.items[targets.cpu()].to(weight.device, weight.dtype),
            )
            places = torch.nonzero(steps.flatten()).squeeze(1)
            own = [
                features[depth].flatten(0, 1)[places[chosen]].to(weight.dtype)
                for depth, chosen in zip(self._depths, picked.steps, strict=True)
            ]
            learned = nn.functional.normalize(self.embeddings(own), dim=-1)
            known = nn.functional.normalize(picked.knowledge.detach(), dim=-1)
            apart = (learned - known).square().sum(-1)  # (M,)
            distance = (picked.weights.detach() * apart).sum() / len(targets)
        return Losses(
            losses.total + self.config.distill_weight * distance + picked.loss,
            losses.parts | {"distill": distance.detach(), "detector": picked.loss.detach()},
        )

    def _learn(self, batch: Batch) -> tuple[Losses, list[Tensor]]:
        """Returns the student's own loss of a batch and its features of the first view.

        One pass gives both, where the loss asks for nothing but the states of the views. A second
        one leaves the random numbers where the first did: the next batch is that of the student
        alone.
        """
        student = self.student
        if isinstance(student, Encoder) and student.learns_from_states:
            features = [features_of(student, view) for view in batch.views]
            return student.losses(batch, [each[-1] for each in features]), features[0]
        losses = student(batch)  # type: ignore[operator]
        where = self.embeddings.weight.device
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            return losses, features_of(student, batch.views[0])


def matching_layers(teacher: int, student: int) -> Sequence[int]:
    """Returns for each layer of a teacher the student's layer at the same depth."""
    if teacher == 1:
        return (student - 1,)
    return tuple(int(layer * (student - 1) / (teacher - 1) + 0.5) for layer in range(teacher))
