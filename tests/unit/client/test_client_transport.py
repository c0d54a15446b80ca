import hashlib

import httpx
import pytest
from starlette.responses import Response

from clearinghouse import errors
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import FixedClock, SystemClock
from clearinghouse.messages.results import CheckpointView
from clearinghouse.messages.tasks import RefuseTask
from clearinghouse.signing import SigningKey


class Lossy(httpx.BaseTransport):
    """Loses calls: "before" they arrive, or "after" the server has acted on them."""

    def __init__(self, inner: httpx.BaseTransport, losses: list[str]) -> None:
        self.inner, self.losses, self.sent = inner, losses, []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        loss = self.losses.pop(0) if self.losses else ""
        if loss == "before":
            raise httpx.ConnectError("refused", request=request)
        response = self.inner.handle_request(request)
        if loss == "after":
            raise httpx.ReadError("lost", request=request)
        return response


def test_a_lost_answer_is_asked_again_under_one_key_with_fresh_nonces(bench, client, connect):
    lossy = Lossy(client._transport, ["before", "after", "after"])
    _, transport = connect("a", httpx.Client(transport=lossy))
    transport.send("/agent/tasks/tsk_1", RefuseTask(reason="no"), idempotency_key="k1")
    assert [path for path, _ in bench.posts] == ["agent/tasks/tsk_1"]
    assert len(lossy.sent) == 4
    assert {request.headers["idempotency-key"] for request in lossy.sent} == {"k1"}
    assert len({request.headers["signature-input"] for request in lossy.sent}) == 4
    assert len(bench.nonces) == 3  # one call never arrived
    assert transport.pauses == sorted(transport.pauses)
    assert len(transport.pauses) == 3


def test_busy_servers_are_waited_for_and_then_given_up(bench, connect):
    _, transport = connect("a")
    bench.trouble = [Response(status_code=503), Response(status_code=429)]
    assert transport.get("/echo", CheckpointView).vkey == transport.key.key_id
    bench.trouble = [Response(status_code=503) for _ in range(50)]
    with pytest.raises(errors.TryAgainError):
        transport.get("/echo", CheckpointView)
    assert len(bench.trouble) == 50 - transport.attempts


def test_a_server_that_is_not_there_is_try_again():
    transport = Transport(
        "http://127.0.0.1:9",
        SigningKey.generate(),
        SystemClock(),
        make_client("http://127.0.0.1:9"),
        attempts=2,
        pause=lambda _: None,
    )
    with pytest.raises(errors.TryAgainError):
        transport.get("/echo", CheckpointView)


def test_the_query_is_part_of_what_is_signed(bench, connect):
    _, transport = connect("a")
    found = transport.get("/echo", CheckpointView, query="start=3&limit=5")
    assert found.checkpoint == "http://bench/v1/echo?start=3&limit=5"


def test_same_key_same_body_counts_once_and_another_body_is_a_conflict(bench, connect):
    _, transport = connect("a")
    for _ in range(2):
        transport.send("/x", RefuseTask(reason="one"), idempotency_key="k")
    assert len(bench.posts) == 1
    with pytest.raises(errors.ConflictError):
        transport.send("/x", RefuseTask(reason="two"), idempotency_key="k")
    transport.send("/x", RefuseTask(reason="two"))
    transport.send("/x", RefuseTask(reason="two"))
    assert len(bench.posts) == 3


@pytest.mark.parametrize(
    "kind",
    [
        errors.InputError,
        errors.RefusedError,
        errors.BudgetExceededError,
        errors.ConflictError,
        errors.AuthenticationError,
        errors.NotFoundError,
        errors.ProtocolError,
        errors.VerificationError,
    ],
)
def test_problems_become_our_errors(bench, connect, kind):
    _, transport = connect("a")
    bench.trouble = [bench.problem(kind.problem_type, kind.status, "said so")]
    with pytest.raises(kind, match="said so") as caught:
        transport.send("/x", RefuseTask(reason="r"))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer", [Response(b"<html>", 500), Response(b"[]", 418), Response(b"", 302)]
)
def test_other_answers_are_errors_too(bench, connect, answer):
    _, transport = connect("a")
    bench.trouble = [answer]
    with pytest.raises(errors.ClearinghouseError) as caught:
        transport.send("/x", RefuseTask(reason="r"))
    assert type(caught.value) is errors.ClearinghouseError


def test_an_answer_that_is_no_such_message_is_a_protocol_error(bench, connect):
    _, transport = connect("a")
    bench.trouble = [Response(b'{"checkpoint":"c","vkey":"v","more":1}')]
    with pytest.raises(errors.ProtocolError, match="more"):
        transport.get("/echo", CheckpointView)


def test_blobs_are_named_by_their_hash_both_ways(bench, connect):
    _, transport = connect("a")
    name = transport.put_blob(b"sealed" * 1000, "delivery")
    assert name == hashlib.sha256(b"sealed" * 1000).hexdigest()
    assert transport.get_blob(name) == b"sealed" * 1000
    bench.blobs[name] = b"other"
    with pytest.raises(errors.ProtocolError):
        transport.get_blob(name)
    with pytest.raises(errors.NotFoundError):
        transport.get_blob("0" * 64)


def test_an_old_signature_is_refused_by_the_server_not_repeated(bench, connect):
    keystore, transport = connect("a")
    stale = Transport("http://bench", keystore.signing_key, FixedClock(0.0), transport.client)
    with pytest.raises(errors.AuthenticationError):
        stale.send("/x", RefuseTask(reason="r"))
    assert bench.posts == []


def test_proxies_are_left_out_on_this_machine_only(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    for url, expected in (
        ("http://127.0.0.1:1", False),
        ("http://localhost:1", False),
        ("http://[::1]:1", False),
        ("http://example.org", True),
    ):
        with make_client(url) as client:
            assert client.trust_env is expected
