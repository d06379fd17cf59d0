"""Softmax attention, causal or bidirectional, with the interface of the linear one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import check_heads, merge_heads, split_heads, visibility
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


class SoftmaxAttention(nn.Module):
    """Multi-head softmax attention, with room for a local branch on the values.

    Args:
        dim: width D of the input and the output.
        num_heads: number of heads; divides ``dim``.
        causal: see only what came before, and oneself.
        dropout: probability of dropping an attention weight while training.
        local: a depthwise convolution of the values (B, N, D), whose output is added to that of
            the attention before the output projection.
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
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.causal = causal
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.local = local
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        parts = self.qkv(x).chunk(3, dim=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in parts)
        heads = softmax_attention(
            queries,
            keys,
            values,
            segments,
            causal=self.causal,
            dropout=self.dropout if self.training else 0.0,
        )
        mixed = merge_heads(heads)
        if self.local is not None:
            mixed = mixed + self.local(parts[2], segments)
        return self.out(mixed)  # type: ignore[no-any-return]
