"""Keys by log index, API keys by hash, and what an organisation may use at once."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from databases import fresh_sqlite

from api.app import at_work, create_app
from api.limits import BURST_S, Buckets, Limits
from clearinghouse import failpoints
from clearinghouse.client.loopback import app_client
from clearinghouse.errors import AuthenticationError, RateError
from clearinghouse.log.entries import KeyHistory, parse_entry
from clearinghouse.messages.identity import possession_bytes
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey, b64encode

URL = "http://testserver"


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
    assert provider.get_by_key("/v1/sources", token).json() == {"sources": []}
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


# ---------------------------------------------------------------- limits


class Now:
    """Seconds that pass when told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def test_a_bucket_gives_what_flows_in():
    now = Now()
    buckets = Buckets(10, now)
    for _ in range(10 * BURST_S):
        buckets.take("a", "reads")
    with pytest.raises(RateError) as caught:
        buckets.take("a", "reads")
    assert caught.value.after_s == 1
    buckets.take("b", "reads")  # another's bucket is its own
    now.seconds += 0.25
    for _ in range(2):
        buckets.take("a", "reads")
    with pytest.raises(RateError):
        buckets.take("a", "reads")
    now.seconds += 3600
    for _ in range(10 * BURST_S):
        buckets.take("a", "reads")
    with pytest.raises(RateError):
        buckets.take("a", "reads")


def test_threads_share_a_bucket_exactly():
    buckets, taken = Buckets(20, Now()), []

    def run():
        for _ in range(50):
            try:
                buckets.take("a", "reads")
            except RateError:
                continue
            taken.append(1)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 20 * BURST_S


def test_uploads_in_flight_are_bounded_and_given_back(tmp_path):
    limits = Limits(Settings(tmp_path, inflight_bytes=100), Now())
    with (
        limits.uploading("a", 60),
        limits.uploading("a", 40),
        limits.uploading("b", 90),
        pytest.raises(RateError, match="100 bytes"),
        limits.uploading("a", 1),
    ):
        pass
    with limits.uploading("a", 100):
        pass
    with limits.uploading("a", 500):  # a single blob is bounded elsewhere
        pass


def limited(tmp_path, clock, **settings):
    settings = Settings(tmp_path / "server", in_process=True, blob_bytes=2**20, **settings)
    fresh_sqlite(tmp_path / "server" / "clearinghouse.db")
    return create_app(settings, clock)


@pytest.fixture
def app(request, tmp_path, clock):
    return limited(tmp_path, clock, **getattr(request, "param", {}))


@pytest.mark.parametrize("app", [{"reads_per_s": 2, "writes_per_s": 1}], indirect=True)
def test_who_calls_too_often_is_told_when_to_try_again(party, app, problem):
    now = Now()
    app.state.limits = Limits(app.state.desk.settings, now)
    provider, other = party(), party()
    for _ in range(2 * BURST_S):
        assert provider.get("/v1/sources").status_code == 200
    answer = provider.get("/v1/sources")
    assert "reads a second" in problem(answer, 429, "rate-limited")
    assert answer.headers["retry-after"] == "1"
    assert other.get("/v1/sources").status_code == 200
    for _ in range(BURST_S):
        assert provider.post("/v1/people", {"email": "a@b"}).status_code == 200
    assert "signed writes" in problem(provider.put(b"x"), 429, "rate-limited")
    now.seconds += 1
    assert provider.get("/v1/sources").status_code == 200
    assert provider.put(b"x").status_code == 201


@pytest.mark.parametrize("app", [{"reads_per_s": 1}], indirect=True)
def test_a_forged_call_uses_up_nobodys_calls(party, client, app, problem):
    app.state.limits = Limits(app.state.desk.settings, Now())
    provider = party()
    headers = provider.headers("GET", "/v1/sources")
    forged = headers | {"Signature": "clearinghouse=:" + b64encode(bytes(64)) + ":"}
    for _ in range(3 * BURST_S):
        problem(client.get("/v1/sources", headers=forged), 401, "unauthenticated")
    assert provider.get("/v1/sources").status_code == 200


@pytest.mark.parametrize("app", [{"key_reads_per_s": 1}], indirect=True)
def test_an_api_key_has_a_limit_of_its_own(party, app, problem):
    app.state.limits = Limits(app.state.desk.settings, Now())
    provider = party()
    first, second = provider.tokens(["sources:read"]), provider.api_key(["sources:read"])[1]
    for _ in range(BURST_S):
        assert provider.get_by_key("/v1/sources", first).status_code == 200
    problem(provider.get_by_key("/v1/sources", first), 429, "rate-limited")
    assert provider.get_by_key("/v1/sources", second).status_code == 200


@pytest.mark.parametrize("app", [{"stored_bytes": 1000}], indirect=True)
def test_stored_bytes_have_a_quota(party, app, problem):
    provider, other = party(), party()
    assert provider.put(b"a" * 600).status_code == 201
    assert provider.put(b"a" * 600).status_code == 200  # the same bytes count once
    answer = provider.put(b"b" * 401)
    assert "600 bytes stored" in problem(answer, 429, "quota-exceeded")
    assert int(answer.headers["retry-after"]) == 3600
    assert provider.put(b"b" * 400).status_code == 201
    assert provider.put(b"a" * 600).status_code == 200
    assert other.put(b"c" * 1000).status_code == 201


@pytest.mark.parametrize("app", [{"stored_bytes": 1000}], indirect=True)
def test_two_servers_on_one_database_keep_the_quota_exactly(party, app, clock, tmp_path):
    """Uploads race through both: exactly as many bytes are counted as fit."""
    provider = party()
    second = limited(tmp_path, clock, stored_bytes=1000)
    with at_work(second.state.runner), app_client(second) as client:
        client.base_url = URL
        codes = []

        def upload(number):
            data = bytes([number]) * 150
            digest_path = _blob_path(data)
            headers = provider.headers("PUT", digest_path, data)
            chosen = client if number % 2 else provider.client
            codes.append(chosen.put(digest_path, content=data, headers=headers).status_code)

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(codes) == [201] * 6 + [429] * 6
    with app.state.desk.store.read() as tx:
        assert tx.quotas.stored(provider.org_id) == 900


def _blob_path(data):
    import hashlib

    return f"/v1/blobs/{hashlib.sha256(data).hexdigest()}?kind=test"


@pytest.mark.parametrize("app", [{"open_requests": 2}], indirect=True)
def test_two_servers_on_one_database_keep_the_number_of_requests(make_market, app, clock, tmp_path):
    market = make_market()
    second = limited(tmp_path, clock, open_requests=2)
    with at_work(second.state.runner), app_client(second) as client:
        client.base_url = URL
        answers = []

        def open_one(number):
            body = json.dumps(market.terms(records=10 + number)).encode()
            headers = market.hospital.headers(
                "POST", "/v1/requests", body, idempotency_key=f"race{number}"
            )
            chosen = client if number % 2 else market.hospital.client
            answers.append(chosen.post("/v1/requests", content=body, headers=headers))

        threads = [threading.Thread(target=open_one, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    kinds = sorted(answer.json().get("type", "") for answer in answers)
    assert kinds == [""] + ["/problems/quota-exceeded"] * 5
