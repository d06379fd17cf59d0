"""The built-in sample log: the same bytes everywhere, with the structure it promises."""

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

from blin.data.sample import sample_rows, write_sample_log

GOLDEN = "1b387fcc821517b32297c58767b94dc95a1c88e5aa28a9cc3901cb76235aa5f1"


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    log = tmp_path / "sample.csv"
    assert (
        write_sample_log(log, num_customers=200, seed=7) == len(log.read_bytes().splitlines()) - 1
    )
    assert hashlib.sha256(log.read_bytes()).hexdigest() == GOLDEN


def test_another_seed_gives_another_log() -> None:
    assert sample_rows(num_customers=20, seed=0) != sample_rows(num_customers=20, seed=1)


def test_it_is_a_csv_with_a_header_in_the_order_of_time(tmp_path: Path) -> None:
    log = tmp_path / "sample.csv"
    write_sample_log(log, num_customers=50, seed=0)
    header, *rows = log.read_text().splitlines()
    assert header == "customer,product,bought_at"
    assert rows[0].startswith("cust-000") and ",sku-" in rows[0]
    times = [row.split(",")[2] for row in rows]
    assert times == sorted(times)


def test_popularity_has_a_long_tail_and_some_customers_are_rare() -> None:
    rows = sample_rows(num_customers=3_000, seed=0)
    products = sorted(Counter(product for _, _, product in rows).values(), reverse=True)
    assert 1_000 < len(products) < 2_000
    assert sum(products[: len(products) // 10]) > 0.4 * len(rows)
    assert products[-1] < 5
    assert min(Counter(customer for _, customer, _ in rows).values()) < 5


def test_the_purchase_before_the_last_tells_more_than_chance() -> None:
    histories: dict[int, list[int]] = {}
    for _, customer, product in sample_rows(num_customers=2_000, seed=0):
        histories.setdefault(customer, []).append(product)
    last = Counter(pair for items in histories.values() for pair in pairwise(items))
    before = Counter(
        pair for items in histories.values() for pair in zip(items, items[2:], strict=False)
    )
    assert sum(count for count in before.values() if count >= 5) > sum(
        count for count in last.values() if count >= 5
    )
