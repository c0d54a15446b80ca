"""How sure an audit has to be in tests, so that none of them fails by chance."""

SURE = 1 - 1e-6
"""Where nothing is wrong: an accusation would be an accident."""

CAUGHT = 0.99
"""Where a fault is planted: no accusation is wrong, and a lower bar is seldom missed."""
