"""Where each model comes from."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """What a model is, and the publication that it follows.

    Attributes:
        about: what it is, in one line.
        paper: its title; empty where there is none.
        venue: where it appeared, with the year.
    """

    about: str
    paper: str = ""
    venue: str = ""


_BLIN = (
    "Blin: A Multi-Task Sequence Recommendation Based on Bidirectional KL-Divergence and Linear "
    "Attention",
    "Mathematics 2024",
)

SOURCES = {
    "blin": Source("causal linear attention, convolution, agreement of two views", *_BLIN),
    "blin-paper": Source("Blin with the operators as printed, a row for each prefix", *_BLIN),
    "blin-zc": Source("Blin with zero padding and item cropping", *_BLIN),
    "blin-d": Source("Blin with softmax attention", *_BLIN),
    "blin-dwc": Source("Blin without the convolution", *_BLIN),
    "blin-bkl": Source("Blin without the agreement of two views", *_BLIN),
    "sasrec": Source(
        "causal softmax attention",
        "Self-Attentive Sequential Recommendation",
        "ICDM 2018",
    ),
    "esasrec": Source(
        "softmax attention in gated blocks, many negatives",
        "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion",
        "RecSys 2025",
    ),
    "cl4srec": Source(
        "SASRec, and a contrast of cropped, masked and reordered sequences",
        "Contrastive Learning for Sequential Recommendation",
        "ICDE 2022",
    ),
    "ct4rec": Source(
        "SASRec, and two passes that must agree",
        "CT4Rec: Simple yet Effective Consistency Training for Sequential Recommendation",
        "KDD 2023",
    ),
    "bert4rec": Source(
        "softmax attention both ways, masked items to fill in",
        "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from "
        "Transformer",
        "CIKM 2019",
    ),
    "linrec": Source(
        "linear attention both ways, normalised by length",
        "LinRec: Linear Attention Mechanism for Long-term Sequential Recommender Systems",
        "SIGIR 2023",
    ),
    "blossomrec": Source(
        "attention to chosen blocks of the past and to what is near",
        "BlossomRec: Block-level Fused Sparse Attention Mechanism for Sequential Recommendations",
        "WWW 2026",
    ),
    "gru4rec": Source(
        "a gated recurrent network",
        "Session-based Recommendations with Recurrent Neural Networks",
        "ICLR 2016",
    ),
    "caser": Source(
        "convolutions over the newest items, as over an image",
        "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding",
        "WSDM 2018",
    ),
    "tisasrec": Source(
        "softmax attention that knows the time between items",
        "Time Interval Aware Self-Attention for Sequential Recommendation",
        "WSDM 2020",
    ),
    "mstein": Source(
        "items as distributions, with Wasserstein attention and contrast",
        "Mutual Wasserstein Discrepancy Minimization for Sequential Recommendation",
        "WWW 2023",
    ),
    "mqsa-ted": Source(
        "softmax attention with two queries, and taught what follows what",
        "Collaboration and Transition: Distilling Item Transitions into Multi-Query Self-Attention "
        "for Sequential Recommendation",
        "WSDM 2024",
    ),
    "spnn": Source(
        "heads that look back to different distances, weighed by a gate; known by its abstract",
        "Sequential Recommendation Based On Knowledge Distillation And Multi-head Attention",
        "master's thesis, listed 2024",
    ),
    "popularity": Source("what is interacted with most"),
    "recent-popularity": Source(
        "what is interacted with most in the newest part of the log",
        "A Re-visit of the Popularity Baseline in Recommender Systems",
        "SIGIR 2020",
    ),
    "markov": Source("what followed the last item"),
    "item-knn": Source(
        "what is similar to the newest items",
        "Item-based Collaborative Filtering Recommendation Algorithms",
        "WWW 2001",
    ),
}
"""By the models' names. A preset has the source of what it is a preset of."""
