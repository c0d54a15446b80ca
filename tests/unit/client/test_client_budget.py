"""A party's budget: lanes, places, and the same patients in two homes."""

import pytest

from clearinghouse.client.budget import Budget, open_budget, unit_of
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.errors import BudgetExceededError, ConflictError, InputError, TryAgainError
from dp.cost import Cost

MICRO = 1_000_000


def test_each_lane_pays_for_its_own_releases(tmp_path) -> None:
    budget = Budget(tmp_path / "ledger", MICRO, 150_000)
    budget.release("a", {}, 400_000, lambda: b"x", "target")
    budget.release("b", {}, Cost(0, 150_000), lambda: b"y", "score")
    assert budget.left == Cost(600_000, 0)
    with pytest.raises(BudgetExceededError, match="rho"):
        budget.release("c", {}, Cost(0, 1), lambda: b"z", "score")
    with pytest.raises(ConflictError):
        budget.release("b", {}, 150_000, lambda: b"z", "score")
    for cost in (Cost(1, 1), Cost(), 0):
        with pytest.raises(ValueError, match="one lane"):
            budget.release("d", {}, cost, lambda: b"z", "score")
    with pytest.raises(InputError, match="fixed for life"):
        Budget(tmp_path / "ledger", MICRO)


def test_a_new_key_on_the_same_patients_does_not_refresh_their_budget(
    tmp_path, heart, empty_postgres
) -> None:
    """Two homes of one owner, whose ledgers are in one database; rows come in another order."""
    url = empty_postgres.replace("+psycopg", "")
    table = heart(40, seed=3)
    homes = [Keystore.open(tmp_path / name) for name in ("old", "new")]
    for home in homes:
        home.remember("ledger", {"url": url})
    old = open_budget(homes[0], table, MICRO)
    old.release("summary", {}, MICRO, lambda: b"x", "summary")
    turned = table.take(list(range(table.n))[::-1])
    new = open_budget(homes[1], turned, MICRO)
    assert unit_of(turned) == unit_of(table)
    assert (new.spent, new.limit) == (MICRO, MICRO)
    with pytest.raises(BudgetExceededError):
        new.release("another", {}, 1, lambda: b"y", "summary")
    assert open_budget(Keystore.open(tmp_path / "other"), heart(40, seed=4), MICRO).spent == 0
    assert not homes[1].ledger_path.exists()


def test_a_summary_is_paid_in_the_owners_database(connect, heart, empty_postgres, bench) -> None:
    keystore, transport = connect("in a database")
    keystore.remember("ledger", {"url": empty_postgres.replace("+psycopg", "")})
    terms = SourceTerms(64, 1, MICRO, MICRO)
    made = Provider("in a database", keystore, transport, heart(90), terms)
    made.publish()
    assert made.summary() == made.summary()
    assert (made.budget.spent, made.budget.limit) == (MICRO, MICRO)


def test_a_database_that_is_away_stops_every_release_and_is_named_without_its_password(
    tmp_path, heart
) -> None:
    keystore = Keystore.open(tmp_path / "home")
    keystore.remember(
        "ledger", {"url": "postgresql://owner:secret@127.0.0.1:9/books?sslmode=disable"}
    )
    assert keystore.ledger_words == "postgresql://127.0.0.1:9/books"
    with pytest.raises(TryAgainError, match="does not answer") as caught:
        open_budget(keystore, heart(10), MICRO)
    assert "secret" not in str(caught.value)
