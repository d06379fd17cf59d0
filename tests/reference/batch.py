"""RandomPad rows, written from their description: lists, loops and a plain Philox."""

from __future__ import annotations

from dataclasses import dataclass

MASK = 0xFFFFFFFF


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 after its paper."""
    for _ in range(10):
        low = counter[0] * 0xD2511F53
        high = counter[2] * 0xCD9E8D57
        counter = [
            (high >> 32) ^ counter[1] ^ key[0],
            high & MASK,
            (low >> 32) ^ counter[3] ^ key[1],
            low & MASK,
        ]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return counter


class Stream:
    """The random words of (seed, purpose, epoch, index), as rng.rs defines them."""

    def __init__(self, seed: int, tag: int, epoch: int, index: int) -> None:
        self.key = [seed & MASK, seed >> 32]
        self.rest = [index, epoch, tag]
        self.block = 0
        self.words: list[int] = []

    def word(self) -> int:
        if not self.words:
            self.words = philox([self.block, *self.rest], self.key)
            self.block += 1
        return self.words.pop(0)

    def below(self, bound: int) -> int:
        while True:
            product = self.word() * bound
            if product & MASK >= (1 << 32) % bound:
                return product >> 32


SHUFFLE, TRAINING_NEGATIVES, RANKING_NEGATIVES = 0, 2 << 8, 3 << 8


def repeats(view: int) -> int:
    return 1 << 8 | view


def shuffled(users: list[int], seed: int, epoch: int) -> list[int]:
    users = list(users)
    stream = Stream(seed, SHUFFLE, epoch, 0)
    for last in range(len(users) - 1, 0, -1):
        other = stream.below(last + 1)
        users[last], users[other] = users[other], users[last]
    return users


@dataclass
class Step:
    """One position of a row."""

    item: int = 0
    target: int = 0
    segment: int = 0
    position: int = 0
    newest: bool = False


def unit(
    sequence: list[int], n: int, *, padding: str, fit: str, stream: Stream
) -> list[tuple[int, int, int, int]]:
    """The copies of a sequence, as (item, target, copy, step); copy 0 is the newest, at the right.

    Delimiters are (0, 0, -1, 0).
    """
    sequence = sequence[-(n + 1) :]
    pairs = list(zip(sequence[:-1], sequence[1:], strict=True))
    m = len(pairs)
    if fit == "whole":
        counts = [1]
        while (counts[-1] + 1) * m + counts[-1] <= n:
            counts.append(counts[-1] + 1)
    else:
        counts = [1] if m >= n else [extra + 1 for extra in range(1, n // m + 1)]
    if padding == "zero":
        copies = 1
    elif padding == "repeat":
        copies = counts[-1]
    else:
        copies = counts[stream.below(len(counts))] if len(counts) > 1 else counts[0]
    laid: list[tuple[int, int, int, int]] = []
    for copy in range(copies):
        one = [(x, y, copy, step) for step, (x, y) in enumerate(pairs)]
        laid = one + ([(0, 0, -1, 0)] if copy else []) + laid
    return laid[-n:]


def view(
    sequences: list[list[int]],
    users: list[int],
    n: int,
    *,
    padding: str,
    fit: str,
    copies: str,
    positions: str,
    pack: bool,
    seed: int,
    epoch: int,
    number: int,
) -> list[list[Step]]:
    """The rows of one view."""
    rows: list[list[list[tuple[int, int, int, int]]]] = []
    for user in users:
        stream = Stream(seed, repeats(number), epoch, user)
        laid = unit(sequences[user], n, padding=padding, fit=fit, stream=stream)
        if pack and rows and sum(map(len, rows[-1])) + len(laid) <= n:
            rows[-1].append(laid)
        else:
            rows.append([laid])
    result = []
    for row in rows:
        steps: list[Step] = []
        segment = 1
        for laid in reversed(row):
            used = {copy for _, _, copy, _ in laid if copy >= 0}
            for place, (item, target, copy, step) in reversed(list(enumerate(laid))):
                if copy < 0:
                    steps.insert(0, Step())
                    continue
                own = segment + copy if copies == "reset" else segment
                where = n - len(laid) + place if positions == "absolute" else step
                steps.insert(0, Step(item, target, own, where, copy == 0))
            segment += len(used) if copies == "reset" else 1
        result.append([Step() for _ in range(n - len(steps))] + steps)
    return result
