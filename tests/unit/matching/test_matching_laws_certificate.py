"""The certificate as JSON: what an auditor accepts and refuses, and bit-exact recomputing."""

import json
import time
from typing import Any

import numpy as np
import pytest

from matching import clear, marginal_values
from matching.certificate import (
    Cleared,
    recheck_json,
    recompute,
    to_json,
    verify_json,
)

INPUTS = ("distances", "target", "supplies", "prices", "reserve")


def inputs(seed: int, sources: int = 6, cells: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "distances": rng.integers(0, 3_000_000, (cells, cells)).tolist(),
        "target": rng.integers(1, 12, cells).tolist(),
        "supplies": rng.integers(0, 6, (sources, cells)).tolist(),
        "prices": rng.integers(0, 3_000_000, sources).tolist(),
        "reserve": rng.integers(2_000_000, 6_000_000, cells).tolist(),
        "tie_keys": [rng.bytes(8).hex() for _ in range(sources)],
    }


def changed(text: str, **fields: Any) -> str:
    return json.dumps(json.loads(text) | fields, sort_keys=True, separators=(",", ":"))


def test_recomputing_gives_what_the_clearing_gave_bit_for_bit() -> None:
    for seed in range(40):
        given = inputs(seed)
        cleared = recompute(given)
        plan = clear(
            *(given[name] for name in INPUTS[:4]),
            reserve=given["reserve"],
            tie_keys=[bytes.fromhex(key) for key in given["tie_keys"]],
        )
        np.testing.assert_array_equal(cleared.plan.quota, plan.quota)
        np.testing.assert_array_equal(cleared.marginals, marginal_values(plan))
        np.testing.assert_array_equal(
            cleared.payments, plan.prices * plan.units + cleared.marginals
        )
        for ladder, payment in zip(cleared.ladders, cleared.payments, strict=True):
            assert sum(price * units for _, price, units in ladder) == payment
        text = to_json(cleared)
        assert to_json(recheck_json(text)) == text == to_json(recompute(json.loads(text)))
        assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
        np.testing.assert_array_equal(verify_json(text).quota, plan.quota)


def test_keys_may_be_absent_or_integers_and_empty_markets_are_fine() -> None:
    for keys in (None, [5, 3, 4, 1, 2, 6]):
        text = to_json(recompute(inputs(1) | {"tie_keys": keys}))
        assert to_json(recheck_json(text)) == text
        verify_json(text)
    nobody = recompute({**inputs(1), "supplies": [], "prices": [], "tie_keys": None})
    verify_json(to_json(nobody))
    recheck_json(to_json(nobody))


@pytest.fixture(scope="module")
def cleared() -> Cleared:
    return recompute(inputs(3))


@pytest.mark.parametrize("step", [1, -1, 1000])
@pytest.mark.parametrize("field", ["quota", "flow", "payments", "cell_prices", "objective"])
def test_any_changed_number_is_refused_by_recomputing(
    cleared: Cleared, field: str, step: int
) -> None:
    text = to_json(cleared)
    value = json.loads(text)[field]
    for place in np.ndindex(np.shape(value)):
        array = np.array(value)
        array[place] += step
        with pytest.raises(ValueError, match="another result"):
            recheck_json(changed(text, **{field: array.tolist()}))


def test_any_changed_quota_flow_objective_or_input_is_refused_in_linear_time() -> None:
    refused = 0
    for seed in range(12):
        cleared = recompute(inputs(seed))
        text = to_json(cleared)
        document = json.loads(text)
        for field in ("quota", "flow"):
            for place in np.ndindex(np.shape(document[field])):
                for step in (1, -1):
                    array = np.array(document[field])
                    array[place] += step
                    with pytest.raises(ValueError, match="expected"):
                        verify_json(changed(text, **{field: array.tolist()}))
        for step in (1, -1, 1000):
            with pytest.raises(ValueError, match="expected the objective"):
                verify_json(changed(text, objective=document["objective"] + step))
        # a flow that is feasible but not optimal: two sources swap a unit in a cell
        for cell in range(5):
            sold = np.flatnonzero(cleared.plan.quota[:, cell])
            room = np.flatnonzero(cleared.plan.supplies[:, cell] > cleared.plan.quota[:, cell])
            for seller in sold:
                for other in set(room.tolist()) - {int(seller)}:
                    if cleared.plan.prices[other] <= cleared.plan.prices[seller]:
                        continue
                    quota = cleared.plan.quota.copy()
                    quota[seller, cell] -= 1
                    quota[other, cell] += 1
                    loss = int(cleared.plan.prices[other] - cleared.plan.prices[seller])
                    swapped = {"quota": quota.tolist(), "objective": document["objective"] - loss}
                    with pytest.raises(ValueError, match="expected an optimum"):
                        verify_json(changed(text, **swapped))
                    refused += 1
    assert refused > 20


def test_cell_prices_far_off_and_payments_out_of_range_are_refused_in_linear_time(
    cleared: Cleared,
) -> None:
    text = to_json(cleared)
    document = json.loads(text)
    for cell in range(5):
        for step in (-6_000_000, 6_000_000):
            prices = list(document["cell_prices"])
            prices[cell] += step
            if (np.array(document["quota"])[:, cell] > 0).any():
                with pytest.raises(ValueError, match="expected an optimum"):
                    verify_json(changed(text, cell_prices=prices))
    for source in range(6):
        units = sum(document["quota"][source])
        for amount in (units * document["prices"][source] - 1, units * 6_000_000 + 1):
            payments = list(document["payments"])
            payments[source] = amount
            with pytest.raises(ValueError, match="payment between ask and reserve"):
                verify_json(changed(text, payments=payments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something"}, "certificate v1"),
        ({"extra": 1}, "expected the fields"),
        ({"objective": 1.5}, "integers only"),
        ({"objective": True}, "objective: expected an integer"),
        ({"quota": [[1]]}, "expected quota and flow to fit"),
        ({"payments": [1]}, "payments: expected 6"),
        ({"payments": ["1"] * 6}, "payments: expected integers"),
        ({"cell_prices": [1]}, "prices: expected shape"),
        ({"target": [1]}, "expected shape"),
        ({"tie_keys": ["zz"] * 6}, "hexadecimal"),
    ],
)
def test_malformed_certificates_are_refused(
    cleared: Cleared, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        verify_json(changed(to_json(cleared), **change))


def test_a_missing_field_and_text_that_is_no_json_are_refused(cleared: Cleared) -> None:
    document = json.loads(to_json(cleared))
    del document["payments"]
    with pytest.raises(ValueError, match="expected the fields"):
        verify_json(json.dumps(document))
    for text in ("", "[]", "{}", "NaN", "[" * 100_000, '{"format":1}'):
        with pytest.raises(ValueError, match=r"."):
            verify_json(text)
    with pytest.raises(ValueError, match="one meaning"):
        verify_json(to_json(cleared)[:-1] + ',"objective":0}')
    with pytest.raises(ValueError, match="expected the fields"):
        recompute({"target": [1]})


def test_checking_takes_a_small_part_of_clearing_again() -> None:
    """Linear time, on a market where one clearing with all payments takes much longer."""
    text = to_json(recompute(inputs(5, sources=400, cells=48)))
    times = []
    for check in (verify_json, recheck_json):
        check(text)
        start = time.process_time()
        check(text)
        times.append(time.process_time() - start)
    assert times[0] < times[1]
