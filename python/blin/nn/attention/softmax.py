"""Softmax attention, causal or bidirectional, with the interface of the linear one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import MultiHeadAttention, visibility
from blin.nn.convolution import DepthwiseConvolution


def softmax_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    segments: Tensor,
    *,
    causal: bool = True,
    dropout: float = 0.0,
) -> Tensor:
    """Computes scaled dot-product attention inside segments, O(N²).

        w_ij = softmax over the j visible from i of q_i · k_j / √D,   out_i = Σ_j w_ij v_j

    Args:
        queries: (B, H, N, D).
        keys: (B, H, N, D).
        values: (B, H, N, D).
        segments: (B, N).
        causal: see only what came before, and oneself.
        dropout: probability of dropping a weight w_ij.

    Returns:
        (B, H, N, D); rows that see nothing are 0.
    """
    # A softmax over nothing is NaN, in the gradient too: padding sees itself and is put out after.
    own = torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)
    mask = (visibility(segments, causal=causal) | own).unsqueeze(1)
    out = nn.functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, dropout_p=dropout
    )
    return out * (segments > 0)[:, None, :, None]


class SoftmaxAttention(MultiHeadAttention):
    """Multi-head softmax attention, with room for a local branch on the values.

    Args:
        dim: as for :class:`MultiHeadAttention`.
        num_heads: as for :class:`MultiHeadAttention`.
        causal: as for :class:`MultiHeadAttention`.
        dropout: probability of dropping an attention weight while training.
        local: as for :class:`MultiHeadAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        local: DepthwiseConvolution | None = None,
    ) -> None:
        super().__init__(dim, num_heads, causal=causal, local=local)
        self.dropout = dropout

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        """Applies :func:`softmax_attention`."""
        dropout = self.dropout if self.training else 0.0
        return softmax_attention(
            queries, keys, values, segments, causal=self.causal, dropout=dropout
        )
