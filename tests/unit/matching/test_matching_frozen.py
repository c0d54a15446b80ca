"""Everything that shapes the clearing is frozen before any ask, and no ask moves it."""

import numpy as np
from random_markets import FEE, MICRO

from clearinghouse.messages.intake import OpenRequest
from clearinghouse.rounds import decision as clear_step
from clearinghouse.rounds.frozen import freeze
from clearinghouse.rounds.terms import reserve_micro
from clearinghouse.schema import parse_schema
from clearinghouse.store.records import Summary

SCHEMA = parse_schema(
    {
        "name": "s",
        "label": {"name": "y", "levels": ["0", "1"]},
        "columns": {
            "sex": {"kind": "category", "levels": ["F", "M"]},
            "age": {"kind": "number", "low": 0, "high": 90, "cuts": [30, 60]},
        },
        "strata": [["sex"], ["sex", "age"]],
    },
    file="s",
)


def frozen_market(seed: int) -> tuple[OpenRequest, dict[str, Summary], list[int]]:
    rng = np.random.default_rng(seed)
    names = [f"src_{letter * 20}" for letter in "abcdef"[: int(rng.integers(2, 7))]]
    terms = OpenRequest.model_validate(
        {
            "valset_id": "val_" + "0" * 20,
            "source_ids": names,
            "developer_ids": ["org_" + "0" * 20],
            "records": 40,
            "currency": "EUR",
            "tariff_micro": 6 * MICRO,
            "distance_price_micro": MICRO,
            "share_cap_micro": 1_500_000,
            "fee_micro": FEE,
            "epsilon_target_micro": MICRO,
            "epsilon_score_micro": MICRO,
            "purse": {
                "kind": "acceptance",
                "amount_micro": 0,
                "metric": "auc",
                "threshold_micro": 0,
                "confidence_micro": 900_000,
            },
        }
    )
    summaries = {
        name: Summary(
            name, ("sex", "age"), tuple(rng.integers(-2, 40, 12).tolist()), MICRO, "0" * 64
        )
        for name in names
    }
    return terms, summaries, rng.integers(0, 30, 12).tolist()


def cleared(
    terms: OpenRequest, summaries: dict[str, Summary], noised: list[int], asks: list[int]
) -> tuple[str, str]:
    """Digest of the frozen inputs, and what the clearing made of them and of the asks."""
    target = freeze("run_" + "0" * 20, terms, "0" * 64, SCHEMA, ("sex", "age"), noised, summaries)
    names = tuple(terms.source_ids)
    commitments = ("0" * 64,) * len(names)
    market = clear_step.Market(target, reserve_micro(terms), names, tuple(asks), commitments)
    return target.frozen_digest, clear_step.decide(market).model_dump_json()


def test_flipping_any_ask_leaves_the_frozen_digest_unchanged() -> None:
    for seed in range(40):
        terms, summaries, noised = frozen_market(seed)
        rng = np.random.default_rng([seed, 3])
        asks = rng.integers(MICRO, 3 * MICRO, len(summaries)).tolist()
        digest, first = cleared(terms, summaries, noised, asks)
        results = {first}
        for source in range(len(asks)):
            flipped = [*asks[:source], 5 * MICRO - asks[source], *asks[source + 1 :]]
            again, result = cleared(terms, summaries, noised, flipped)
            assert again == digest
            results.add(result)
        assert len(results) > 1  # the asks did decide who sells what
        other, _ = cleared(terms, summaries, [noised[0] + 1, *noised[1:]], asks)
        assert other != digest  # real inputs do change it
