"""`check_world` and `log audit --data`: whatever is changed behind the log's back is named."""

import json
import math
import re
import shutil
import sqlite3
from dataclasses import replace

import pytest
from consenting import make_app, make_market

from clearinghouse.cli.main import run
from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock
from clearinghouse.world.check import check_world
from dp.ledger import Ledger


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """A market that was settled without models, at rest: its settings, ledgers and time."""
    folder, clock = tmp_path_factory.mktemp("world"), FixedClock()
    app = make_app(folder, "", clock)
    app.state.runner.pool.start()
    with app_client(app) as client:
        market = make_market(folder, client, app, clock)
        market.open()
        market.finish()
        market.settle()
    app.state.runner.pool.close()
    app.state.desk.store.close()
    return market


@pytest.fixture
def copy(settled, tmp_path):
    """A copy of the server's folder, and its database opened without the rules of its own."""
    server = settled.desk.settings.data
    shutil.copytree(server, tmp_path / "server")
    with sqlite3.connect(tmp_path / "server" / "clearinghouse.db") as database:
        database.execute("PRAGMA foreign_keys=OFF")
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in found.fetchall():
            database.execute(f"DROP TRIGGER {name}")
    return tmp_path / "server", database


def world(folder, settled, **options):
    settings = replace(settled.desk.settings, data=folder)
    return check_world(settings, settled.clock.now(), **{"grace_s": math.inf, **options})


def test_a_settled_market_is_what_its_log_says(settled):
    owners = {item.org_id: [item.keystore.ledger_place] for item in settled.providers.values()}
    found = world(settled.desk.settings.data, settled, ledgers=owners, grace_s=-1.0)
    assert (found.troubles, found.notes) == ((), ())
    assert found.entries == len(settled.entries()) > 25


CHANGES = {
    "money of an order": (
        "UPDATE posting SET amount_micro = amount_micro + 1 WHERE transfer LIKE '%:order:%'",
        r"table posting, key req_\w+:order:ord_\w+, field amount_micro \(log entry \d+\)",
    ),
    "a payment out of nothing": (
        "INSERT INTO transfer SELECT id || ':bonus', 0, 0 FROM request; "
        "INSERT INTO posting SELECT id || ':bonus', 'org:x', id, 0, 5 FROM request; "
        "INSERT INTO posting SELECT id || ':bonus', 'external:x', id, 1, -5 FROM request",
        r"table transfer, key req_\w+:bonus \(no log entry explains it\)",
    ),
    "a payment that is taken away": (
        "DELETE FROM posting WHERE transfer LIKE '%:fee'",
        r"table transfer, key req_\w+:fee \(log entry \d+\): the log says it is there",
    ),
    "a balance": (
        "UPDATE account SET balance_micro = balance_micro + 1 WHERE name LIKE 'platform:%'",
        r"table account, key platform:org_\w+, field balance_micro",
    ),
    "a deposit": (
        "UPDATE posting SET amount_micro = 2 * amount_micro WHERE transfer LIKE '%:deposit:%'",
        r"table posting, key req_\w+:deposit:src_\w+, field amount_micro \(log entry \d+\)",
    ),
    "a refund that was sent to somebody else": (
        "UPDATE posting SET account = 'org:x' WHERE transfer LIKE '%:refund' AND amount_micro > 0",
        r"table transfer, key req_\w+:refund \(no log entry explains it\)",
    ),
    "the epsilon of a release": (
        "UPDATE release SET epsilon_micro = 1 WHERE kind = 'target.released'",
        r"table release, key \d+, field epsilon_micro \(log entry \d+\): the log says 500000",
    ),
    "a release": (
        "DELETE FROM release WHERE kind = 'target.released'",
        r"table release, key \d+ \(log entry \d+\)",
    ),
    "the epsilon of a summary": (
        "UPDATE summary SET epsilon_micro = 7",
        r"table summary, key src_\w+, field epsilon_micro \(log entry \d+\)",
    ),
    "a published count": (
        "UPDATE summary SET counts = replace(counts, '[', '[1')",
        r"table summary, key src_\w+, field release \(log entry \d+\)",
    ),
    "a price list": (
        "UPDATE document SET body = replace(body, 'firm', 'fair') WHERE kind = 'prices'",
        r"table document, key req_\w+ prices, field body \(log entry \d+\)",
    ),
    "the history of prices": (
        "UPDATE price SET body = replace(body, 'firm', 'fair')",
        r"table price, key src_\w+ req_\w+, field body \(log entry \d+\)",
    ),
    "a price that nobody settled": (
        "INSERT INTO price SELECT source_id, 'req_x', 0, '{}' FROM price LIMIT 1",
        r"table price, key src_\w+ req_x \(no log entry explains it\)",
    ),
    "an ask": (
        "UPDATE ask SET ask_micro = ask_micro + 1",
        r"table ask, key req_\w+ src_\w+, field ask_micro \(log entry \d+\)",
    ),
    "what an order earned": (
        "UPDATE orders SET earned_micro = earned_micro + 1",
        r"table orders, key ord_\w+, field earned_micro \(log entry \d+\)",
    ),
    "the clearing": (
        "UPDATE document SET body = body || ' ' WHERE kind = 'clearing'",
        r"table document, key req_\w+ clearing, field body \(log entry \d+\)",
    ),
    "the terms": (
        "UPDATE request SET terms = replace(terms, 'fee_micro\":50000', 'fee_micro\":50001')",
        r"table request, key req_\w+, field terms \(log entry \d+\)",
    ),
    "a request's end": (
        "UPDATE request SET state = 'failed', reason = 'x'",
        r"table request, key req_\w+, field ended \(log entry \d+\): the log says done",
    ),
    "a grant": (
        "UPDATE grants SET expires = expires + 1",
        r"table grants, key grt_\w+, field expires \(log entry \d+\)",
    ),
    "a key": (
        "UPDATE org_key SET revoked = 99",
        r"table org_key, key key_\w+, field revoked \(log entry \d+\)",
    ),
    "a source": (
        "UPDATE source SET leaves = 2 * leaves",
        r"table source, key src_\w+, field leaves \(log entry \d+\)",
    ),
    "a log entry": (
        "UPDATE entry SET body = cast(replace(body, '\"fail', '\"fall') AS BLOB)",
        r"log: entry \d+ \(request.closed\)|log: node 0/\d+ is not the hash of its entries",
    ),
    "a node of the tree": (
        "UPDATE node SET hash = zeroblob(32) WHERE level = 1 AND position = 2",
        r"log: node 1/2 is not the hash of its entries",
    ),
    "a signed head": (
        "UPDATE checkpoint SET note = replace(note, 'clearinghouse.local', 'clearinghouse.other')",
        r"log: the checkpoint of \d+ entries: ",
    ),
    "an entry that is taken out": (
        "DELETE FROM entry WHERE position = 3",
        r"log: entry 3 is missing: 4 follows",
    ),
    "a blob's row": (
        "DELETE FROM blob WHERE digest IN (SELECT sealed_blob FROM orders)",
        r"blobs: [0-9a-f]{64} is named by \w+ and not in the index",
    ),
    "a request that nobody moves": (
        "UPDATE request SET state = 'running', due = 0",
        r"jobs: req_\w+ runs in step \w+ and waits for nothing: it is stuck",
    ),
    "a failure without a reason": (
        "UPDATE job SET state = 'failed', reason = ''",
        r"jobs: job job_\w+ \(rows.prove\) failed without a reason",
    ),
    "a task that nobody takes back": (
        "UPDATE task SET state = 'open'",
        r"jobs: task tsk_\w+ \(ask.commit\) is open and its request has ended",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_behind_the_log_is_named(copy, settled, name):
    folder, database = copy
    statements, expected = CHANGES[name]
    with database:
        before = database.total_changes
        for statement in statements.split(";"):
            database.execute(statement)
    assert database.total_changes > before
    database.close()
    found = world(folder, settled)
    assert any(
        re.match(expected, str(item).removeprefix("database: ")) for item in found.troubles
    ), found.troubles


def test_blobs_that_are_changed_lost_or_left_over_are_named(copy, settled):
    folder, database = copy
    database.close()
    paths = sorted((folder / "blobs").glob("??/*"))
    paths[0].write_bytes(b"other")
    paths[1].unlink()
    stray = folder / "blobs" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"nobody's")
    found = {str(item) for item in world(folder, settled, grace_s=-1e9).troubles}
    assert found == {
        f"blobs: {paths[0].name} has other bytes where blobs lie",
        f"blobs: {paths[1].name} is in the index and not where blobs lie",
        f"blobs: {stray.name} lies among the blobs and nothing names it",
    }
    assert stray.name not in str(world(folder, settled, grace_s=1e12).troubles)


def test_a_release_that_was_free_and_one_that_bought_nothing_are_told_apart(settled, tmp_path):
    a, b = settled.providers.values()
    empty = tmp_path / "empty.sqlite"
    Ledger.open(empty, limit_micro=5)
    folder = settled.desk.settings.data
    found = world(folder, settled, ledgers={a.org_id: [empty]})
    assert [str(item) for item in found.troubles] == [
        f"budgets: entry {index}: {a.source_id}.summary was released free: "
        f"{a.org_id}'s ledger has no such key"
        for index, entry in enumerate(settled.entries())
        if entry.type == "summary.released" and entry.actor == a.org_id
    ]
    swapped = world(folder, settled, ledgers={b.org_id: [a.keystore.ledger_place]})
    (note,) = swapped.notes
    paid = a.terms.epsilon_micro
    assert f"{b.org_id} paid {paid} millionths for {a.source_id}.summary" in note.words
    assert "never released" in note.words
    assert len(swapped.troubles) == 1


def test_a_published_head_of_another_log_is_named(copy, settled):
    folder, database = copy
    database.close()
    heads = settled.desk.settings.published.read_text()
    folder.with_name("server.checkpoint").write_text(heads)
    assert world(folder, settled).is_well
    size = heads.splitlines()[1]
    text = heads.replace(f"\n{size}\n", f"\n{int(size) + 7}\n")
    folder.with_name("server.checkpoint").write_text(text)
    words = str(world(folder, settled).troubles)
    assert f"a checkpoint of {int(size) + 7} entries is signed; " in words


def test_log_audit_compares_a_servers_database_with_its_log(copy, capsys):
    folder, database = copy
    assert run(["log", "audit", "--data", str(folder), "--json"], print) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == []
    with database:
        database.execute("UPDATE ask SET ask_micro = 3")
    database.close()
    said = []
    assert run(["log", "audit", "--data", str(folder)], said.append) != 0
    (words,) = said
    assert "table ask, key req_" in words
    assert "field ask_micro (log entry" in words
    assert run(["log", "audit"], said.append) == 2
    assert run(["log", "audit", "--data", str(folder.parent)], said.append) == 2


def test_doctor_looks_at_the_whole_world_if_it_is_asked(copy, capsys):
    folder, database = copy
    said = []
    run(["doctor", "--data", str(folder), "--world", "--json"], said.append)
    checks = json.loads(capsys.readouterr().out)["checks"]
    world_of = {item["check"]: item["status"] for item in checks if "world" in item["check"]}
    assert set(world_of.values()) == {"ok"}
    assert len(world_of) == 6
    with database:
        database.execute("UPDATE account SET balance_micro = 1 WHERE name LIKE 'escrow:%'")
    database.close()
    run(["doctor", "--data", str(folder), "--world", "--json"], said.append)
    checks = json.loads(capsys.readouterr().out)["checks"]
    broken = [item for item in checks if item["status"] == "broken" and "world" in item["check"]]
    assert [item["check"] for item in broken] == ["world: database"]
    assert "account, key escrow:" in broken[0]["detail"]


def doctor_of(folder, capsys, *arguments):
    """What `doctor --world` says of budgets: each finding's status, and the words of the worst."""
    run(["doctor", "--data", str(folder), "--world", *map(str, arguments), "--json"], print)
    checks = json.loads(capsys.readouterr().out.splitlines()[0])["checks"]
    found = [item for item in checks if item["check"] in ("world", "world: budgets")]
    return [item["status"] for item in found], found[0]["detail"]


def test_doctor_compares_an_owners_ledger_if_its_home_is_named(copy, settled, tmp_path, capsys):
    folder, database = copy
    database.close()
    party = settled.providers["a"]
    home = tmp_path / "home"
    shutil.copytree(party.keystore.ledger_path.parent, home)
    assert doctor_of(folder, capsys, "--owner", home)[0] == ["ok"]
    (home / party.keystore.ledger_path.name).unlink()
    Ledger.open(home / party.keystore.ledger_path.name, limit_micro=5)
    status, words = doctor_of(folder, capsys, "--owner", home)
    assert status == ["broken"]
    assert f"{party.source_id}.summary was released free" in words
    (tmp_path / "other").mkdir(mode=0o700)
    for nobody in ("none", "other"):
        assert doctor_of(folder, capsys, "--owner", tmp_path / nobody)[0] == ["broken"]
    assert not (tmp_path / "none").exists()
    assert run(["doctor", "--data", str(folder), "--owner", str(home)], print) == 2
