"""What an organisation may use at once: calls a second, stored bytes, open requests."""

import json
import threading

import pytest
from databases import fresh_sqlite

from api.app import at_work, create_app
from api.limits import BURST_S, Buckets, Limits
from clearinghouse.client.loopback import app_client
from clearinghouse.errors import RateError
from clearinghouse.settings import Settings
from clearinghouse.signing import b64encode

URL = "http://testserver"


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


def at_once(act, count):
    """Call `act` with each number below `count`, in threads of their own."""
    threads = [threading.Thread(target=act, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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

        at_once(upload, 12)
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

        at_once(open_one, 6)
    kinds = sorted(answer.json().get("type", "") for answer in answers)
    assert kinds == [""] + ["/problems/quota-exceeded"] * 5


def test_of_two_first_requests_at_once_one_decides_the_currency(make_market, app, clock, tmp_path):
    market = make_market()
    second = limited(tmp_path, clock)
    with at_work(second.state.runner), app_client(second) as client:
        client.base_url = URL
        answers = []

        def open_one(number):
            body = json.dumps(market.terms(currency=("EUR", "USD")[number % 2])).encode()
            headers = market.hospital.headers(
                "POST", "/v1/requests", body, idempotency_key=f"currency{number}"
            )
            chosen = client if number // 2 % 2 else market.hospital.client
            answers.append(chosen.post("/v1/requests", content=body, headers=headers))

        at_once(open_one, 8)
    taken = {a.json()["terms"]["currency"] for a in answers if a.is_success}
    assert len(taken) == 1
    refused = [a.json()["detail"] for a in answers if not a.is_success]
    assert len(refused) == 4
    assert all(f"Write currency: {next(iter(taken))}" in words for words in refused)
