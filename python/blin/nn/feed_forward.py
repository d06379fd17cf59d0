"""The position-wise feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, D → hidden → D (Blin, Eq. 12: hidden = D).

    Args:
        dim: width D of the input and the output.
        hidden: width between the two maps.
        activation: a key of :data:`ACTIVATIONS`.
    """

    def __init__(self, dim: int, hidden: int, *, activation: str) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        return self.contract(self.activation(self.expand(x)))  # type: ignore[no-any-return]
