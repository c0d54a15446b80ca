"""Tables of honest sources and of villains, for simulations and for markets of real parties."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.rows import record_bytes
from clearinghouse.schema import parse_schema
from clearinghouse.tables import from_records

LEVEL = ("sex", "age", "pain")
ROWS = 150

SCHEMA = parse_schema(
    {
        "name": "heart",
        "label": {"name": "ill", "levels": ["0", "1"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "age": {"kind": "number", "low": 20, "high": 90, "cuts": [50, 65]},
            "pain": {"kind": "category", "levels": ["none", "some", "angina"]},
            "chol": {"kind": "number", "low": 80, "high": 610},
            "pressure": {"kind": "number", "low": 80, "high": 220},
            "rate": {"kind": "number", "low": 40, "high": 220},
        },
        "strata": [["sex"], ["sex", "age"], ["sex", "age", "pain"]],
    },
    file="heart",
)
PAIN = ("none", "some", "angina")


@dataclass(frozen=True)
class Rows:
    """A table: numbers (age, chol, pressure, rate), sex, pain, label."""

    numbers: NDArray[np.float64]
    sex: NDArray[np.int64]
    pain: NDArray[np.int64]
    ill: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ill)

    @cached_property
    def hashes(self) -> list[bytes]:
        """Canonical hash of every row."""
        return [hashlib.sha256(record_bytes(record)).digest() for record in self.records()]

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """(cell, label) place of every row."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.asarray(cells.places(from_records(SCHEMA, self.records(), file="t"), LEVEL))

    def records(self) -> list[dict[str, str | None]]:
        names = ("age", "chol", "pressure", "rate")
        return [
            {
                "sex": "FM"[s],
                "pain": PAIN[p],
                **{name: f"{value:.1f}" for name, value in zip(names, row, strict=True)},
                "ill": str(y),
            }
            for row, s, p, y in zip(self.numbers, self.sex, self.pain, self.ill, strict=True)
        ]

    def points(self) -> NDArray[np.float64]:
        """Coordinates in the market's metric: spreads are a quarter of the bounds."""
        spreads = np.array([17.5, 132.5, 35.0, 45.0])
        one_hot = [(self.pain == k) / np.sqrt(2) for k in range(3)]
        sexes = [(self.sex == k) / np.sqrt(2) for k in range(2)]
        return np.column_stack([self.numbers / spreads, *one_hot, *sexes])


def clipped(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(numbers, [20, 80, 80, 40], [90, 610, 220, 220]).round(1)


def collected(rng: np.random.Generator, n: int, shift: float = 0.0) -> Rows:
    """Real patients; a site may be older and sicker than others."""
    age = rng.normal(56 + 6 * shift, 10, n)
    sex = (rng.random(n) < 0.6).astype(int)
    pain = rng.choice(3, n, p=np.array([0.45, 0.25, 0.3]))
    chol = rng.normal(235 + 1.2 * (age - 56), 45, n)
    pressure = rng.normal(130 + 0.5 * (age - 56), 17, n)
    rate = rng.normal(150 - 0.9 * (age - 56), 19, n)
    score = 0.06 * (age - 56) + 0.8 * sex + 1.1 * (pain == 2) - 0.05 * (rate - 150) - 0.9
    ill = (rng.random(n) < 1 / (1 + np.exp(-2 * score))).astype(int)
    return Rows(clipped(np.column_stack([age, chol, pressure, rate])), sex, pain, ill)


def invented(rng: np.random.Generator, n: int) -> Rows:
    """Plausible columns without any relation between them."""
    numbers = rng.normal([56, 235, 130, 150], [10, 45, 17, 19], (n, 4))
    kinds = rng.choice(3, n), rng.choice(2, n)
    return Rows(clipped(numbers), (rng.random(n) < 0.6).astype(int), *kinds)


def disguised(rng: np.random.Generator, victim: Rows) -> Rows:
    """A copy with every number moved a little, so that no row is equal."""
    moved = victim.numbers + rng.normal(size=victim.numbers.shape) * [1.0, 7, 2, 2.5]
    return Rows(clipped(moved), victim.sex, victim.pain, victim.ill)


def repeated(rng: np.random.Generator, own: Rows) -> Rows:
    """Three patients, each many times with tiny changes."""
    pick = rng.integers(0, 3, ROWS)
    moved = own.numbers[pick] + rng.normal(size=(ROWS, 4)) * 0.15
    return Rows(clipped(moved), own.sex[pick], own.pain[pick], own.ill[pick])


def nothing(own: Rows) -> Rows:
    return Rows(own.numbers[:0], own.sex[:0], own.pain[:0], own.ill[:0])
