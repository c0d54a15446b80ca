"""Cosignatures of the log: whose are kept, what holds, who sees them; the log as tiles."""

import pytest
from databases import fresh_sqlite

from api.app import create_app
from clearinghouse.clock import FixedClock
from clearinghouse.errors import InputError
from clearinghouse.log.checkpoint import cosign_checkpoint, parse_note, parse_vkey, witness_key
from clearinghouse.log.merkle import leaf_hash, node_hash
from clearinghouse.log.tiles import TILE, TilePath, bundle, parse_tile_path, tile_path
from clearinghouse.log.witness import Witness
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey

NAME = "outside.example/witness"


def head(party):
    return party.client.get("/v1/log/checkpoint").json()


def hand_in(party, vkey, note):
    message = {"vkey": vkey, "checkpoint": note}
    return party.client.post("/v1/log/cosignatures", json=message)


def cosigned(note, key, name=NAME):
    return cosign_checkpoint(note, name, key, 1_900_000_000)


OUTSIDE = SigningKey.generate()
VKEY = witness_key(NAME, OUTSIDE).vkey


@pytest.fixture
def app(tmp_path, clock):
    """A server whose operator names one witness from outside."""
    settings = Settings(tmp_path / "server", in_process=True, witnesses=f" {VKEY},")
    fresh_sqlite(tmp_path / "server" / "clearinghouse.db")
    return create_app(settings, clock)


def test_a_named_witness_is_heard_and_shown(party):
    ann = party()
    note = head(ann)["checkpoint"]
    first = hand_in(ann, VKEY, cosigned(note, OUTSIDE))
    assert first.status_code == 204, first.text
    assert hand_in(ann, VKEY, cosigned(note, OUTSIDE)).status_code == 204  # again: no difference
    shown = ann.client.get("/v1/log/cosigned").json()
    assert shown["witnesses"] == [VKEY]
    (text,) = shown["checkpoints"]
    signed = parse_note(text.encode())
    assert signed.checkpoint == parse_note(note.encode()).checkpoint
    assert [line.name for line in signed.signatures] == [signed.checkpoint.origin, NAME]


def test_what_does_not_hold_is_not_kept(party, problem):
    ann = party()
    note = head(ann)["checkpoint"]
    other = SigningKey.generate()
    stranger = hand_in(ann, witness_key(NAME, other).vkey, cosigned(note, other))
    problem(stranger, 409, "refused")
    lies = [
        cosigned(note, other),  # signed by another key than it says
        note,  # not cosigned at all
        cosigned(note, OUTSIDE).replace("\n2\n", "\n1\n", 1),  # of another size
        cosigned(note, OUTSIDE, "another.name"),
    ]
    for lie in lies:
        answer = hand_in(ann, VKEY, lie)
        assert 400 <= answer.status_code < 500, lie
    assert ann.client.get("/v1/log/cosigned").json() == {"checkpoints": [], "witnesses": []}


def test_a_participants_witness_is_registered_with_it_and_belongs_to_it_alone(party, problem, app):
    ann = party()
    key = SigningKey.generate()
    vkey = witness_key("ann/witness", key).vkey
    told = {
        "name": "ann again",
        "role": "provider",
        "public_key": "",
        "age_recipient": None,
        "witness": vkey,
    }
    for number, expected in enumerate((200, 422)):
        ann.key = SigningKey.generate()
        answer = ann.post("/v1/orgs", {**told, "public_key": ann.key.verify_key.base64})
        assert answer.status_code == expected, (number, answer.text)
    assert hand_in(ann, vkey, cosigned(head(ann)["checkpoint"], key, "ann/witness")).is_success
    log_vkey = head(ann)["vkey"]
    ann.key = SigningKey.generate()
    as_log = ann.post(
        "/v1/orgs",
        {**told, "public_key": ann.key.verify_key.base64, "witness": log_vkey},
    )
    problem(as_log, 422, "bad-input")
    with app.state.desk.store.read() as tx:
        entries = tx.log.entries(0, 100)
    assert any(b"witness_key" in entry for entry in entries)


def test_gossip_compares_what_others_cosigned(tmp_path):
    """Two audiences, two histories: the first witness that reads the other's note has both."""
    from clearinghouse.log.checkpoint import Checkpoint, log_key, sign_checkpoint

    log = SigningKey.generate()
    vkey = log_key("log.example", log).vkey
    notes = [sign_checkpoint(Checkpoint("log.example", 4, bytes([i]) * 32), log) for i in (1, 2)]
    witness = Witness(tmp_path / "w", NAME, FixedClock())
    assert witness.observe(notes[0].encode(), vkey, lambda _old, _new: ())
    with pytest.raises(Exception, match="fork"):
        witness.compare(notes[1].encode(), lambda _old, _new: ())
    assert len(witness.forks) == 1


# ---------------------------------------------------------------- tiles


def test_tile_paths_have_one_form():
    for index in (0, 7, 255, 999, 1000, 1234067, 10**9):
        for width in (1, 255, TILE):
            assert parse_tile_path(tile_path(index, width)) == TilePath(index, width)
    assert tile_path(1234067, 8) == "x001/x234/067.p/8"  # the example of c2sp.org/tlog-tiles
    for wrong in (
        "",
        "0",
        "0000",
        "x000/001",
        "001/x234",
        "000.p/0",
        "000.p/256",
        "000.p/08",
        "-1",
    ):
        with pytest.raises(InputError):
            parse_tile_path(wrong)


def test_the_tiles_give_the_log_and_its_root(party):
    ann = party()
    parties = [ann, *(party() for _ in range(4))]
    note = ann.client.get("/v1/log/tiles/checkpoint")
    checkpoint = parse_note(note.content).checkpoint
    size = checkpoint.size
    assert size == len(parties) + 1  # the server registers itself first
    raw = ann.client.get(f"/v1/log/tiles/tile/0/{tile_path(0, size)}").content
    leaves = [raw[i : i + 32] for i in range(0, len(raw), 32)]
    entries = ann.get(f"/v1/log/tiles/tile/entries/{tile_path(0, size)}").content
    bodies = []
    while entries:
        length = int.from_bytes(entries[:2], "big")
        bodies.append(entries[2 : 2 + length])
        entries = entries[2 + length :]
    assert [leaf_hash(body) for body in bodies] == leaves
    assert _root(leaves) == checkpoint.root
    for path in (tile_path(0, size + 1), "000", "001"):
        assert ann.client.get(f"/v1/log/tiles/tile/0/{path}").status_code == 404
    assert ann.client.get("/v1/log/tiles/tile/1/000.p/1").status_code == 404
    assert ann.client.get("/v1/log/tiles/tile/0/1").status_code == 422


def _root(hashes):
    """RFC 6962, section 2.1, straight from its text."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(_root(hashes[:split]), _root(hashes[split:]))


def test_an_entry_that_no_tile_can_hold_is_said_so():
    assert bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"
    with pytest.raises(InputError, match="longer than that form"):
        bundle([bytes(2**16)])
    assert parse_vkey(VKEY).name == NAME
