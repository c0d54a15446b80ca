"""What a provider is shown before it registers, while a real request is open."""

from collections import Counter

import yaml

from clearinghouse.cli.profile import Profile, Session
from clearinghouse.cli.provider import preview, register
from clearinghouse.client.party import Party
from clearinghouse.messages.intake import SourceView
from clearinghouse.messages.results import LogView, TargetView

ROWS = [f"{30 + i % 50},{'FM'[i % 2]},{('no', 'yes')[i % 3 == 0]}" for i in range(90)]


def newcomer(world, tmp_path):
    """A registered provider with a table and no source yet."""
    folder = tmp_path / "newcomer"
    keystore, transport = world.connect("newcomer")
    Party("newcomer", "provider", keystore, transport, world.schema).register()
    (folder / "rows.csv").write_text("\n".join(["age,sex,sick", *ROWS]) + "\n")
    return Session(folder, Profile("newcomer", "provider", world.url), keystore, transport)


def offered(folder, world, **terms):
    file = folder / "source.yaml"
    whole = {"name": "newcomer", "table": "rows.csv", "schema": "../schema.yaml", **terms}
    file.write_text(yaml.safe_dump({"price_per_record": "1.20", **whole}))
    return file


def counts_of(world, level):
    """How many of the newcomer's rows are in each place, in words."""
    found = Counter()
    for row in ROWS:
        age, sex, sick = row.split(",")
        words = {
            "age": f"age {'under 50' if int(age) < 50 else '50 and over'}",
            "sex": f"sex {sex}",
        }
        found[", ".join(words[column] for column in level), sick] += 1
    return found


def logged_of(world, session):
    """Entries that name the newcomer; others' may come at any time."""
    entries = world.hospital.transport.get("/log/entries", LogView).entries
    return [entry for entry in entries if session.org_id() in entry]


def test_a_preview_shows_what_is_published_what_it_costs_and_the_open_request(world, tmp_path):
    world.gather(runs=1)
    session = newcomer(world, tmp_path)
    early, words = preview(offered(session.home, world), session)
    assert early["open_requests"]["requests"][0]["held_here"] is None
    assert "its target is not open yet" in words
    world.work(world.everybody, until=lambda view: view.step == "clear")

    before = logged_of(world, session)
    value, words = preview(offered(session.home, world), session)
    target = world.hospital.transport.get(f"/requests/{world.request_id}/target", TargetView)
    (request,) = value["open_requests"]["requests"]
    assert request["id"] == world.request_id
    assert (request["records"], request["tariff_micro"]) == (60, 6_000_000)
    assert (request["granted"], request["price_fits"]) == (True, True)
    assert sum(place["records"] for place in request["wanted"]) == sum(target.wanted)
    own = counts_of(world, request["level"])
    labels = ("no", "yes")
    expected = sum(
        min(
            place["records"],
            sum(own[place["cell"], label] for label in labels if place["label"] in (None, label)),
        )
        for place in request["wanted"]
    )
    assert request["held_here"] == expected > 0
    first = request["wanted"][0]
    assert f"wants {first['records']} of {first['cell']}" in words
    assert f"your table holds {expected} of these" in words

    # a dearer source for research only is told what stands in its way
    terms = {"price_per_record": "7.00", "purposes": ["train models for research"]}
    value, words = preview(offered(session.home, world, **terms), session)
    assert "YOUR GRANTS DO NOT COVER IT; YOUR PRICE IS ABOVE IT" in words

    # nothing was sent, drawn or spent by looking
    assert logged_of(world, session) == before
    assert not (session.home / "ledger.sqlite").exists()
    looked_at, _ = preview(offered(session.home, world), session)
    published_as_previewed(world, session, looked_at)


def published_as_previewed(world, session, shown):
    """Registering publishes just what the preview said, for what it said."""
    known, words = register(session, session.home / "source.yaml")
    assert known["spent"] == shown["epsilon"] == "1.00"
    view = session.transport.get(f"/sources/{known['id']}", SourceView)
    assert (view.size_class, view.leaves) == (shown["size_class"], shown["leaves"])
    with world.desk.store.read() as tx:
        summary = tx.cohorts.summaries([known["id"]])[known["id"]]
    assert list(summary.level) == shown["level"]
    assert len(summary.counts) == shown["counts"]
    assert summary.epsilon_micro == 1_000_000
    assert "published" in words
