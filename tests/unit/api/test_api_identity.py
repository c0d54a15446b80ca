"""Keys by log index, and API keys by hash."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from clearinghouse import failpoints
from clearinghouse.errors import AuthenticationError
from clearinghouse.log.entries import KeyHistory, parse_entry
from clearinghouse.messages.identity import possession_bytes
from clearinghouse.signing import SigningKey, b64encode


def announce(party, key, by=None):
    """POST /v1/keys for `key`, with the possession proof of `by`."""
    public = key.verify_key.base64
    proof = (by or key).sign(possession_bytes(party.org_id, public))
    return party.post("/v1/keys", {"public_key": public, "possession": b64encode(proof)})


def rotated(party):
    """The party with a new key, and the old one."""
    old, party.key_before = party.key, party.key
    new = SigningKey.generate()
    assert announce(party, new).status_code == 200
    party.key = new
    return old


def entries(app):
    with app.state.desk.store.read() as tx:
        return [parse_entry(body) for body in tx.log.entries(0, 1000)]


# ---------------------------------------------------------------- keys


def test_a_new_key_signs_from_its_entry_on_and_an_old_one_until_its_revocation(
    party, app, problem, schema
):
    provider = party()
    new, old = SigningKey.generate(), provider.key
    provider.key = new
    problem(provider.get("/v1/agent/tasks"), 401, "unauthenticated")
    provider.key = old
    added = announce(provider, new).json()
    assert announce(provider, new).json() == added
    for key in (old, new):
        provider.key = key
        assert provider.get("/v1/agent/tasks").status_code == 200
    revoked = provider.delete(f"/v1/keys/{old.key_id}").json()
    assert provider.delete(f"/v1/keys/{old.key_id}").json() == revoked
    provider.key = old
    for answer in (provider.get("/v1/agent/tasks"), provider.post("/v1/schemas", {"body": schema})):
        problem(answer, 401, "unauthenticated")
    assert provider.put(b"x").status_code == 401
    found = entries(app)
    assert found[added["added"]].type == "key.added"
    assert (found[revoked["revoked"]].type, found[revoked["revoked"]].key) == (
        "key.revoked",
        new.key_id,
    )


def test_entries_after_a_rotation_name_the_new_key_and_the_whole_log_verifies(
    make_market, app, party
):
    market = make_market()
    before = len(entries(app))
    old = rotated(market.provider)
    source = {"name": "x", "schema_id": market.schema_id, "size_class": 1}
    source |= {"rows_root": "0" * 64, "leaves": 2}
    assert market.provider.post("/v1/sources", source).status_code == 200
    assert market.provider.delete(f"/v1/keys/{old.key_id}").status_code == 200
    assert market.provider.post("/v1/sources", source).status_code == 200
    found = entries(app)
    mine = [entry for entry in found if entry.actor == market.provider.org_id]
    assert {entry.key for entry in mine if found.index(entry) < before} == {old.key_id}
    assert mine[-1].key == market.provider.key.key_id
    history = KeyHistory()
    for entry in found:
        history.apply(entry)
    with app.state.desk.store.read() as tx:
        assert tx.parties.get(market.provider.org_id).key_id == market.provider.key.key_id


def test_what_the_server_records_for_a_party_names_a_key_that_still_acts(make_market, app):
    """An act that the server logs later is not logged under a key that was revoked meanwhile."""
    market = make_market()
    old = rotated(market.provider)
    desk = app.state.desk
    with desk.store.read() as tx:
        stale = tx.parties.by_key(old.key_id)
    market.provider.delete(f"/v1/keys/{old.key_id}")
    with desk.store.read() as tx:
        assert tx.parties.get(market.provider.org_id).key_id == market.provider.key.key_id
    objects = {"source": market.source_id, "owner": stale.id}
    with pytest.raises(AuthenticationError, match="revoked"), desk.store.write() as tx:
        desk.record(tx, "source.registered", stale, objects=objects)


def test_a_call_that_was_verified_before_a_revocation_changes_nothing_after_it(
    make_market, app, monkeypatch, tmp_path, problem
):
    """The key is checked again in the transaction: between the two checks it may be revoked."""
    market = make_market()
    old, new = rotated(market.provider), market.provider.key
    note = tmp_path / "note"
    monkeypatch.setenv(failpoints.NOTE, str(note))
    monkeypatch.setattr(failpoints, "_failures", failpoints.parse("api.verified=hold"))
    monkeypatch.setattr(failpoints, "_reached", Counter())
    size = len(entries(app))
    source = {"name": "x", "schema_id": market.schema_id, "size_class": 1}
    source |= {"rows_root": "0" * 64, "leaves": 2}
    market.provider.key = old
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(market.provider.post, "/v1/sources", source)
        while not note.exists():  # its signature is checked, and there it waits
            assert not call.done()
            time.sleep(0.01)
        market.provider.key = new
        revoked = market.provider.delete(f"/v1/keys/{old.key_id}")
        note.with_name("note.go").touch()
        answer = call.result()
    assert revoked.status_code == 200
    assert "revoked" in problem(answer, 401, "unauthenticated")
    # The market's request goes on meanwhile; of the provider there is nothing but the revocation.
    made = [entry.type for entry in entries(app)[size:] if entry.actor == market.provider.org_id]
    assert made == ["key.revoked"]


def test_nobody_takes_the_key_of_others(party, problem):
    provider, other = party(), party()
    stranger = SigningKey.generate()
    problem(announce(provider, stranger, by=provider.key), 422, "verification-failed")
    public = stranger.verify_key.base64
    stolen = stranger.sign(possession_bytes(other.org_id, public))  # meant for the other
    message = {"public_key": public, "possession": b64encode(stolen)}
    problem(provider.post("/v1/keys", message), 422, "verification-failed")
    public = other.key.verify_key.base64
    proof = other.key.sign(possession_bytes(provider.org_id, public))
    message = {"public_key": public, "possession": b64encode(proof)}
    problem(provider.post("/v1/keys", message), 409, "conflict")


def test_the_last_key_stays_and_a_revoked_one_never_returns(party, problem):
    provider = party()
    detail = problem(provider.delete(f"/v1/keys/{provider.key.key_id}"), 409, "refused")
    assert "last key" in detail
    old = rotated(provider)
    assert provider.delete(f"/v1/keys/{old.key_id}").status_code == 200
    problem(announce(provider, old), 409, "refused")
    listed = provider.get("/v1/keys").json()["keys"]
    assert [key["id"] for key in listed] == [old.key_id, provider.key.key_id]
    registration = {"name": "a provider", "role": "provider", "age_recipient": None}
    provider.key = old
    answer = provider.post("/v1/orgs", registration | {"public_key": old.verify_key.base64})
    problem(answer, 409, "conflict")


def test_sixteen_keys_at_once(party, problem):
    provider = party()
    for _ in range(15):
        assert announce(provider, SigningKey.generate()).status_code == 200
    assert "at most 16" in problem(announce(provider, SigningKey.generate()), 409, "refused")


# ---------------------------------------------------------------- API keys


def test_an_api_key_ends(party, clock, problem):
    provider = party()
    key_id, token = provider.api_key(["sources:read"], lifetime_s=60)
    assert provider.get_by_key("/v1/sources", token).json()["sources"] == []
    clock.advance(60)
    expired = problem(provider.get_by_key("/v1/sources", token), 401, "unauthenticated")
    key_id, token = provider.api_key(["sources:read"])
    assert provider.get_by_key("/v1/sources", token).status_code == 200
    assert provider.delete(f"/v1/apikeys/{key_id}").json()["revoked"] is not None
    revoked = problem(provider.get_by_key("/v1/sources", token), 401, "unauthenticated")
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    wrong = problem(provider.get_by_key("/v1/sources", other), 401, "unauthenticated")
    unknown = "chk_" + "0" * 12 + token[16:]
    assert {expired, revoked, wrong} == {
        problem(provider.get_by_key("/v1/sources", unknown), 401, "unauthenticated")
    }


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer chk_", "Basic {}", "{}", "Bearer  {}", "Bearer {} x"]
)
def test_no_token_but_a_whole_one(party, value, client, problem):
    provider = party()
    token = provider.tokens(["sources:read"])
    headers = {"Authorization": value.format(token)}
    problem(client.get("/v1/sources", headers=headers), 401, "unauthenticated")


def test_the_server_keeps_no_token(party, app, clock, tmp_path):
    provider = party()
    key_id, token = provider.api_key(["sources:read", "log:read"])
    assert provider.get_by_key("/v1/sources", token).status_code == 200
    (listed,) = provider.get("/v1/apikeys").json()["keys"]
    assert listed == {
        "id": key_id,
        "name": "a dashboard",
        "prefix": token[4:16],
        "scopes": ["sources:read", "log:read"],
        "created": int(clock.now()),
        "expires": int(clock.now()) + 3600,
        "revoked": None,
        "last_used": int(clock.now()),
    }
    kept = b"".join(path.read_bytes() for path in (tmp_path / "server").glob("*.db*"))
    assert token[4:16].encode() in kept
    assert token[17:].encode() not in kept


def test_last_use_is_noted_once_a_minute(party, clock):
    provider = party()
    _, token = provider.api_key(["log:read"])
    seen = []
    for _ in range(4):
        assert provider.get_by_key("/v1/log/entries", token).status_code == 200
        seen.append(provider.get("/v1/apikeys").json()["keys"][0]["last_used"])
        clock.advance(30)
    start = seen[0]
    assert seen == [start, start, start + 60, start + 60]
