"""Our notes, proofs and trees judged by Go's checksum-database code, and its by ours.

Go's `golang.org/x/mod/sumdb` shares no line and no author with this project; a misreading of
RFC 6962 or of the C2SP formats that our prover and our verifier had in common would show here.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from clearinghouse.client.loopback import app_client
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    Checkpoint,
    cosign_checkpoint,
    log_key,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    verify_log_signature,
    witness_key,
)
from clearinghouse.log.tiles import TILE, tile_path
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey

REQUIRES = ("go",)

SOURCE = Path(__file__).resolve().parents[2] / "support" / "go" / "check.go"
ORIGIN = "clearinghouse.example/log"
KEY = SigningKey.from_raw(bytes(range(32)))
WITNESS = SigningKey.from_raw(bytes(range(1, 33)))
SIZES = (1, 2, 3, 4, 7, 8, 9, 31, 64, 65)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds the program once, offline, and asks it many questions in one run."""
    folder = tmp_path_factory.mktemp("go")
    program = folder / "check"
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "HOME": str(folder),
        "CGO_ENABLED": "0",
    }
    built = subprocess.run(
        ["go", "build", "-o", str(program), str(SOURCE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr

    def ask(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        plain = json.dumps(questions, default=lambda data: base64.b64encode(data).decode())
        done = subprocess.run(
            [str(program)], input=plain, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def tree_of(size: int) -> merkle.MemoryNodes:
    nodes = merkle.MemoryNodes()
    for index in range(size):
        merkle.append(nodes, b"entry %d" % index)
    return nodes


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def decoded(items: list[str] | None) -> list[bytes]:
    return [base64.b64decode(item) for item in items or []]


def record_questions(size: int) -> list[dict[str, Any]]:
    nodes = tree_of(size)
    return [
        {
            "Kind": "record",
            "Leaf": merkle.leaf_hash(b"entry %d" % index),
            "Index": index,
            "Size": size,
            "Root": merkle.root(nodes),
            "Proof": merkle.inclusion_proof(nodes, index, size),
        }
        for index in range(size)
    ]


def tree_questions(size: int) -> list[dict[str, Any]]:
    nodes = tree_of(size)
    return [
        {
            "Kind": "tree",
            "Size": size,
            "Root": merkle.root(nodes),
            "OldSize": old,
            "OldRoot": merkle.root(nodes, old),
            "Proof": merkle.consistency_proof(nodes, old, size),
        }
        for old in range(1, size + 1)
    ]


def changed(question: dict[str, Any]) -> list[dict[str, Any]]:
    """The question with one thing wrong, in every field."""
    wrong = [question | {"Root": flip(question["Root"], 5)}]
    wrong += [
        question | {name: flip(question[name], 31)}
        for name in ("Leaf", "OldRoot")
        if name in question
    ]
    for place, item in enumerate(question["Proof"]):
        proof = list(question["Proof"])
        proof[place] = flip(item, 0)
        wrong.append(question | {"Proof": proof})
    wrong.append(question | {"Proof": [*question["Proof"], bytes(32)]})
    if question["Proof"]:
        wrong.append(question | {"Proof": question["Proof"][:-1]})
    return wrong


def test_log_interop_go_accepts_every_inclusion_proof_of_ours(go: Any) -> None:
    questions = [item for size in SIZES for item in record_questions(size)]
    answers = go(questions)
    assert len(answers) == sum(SIZES)
    assert [item["Error"] for item in answers] == [""] * len(questions)


def test_log_interop_go_accepts_every_consistency_proof_of_ours(go: Any) -> None:
    questions = [item for size in SIZES for item in tree_questions(size)]
    answers = go(questions)
    assert [item["Error"] for item in answers] == [""] * len(questions)


def test_log_interop_go_refuses_what_we_change(go: Any) -> None:
    """So that the two tests above could have failed."""
    questions = [item for size in SIZES for item in record_questions(size) + tree_questions(size)]
    wrong = [bad for item in questions for bad in changed(item)]
    answers = go(wrong)
    assert [bad for bad, item in zip(wrong, answers, strict=True) if not item["Error"]] == []


def test_log_interop_we_make_the_same_roots_and_proofs_as_go(go: Any) -> None:
    for size in SIZES:
        nodes = tree_of(size)
        (told,) = go([{"Kind": "prove", "Entries": [b"entry %d" % i for i in range(size)]}])
        assert told["Error"] == ""
        assert decoded(told["Roots"]) == [merkle.root(nodes, n) for n in range(1, size + 1)]
        for index, theirs in enumerate(told["Records"]):
            assert decoded(theirs) == merkle.inclusion_proof(nodes, index, size)
        for index, theirs in enumerate(told["Trees"]):
            assert decoded(theirs) == merkle.consistency_proof(nodes, index + 1, size)


def test_log_interop_we_verify_proofs_that_go_made(go: Any) -> None:
    (told,) = go([{"Kind": "prove", "Entries": [b"entry %d" % i for i in range(65)]}])
    roots = decoded(told["Roots"])
    for index, theirs in enumerate(told["Records"]):
        leaf = merkle.leaf_hash(b"entry %d" % index)
        merkle.verify_inclusion(leaf, index, 65, decoded(theirs), roots[-1])
    for index, theirs in enumerate(told["Trees"]):
        merkle.verify_consistency(index + 1, 65, roots[index], roots[-1], decoded(theirs))


def test_log_interop_go_opens_our_checkpoint_and_our_cosignatures(go: Any) -> None:
    head = Checkpoint(ORIGIN, 20852163, bytes(range(100, 132)))
    note = sign_checkpoint(head, KEY)
    cosigned = cosign_checkpoint(note, "witness.example/w1", WITNESS, 1679315147)
    vkey, witness = log_key(ORIGIN, KEY).vkey, witness_key("witness.example/w1", WITNESS).vkey
    question = {"Kind": "note", "Note": cosigned.encode(), "Vkey": vkey, "Witness": [witness]}
    alone = question | {"Note": note.encode()}
    without = question | {"Witness": []}
    assert [item["Verified"] for item in go([question, alone, without])] == [2, 1, 1]


def test_log_interop_go_refuses_every_changed_byte_of_a_checkpoint(go: Any) -> None:
    head = Checkpoint(ORIGIN, 20852163, bytes(range(100, 132)))
    note = sign_checkpoint(head, KEY).encode()
    vkey = log_key(ORIGIN, KEY).vkey
    wrong = [flip(note, place) for place in range(len(note))]
    answers = go([{"Kind": "note", "Note": data, "Vkey": vkey} for data in wrong])
    opened = [place for place, item in enumerate(answers) if not item["Error"]]
    # Go ignores nothing of a signed note but what follows a signature's base64 in its last bits.
    assert opened == []


def test_log_interop_we_read_a_note_that_go_signed(go: Any) -> None:
    raw = bytes([1]) + bytes(range(32))
    name = log_key(ORIGIN, KEY)
    skey = f"PRIVATE+KEY+{ORIGIN}+{name.key_hash.hex()}+{base64.b64encode(raw).decode()}"
    head = Checkpoint(ORIGIN, 77, bytes(range(32)))
    (told,) = go([{"Kind": "sign", "Skey": skey, "Text": head.text}])
    assert told["Error"] == ""
    signed = parse_note(base64.b64decode(told["Note"]))
    assert signed.checkpoint == head
    verify_log_signature(signed, parse_vkey(name.vkey))
    assert signed.text == sign_checkpoint(head, KEY)  # Ed25519 is deterministic


def served(folder: Path, size: int) -> tuple[list[bytes], bytes, dict[str, bytes]]:
    """Entries of a log behind a real server, its root, and its tiles as anybody downloads them."""
    app = create_app(Settings(folder / "server", in_process=True))
    store = app.state.desk.store
    with app_client(app) as client:
        with store.write() as tx:
            for number in range(tx.log.size(), size):
                tx.log.append(b'{"entry":%d}' % number)
        with store.read() as tx:
            found = [*tx.log.entries(0, 1000), *tx.log.entries(1000, 1000)]
            root = tx.log.root(size)
        paths, level = [], 0
        while size >> (8 * level):
            whole, rest = divmod(size >> (8 * level), TILE)
            paths += [f"tile/{level}/{tile_path(number)}" for number in range(whole)]
            paths += [f"tile/{level}/{tile_path(whole, rest)}"] if rest else []
            level += 1
        tiles = {
            path: client.get(f"http://testserver/v1/log/tiles/{path}").content for path in paths
        }
    store.close()
    return found, root, tiles


def test_log_interop_go_proves_every_entry_from_our_tiles_alone(go: Any, tmp_path: Path) -> None:
    """Go's TileReader authenticates each tile against the root before it uses a hash of it."""
    size = 600
    entries, root, tiles = served(tmp_path, size)
    assert sorted(tiles) == ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
    question = {"Kind": "tiles", "Size": size, "Root": root, "Tiles": tiles}
    wrong = [
        question | {"Tiles": tiles | {path: flip(data, len(data) // 2)}}
        for path, data in tiles.items()
    ]
    told, *refused = go([question, *wrong, question | {"Root": flip(root, 0)}])
    assert (told["Error"], told["Verified"]) == ("", size)
    assert decoded(told["Roots"]) == [merkle.leaf_hash(entry) for entry in entries]
    assert all(item["Error"] for item in refused)
