"""RandomPad rows, written from their description: lists, loops and a plain Philox."""

from __future__ import annotations

import math
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
STEP_NEGATIVES, OPERATORS = 5 << 8, 6 << 8


def repeats(view: int) -> int:
    return 1 << 8 | view


def cropping(view: int) -> int:
    return 4 << 8 | view


def augmentation(view: int) -> int:
    return 7 << 8 | view


def shuffle(things: list[int], stream: Stream) -> None:
    for last in range(len(things) - 1, 0, -1):
        other = stream.below(last + 1)
        things[last], things[other] = things[other], things[last]


def shuffled(users: list[int], seed: int, epoch: int) -> list[int]:
    users = list(users)
    shuffle(users, Stream(seed, SHUFFLE, epoch, 0))
    return users


@dataclass
class Slot:
    """One position of a row."""

    item: int = 0
    target: int = 0
    segment: int = 0
    position: int = 0
    copy: int = 0
    step: int = -1
    weight: float = 0.0


def kept_part(
    sequence: list[int], n: int, *, crop: float, seed: int, epoch: int, user: int, view: int
) -> list[int]:
    """The steps that a view learns from: the places of their inputs in the sequence."""
    start, length = 0, len(sequence)
    if crop > 0:
        stream = Stream(seed, cropping(view), epoch, user)
        lengths = [count for count in range(2, length + 1) if count >= min(length, crop * length)]
        length = lengths[stream.below(len(lengths))]
        start = stream.below(len(sequence) - length + 1)
    return list(range(start, start + length - 1))[-n:]


def number_of_copies(m: int, n: int, *, padding: str, fit: str, stream: Stream) -> int:
    if fit == "whole":
        counts = [1]
        while (counts[-1] + 1) * m + counts[-1] <= n:
            counts.append(counts[-1] + 1)
    else:
        counts = [1] if m >= n else [extra + 1 for extra in range(1, n // m + 1)]
    if padding == "zero":
        return 1
    if padding == "repeat":
        return counts[-1]
    return counts[stream.below(len(counts))] if len(counts) > 1 else counts[0]


def laid_out(pairs: list[tuple[int, int]], copies: int, n: int) -> list[tuple[int, int]]:
    """Copies side by side, as (copy, place in it); copy 1 is the newest. Delimiters are (0, 0)."""
    laid: list[tuple[int, int]] = []
    for copy in range(1, copies + 1):
        laid = [(copy, j) for j in range(len(pairs))] + ([(0, 0)] if copy > 1 else []) + laid
    return laid[-n:]


def in_rows(lengths: list[int], n: int, *, pack: bool) -> list[list[int]]:
    """The numbers of the users in each row."""
    rows: list[list[int]] = []
    for user, length in enumerate(lengths):
        if pack and rows and sum(lengths[other] for other in rows[-1]) + length <= n:
            rows[-1].append(user)
        else:
            rows.append([user])
    return rows


@dataclass
class Rows:
    """The rows of all views, and whose steps they hold."""

    views: list[list[list[Slot]]]
    step_users: list[int]
    step_targets: list[int]


def views(
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
    count: int = 2,
    crop: float = 0.0,
) -> Rows:
    """The rows of the views of a batch."""
    parts = [
        [
            kept_part(sequences[user], n, crop=crop, seed=seed, epoch=epoch, user=user, view=view)
            for user in users
        ]
        for view in range(count)
    ]
    numbers: dict[tuple[int, int], int] = {}
    for row in range(len(users)):
        for place in sorted({place for part in parts for place in part[row]}):
            numbers[row, place] = len(numbers)
    result = Rows(
        views=[],
        step_users=[row for row, _ in numbers],
        step_targets=[sequences[users[row]][place + 1] for row, place in numbers],
    )
    for view, part in enumerate(parts):
        stretches: list[list[Slot]] = []
        for row, user in enumerate(users):
            places = part[row]
            pairs = [(sequences[user][place], sequences[user][place + 1]) for place in places]
            stream = Stream(seed, repeats(view), epoch, user)
            drawn = number_of_copies(len(pairs), n, padding=padding, fit=fit, stream=stream)
            would_be = laid_out(pairs, drawn, n)
            laid = would_be[-len(pairs) :] if copies == "weight" else would_be
            stretch = []
            for place, (copy, j) in enumerate(laid):
                if copy == 0:
                    stretch.append(Slot())
                    continue
                times = sum(1 for number, i in would_be if number > 0 and i == j)
                stretch.append(
                    Slot(
                        item=pairs[j][0],
                        target=pairs[j][1],
                        segment=copy if copies == "reset" else 1,
                        position=n - len(laid) + place if positions == "absolute" else j,
                        copy=copy,
                        step=numbers[row, places[j]],
                        weight=float(times if copies == "weight" else 1),
                    )
                )
            stretches.append(stretch)
        result.views.append(joined(stretches, n, pack=pack))
    return result


def joined(stretches: list[list[Slot]], n: int, *, pack: bool) -> list[list[Slot]]:
    """Rows of stretches, whose segments are counted from the right."""
    rows = []
    for row in in_rows([len(stretch) for stretch in stretches], n, pack=pack):
        slots: list[Slot] = []
        for stretch in [stretches[number] for number in reversed(row)]:
            used = max([slot.segment for slot in slots], default=0)
            for slot in stretch:
                slot.segment += used if slot.copy > 0 else 0
            slots = stretch + slots
        rows.append([Slot() for _ in range(n - len(slots))] + slots)
    return rows


def augmented(
    inputs: list[int], operator: str, ratio: float, *, mask: int, stream: Stream
) -> list[int]:
    """What an operator makes of some inputs."""
    if len(inputs) == 1:
        return inputs
    count = max(1, math.floor(ratio * len(inputs)))
    if operator == "mask":
        chosen: list[int] = []
        for last in range(len(inputs) - count, len(inputs)):
            place = stream.below(last + 1)
            chosen.append(last if place in chosen else place)
        return [mask if place in chosen else item for place, item in enumerate(inputs)]
    start = stream.below(len(inputs) - count + 1)
    stretch = inputs[start : start + count]
    if operator == "crop":
        return stretch
    shuffle(stretch, stream)
    return inputs[:start] + stretch + inputs[start + count :]


def augmented_views(
    sequences: list[list[int]],
    users: list[int],
    n: int,
    augmentations: list[tuple[str, float]],
    *,
    mask: int,
    positions: str,
    pack: bool,
    seed: int,
    epoch: int,
) -> list[list[list[Slot]]]:
    """The rows of two augmented views."""
    stretches: list[list[list[Slot]]] = [[], []]
    for user in users:
        choice = Stream(seed, OPERATORS, epoch, user)
        left = list(augmentations)
        chosen = [left.pop(choice.below(len(left)))]
        chosen.append(left[choice.below(len(left))] if left else chosen[0])
        for view, (operator, ratio) in enumerate(chosen):
            stream = Stream(seed, augmentation(view), epoch, user)
            inputs = augmented(sequences[user][:-1][-n:], operator, ratio, mask=mask, stream=stream)
            first = n - len(inputs) if positions == "absolute" else 0
            stretches[view].append(
                [
                    Slot(item=item, segment=1, position=first + place, copy=1)
                    for place, item in enumerate(inputs)
                ]
            )
    return [joined(view, n, pack=pack) for view in stretches]


def step_negatives(
    sequences: list[list[int]],
    users: list[int],
    rows: Rows,
    urn: list[int],
    count: int,
    *,
    outside_history: bool,
    copy: int,
    seed: int,
    epoch: int,
) -> tuple[list[list[int]], list[list[float]]]:
    """The negatives of each step, drawn from an urn of tickets, and the logarithms of how often."""
    drawn: list[list[int]] = []
    log_q: list[list[float]] = []
    for row, user in enumerate(users):
        stream = Stream(seed, STEP_NEGATIVES | copy << 16, epoch, user)
        own = [t for who, t in zip(rows.step_users, rows.step_targets, strict=True) if who == row]
        for target in own:
            wrong = {target, *(sequences[user] if outside_history else ())}
            right = [ticket for ticket in urn if ticket not in wrong]
            negatives: list[int] = []
            while len(negatives) < count:
                ticket = urn[stream.below(len(urn))]
                if ticket not in wrong:
                    negatives.append(ticket)
            drawn.append(negatives)
            log_q.append([math.log(count * right.count(i) / len(right)) for i in negatives])
    return drawn, log_q
