"""Settings become the fields of a dataclass, or are refused in one short line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blin.config import build
from blin.errors import ConfigError


@dataclass(frozen=True)
class Some:
    size: int = 8
    seed: int = 0
    rate: float = 0.5
    kind: str = "a"
    on: bool = False


def test_values_take_the_type_of_their_field() -> None:
    found = build(Some, {"size": 2**31 - 1, "seed": 2**62, "rate": 1, "on": True, "other": 3})
    assert found == Some(size=2**31 - 1, seed=2**62, rate=1.0, on=True)
    assert isinstance(found.rate, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 2**31}, "size: expected a whole number below 2^31, found 2147483648"),
        ({"size": 10**5000}, "below 2^31, found a number of more than 30 digits"),
        ({"size": 1.5}, "size: expected a whole number, found 1.5"),
        ({"size": True}, "size: expected a whole number, found True"),
        (
            {"rate": 10**400},
            "rate: expected a finite number, found a number of more than 30 digits",
        ),
        ({"rate": float("nan")}, "rate: expected a finite number, found nan"),
        ({"rate": "1"}, "rate: expected a finite number, found '1'"),
        ({"kind": [1] * 5000}, "kind: expected text, found [1, 1, 1"),
        ({"on": 1}, "on: expected true or false, found 1"),
    ],
)
def test_what_is_of_another_type_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Some, settings)
    assert message in str(error.value) and len(str(error.value)) < 200
