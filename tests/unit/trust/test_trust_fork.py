"""A real server that forks its own log, and parties that watch it with each poll."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from api.app import at_work, create_app
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.loopback import app_client
from clearinghouse.client.transport import Transport
from clearinghouse.clock import SystemClock
from clearinghouse.log.checkpoint import parse_note
from clearinghouse.log.cosigned import merge_cosignatures
from clearinghouse.log.witness import ForkError, log_prover, observe, party_witness, verify_evidence
from clearinghouse.messages.intake import OrgView, RegisterOrg
from clearinghouse.settings import Settings


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts servers on folders; returns what connects a party to one."""
    with ExitStack() as stack:

        def serve(folder: Path) -> Any:
            app = create_app(Settings(folder, in_process=True))
            stack.enter_context(at_work(app.state.runner))
            client = stack.enter_context(app_client(app))
            return lambda keystore: Transport(
                "http://testserver", keystore.signing_key, SystemClock(), client
            )

        yield serve


def register(transport: Transport, keystore: Keystore, name: str) -> None:
    message = RegisterOrg(
        name=name,
        role="provider",
        public_key=keystore.signing_key.verify_key.base64,
        age_recipient=None,
    )
    transport.post("/orgs", message, OrgView)


def test_trust_fork_of_a_real_server_is_seen_by_whoever_watched(tmp_path: Path, start: Any) -> None:
    """The operator copies its folder, keys included, and tells two parties different histories."""
    ann, bob, eve = (Keystore.open(tmp_path / name) for name in ("ann", "bob", "eve"))
    first = start(tmp_path / "server")
    register(first(ann), ann, "ann")
    register(first(bob), bob, "bob")
    notes = [(observe(first(party), party) or "").encode() for party in (ann, bob)]
    keys = [party_witness(party, SystemClock()).key for party in (ann, bob)]
    merged = merge_cosignatures(notes, keys)
    assert merged.checkpoint.size == 3
    assert len(merged.signatures) == 3

    for name in ("server", "server.checkpoint"):
        copy = shutil.copytree if (tmp_path / name).is_dir() else shutil.copy
        copy(tmp_path / name, tmp_path / name.replace("server", "second"))
    second = start(tmp_path / "second")
    register(first(eve), eve, "eve, for ann's eyes")
    register(second(eve), eve, "eve, for bob's eyes")

    # Each history alone extends what both saw, so each party is content with its own.
    for_ann = (observe(first(ann), ann) or "").encode()
    for_bob = (observe(second(bob), bob) or "").encode()
    heads = [parse_note(note).checkpoint for note in (for_ann, for_bob)]
    assert heads[0].size == heads[1].size == 4
    assert heads[0].root != heads[1].root

    # The first word between them is enough, and so is one look at the other server.
    watching = party_witness(ann, SystemClock())
    with pytest.raises(ForkError) as caught:
        watching.compare(for_bob, log_prover(first(ann)))
    with pytest.raises(ForkError):
        observe(first(bob), bob)
    assert verify_evidence(caught.value.evidence.data).seen.startswith("clearinghouse.local\n4\n")
    for party in (ann, bob):
        (kept,) = party_witness(party, SystemClock()).forks
        verify_evidence(kept.read_bytes())


def test_trust_fork_a_growing_server_is_cosigned_step_by_step(tmp_path: Path, start: Any) -> None:
    watcher, connect = Keystore.open(tmp_path / "watcher"), start(tmp_path / "server")
    sizes = []
    for number in range(6):
        party = Keystore.open(tmp_path / f"party{number}")
        register(connect(party), party, f"party {number}")
        note = observe(connect(watcher), watcher)
        sizes.append(parse_note((note or "").encode()).checkpoint.size)
    assert sizes == [2, 3, 4, 5, 6, 7]
    assert party_witness(watcher, SystemClock()).forks == ()
