"""A seeded simulation of the whole system; a failing seed is printed and repeats the failure.

`CLEARINGHOUSE_SEED=n pytest -m long tests/unit/trust/test_trust_whole_system.py` runs one seed.
"""

import os
import secrets

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test
from whole_system import WholeSystem

CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def simulate(number, examples, steps, machine=WholeSystem):
    """Run the machine from one seed.

    Raises:
        AssertionError: It failed; the message has the seed and what must not be.
    """
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=CHECKS,
        phases=[Phase.generate],
    )
    try:
        run_state_machine_as_test(seed(number)(machine), settings=chosen)
    except BaseException as error:
        raise AssertionError(f"CLEARINGHOUSE_SEED={number} fails: {error}") from error


def test_a_simulated_system_stays_as_it_must_be():
    simulate(2026, examples=3, steps=25)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_many_simulated_systems_stay_as_they_must_be():
    number = int(os.environ.get("CLEARINGHOUSE_SEED", secrets.randbelow(2**32)))
    print(f"CLEARINGHOUSE_SEED={number}", flush=True)
    simulate(number, examples=int(os.environ.get("CLEARINGHOUSE_EXAMPLES", "60")), steps=50)


def test_a_failing_seed_is_named():
    class Failing(WholeSystem):
        @invariant()
        def fails(self):
            raise ValueError("on purpose")

    with pytest.raises(AssertionError, match=r"CLEARINGHOUSE_SEED=7 fails: on purpose"):
        simulate(7, examples=1, steps=1, machine=Failing)
