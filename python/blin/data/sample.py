"""The built-in sample log: a made-up shop, written as the raw CSV a user would have.

A customer follows two interests at a time and goes back and forth between them; within an
interest, what was bought last suggests what comes next. So the next purchase often continues not
the last one but the one before it, which counting pairs of neighbours cannot see. Interests drift
to related ones, popularity has a long tail, and some customers and products are too rare to keep.

The same seed gives the same bytes everywhere: the only source of chance is `random.Random.random`,
whose sequence Python guarantees, and all other arithmetic is exact or correctly rounded.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from random import Random

_START = datetime(2024, 1, 1)
_SPAN_SECONDS = 600 * 86_400
_GAP_SECONDS = (60, 600, 3_600, 86_400, 5 * 86_400)
_NUM_TOPICS = 64
_TOPIC_SIZES = (12, 32)

_SWITCH_INTEREST = 0.6
_CHANGE_INTEREST = 0.04
_FOLLOW_SUGGESTION = 0.8
_BUY_AGAIN = 0.03
_BUY_ANYTHING = 0.05


@dataclass(frozen=True)
class _Topic:
    """A group of products: how popular each is (cumulated) and which two each suggests."""

    products: Sequence[int]
    popularity: Sequence[int]
    suggestions: Sequence[tuple[int, int]]


def write_sample_log(path: Path, *, num_customers: int = 3_600, seed: int = 0) -> int:
    """Writes the sample log as a CSV file with a header and returns the number of its rows."""
    rows = sample_rows(num_customers=num_customers, seed=seed)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write("customer,product,bought_at\n")
            file.writelines(
                f"cust-{customer:05d},sku-{product:04d},{when:%Y-%m-%dT%H:%M:%S}\n"
                for when, customer, product in rows
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(rows)


def sample_rows(*, num_customers: int, seed: int) -> list[tuple[datetime, int, int]]:
    """Returns (time, customer, product) rows in the order of time."""
    random = Random(seed)
    topics = _topics(random)
    topic_popularity = _long_tail(len(topics))
    rows = []
    for customer in range(num_customers):
        seconds = _below(random, _SPAN_SECONDS)
        for product in _purchases(random, topics, topic_popularity):
            rows.append((_START + timedelta(seconds=seconds), customer, product))
            seconds += 1 + _below(random, _GAP_SECONDS[_below(random, len(_GAP_SECONDS))])
    return sorted(rows)


def _topics(random: Random) -> list[_Topic]:
    smallest, largest = _TOPIC_SIZES
    sizes = [smallest + _below(random, largest - smallest + 1) for _ in range(_NUM_TOPICS)]
    numbers = _shuffled(random, sum(sizes))
    topics = []
    for size in sizes:
        products = [numbers.pop() for _ in range(size)]
        successor = _shuffled(random, size)
        suggestions = [(successor[place], _below(random, size)) for place in range(size)]
        topics.append(_Topic(products, _long_tail(size), suggestions))
    return topics


def _purchases(
    random: Random, topics: Sequence[_Topic], topic_popularity: Sequence[int]
) -> list[int]:
    """Returns what one customer buys, in order."""
    interests = [_weighted(random, topic_popularity), _weighted(random, topic_popularity)]
    last: list[int | None] = [None, None]
    active = 0
    bought: list[int] = []
    for _ in range(_num_purchases(random)):
        if random.random() < _CHANGE_INTEREST:
            interests[active] = (interests[active] + 1 + _below(random, 2)) % len(topics)
            last[active] = None
        if random.random() < _SWITCH_INTEREST:
            active = 1 - active
        topic = topics[interests[active]]
        if random.random() < _BUY_ANYTHING:
            other = topics[_weighted(random, topic_popularity)]
            bought.append(other.products[_weighted(random, other.popularity)])
            continue
        place = _next_place(random, topic, last[active])
        if topic.products[place] in bought and random.random() >= _BUY_AGAIN:
            place = _weighted(random, topic.popularity)
        last[active] = place
        bought.append(topic.products[place])
    return bought


def _next_place(random: Random, topic: _Topic, last: int | None) -> int:
    if last is None or random.random() >= _FOLLOW_SUGGESTION:
        return _weighted(random, topic.popularity)
    likely, possible = topic.suggestions[last]
    return likely if random.random() < 0.75 else possible


def _num_purchases(random: Random) -> int:
    """Returns 2 or more, 14 on average, with a long tail."""
    count = 2
    while count < 80 and random.random() >= 1 / 13:
        count += 1
    return count


def _long_tail(size: int) -> list[int]:
    """Returns cumulated weights of Zipf's law: the n-th weighs 1/n of the first."""
    return list(accumulate(1_000_000 // rank for rank in range(1, size + 1)))


def _weighted(random: Random, cumulated: Sequence[int]) -> int:
    return bisect_right(cumulated, _below(random, cumulated[-1]))


def _below(random: Random, bound: int) -> int:
    return int(random.random() * bound)


def _shuffled(random: Random, size: int) -> list[int]:
    order = list(range(size))
    for place in range(size - 1, 0, -1):
        other = _below(random, place + 1)
        order[place], order[other] = order[other], order[place]
    return order
