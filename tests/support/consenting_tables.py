"""What the consent tests trade: a tiny schema, a purse, and rows that can be searched for."""

import numpy as np

from clearinghouse.schema import parse_schema

SCHEMA = parse_schema(
    {
        "name": "tiny",
        "label": {"name": "sick", "levels": ["no", "yes"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "weight": {"kind": "number", "low": "30", "high": "200"},
        },
        "strata": [["sex"]],
        "subgroups": ["sex"],
    },
    file="tiny",
)
PURSE = {
    "kind": "acceptance",
    "amount_micro": 10_000_000,
    "metric": "auc",
    "threshold_micro": 700_000,
    "confidence_micro": 900_000,
}
NAMES = ("a", "b")
"""The two sources."""


def records(seed: int, n: int = 70) -> list[dict[str, str | None]]:
    """Rows whose numbers are long enough to be searched for in files."""
    draw = np.random.default_rng(seed)
    return [
        {
            "sex": "FM"[int(draw.integers(2))],
            "weight": f"{draw.uniform(40, 150):.9f}",
            "sick": ("no", "yes")[int(draw.integers(2))],
        }
        for _ in range(n)
    ]
