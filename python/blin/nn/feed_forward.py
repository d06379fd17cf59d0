"""The position-wise feed-forward networks."""

from __future__ import annotations

from torch import Tensor, nn

from blin.nn.dropout import Dropout

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


class SwiGLU(nn.Module):
    """A gated network without biases, D → hidden → D (Shazeer 2020, Eq. 6).

        y = W₃ drop(silu(W₁ x) ⊙ W₂ x)

    Args:
        dim: width D of the input and the output.
        hidden: width in between.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.dropout = Dropout(dropout)
        self.contract = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        hidden = nn.functional.silu(self.gate(x)) * self.expand(x)
        return self.contract(self.dropout(hidden))  # type: ignore[no-any-return]
