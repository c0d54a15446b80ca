"""Checkpoints: the published formats, and every one-byte change of a signed one refused."""

import base64
import struct

import pytest

from clearinghouse.errors import VerificationError
from clearinghouse.log.checkpoint import (
    Checkpoint,
    NoteSignature,
    SignedCheckpoint,
    cosign_checkpoint,
    log_key,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
    verify_log_signature,
    witness_key,
)
from clearinghouse.log.proof import parse_proof
from clearinghouse.signing import SigningKey, b64encode

ORIGIN = "clearinghouse.example/log"
KEY = SigningKey.from_raw(bytes(range(32)))
WITNESS = SigningKey.from_raw(bytes(range(1, 33)))
HEAD = Checkpoint(ORIGIN, 20852163, bytes(range(100, 132)))
NOTE = sign_checkpoint(HEAD, KEY)
COSIGNED = cosign_checkpoint(NOTE, "witness.example/w1", WITNESS, 1679315147)


def test_log_checkpoint_published_verifier_keys_parse() -> None:
    # The verifier key of the Go checksum database, and of the Go note package's documentation.
    for text in (
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        assert parse_vkey(text).vkey == text


def test_log_checkpoint_published_note_signature_verifies() -> None:
    key = parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    line = (
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
        "Zb6KE6RyyBwJnAM="
    )
    content = base64.b64decode(line)
    assert content[:4] == key.key_hash
    key.key.verify(content[4:], text.encode())


def test_log_checkpoint_published_example_parses() -> None:
    # The example of c2sp.org/tlog-cosignature.
    note = (
        "example.com/behind-the-sofa\n20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7"
        "u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dl"
        "rDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    signed = parse_note(note.encode())
    assert signed.checkpoint.size == 20852163
    assert signed.text == note
    assert struct.unpack(">Q", signed.signatures[1].signature[:8])[0] == 1679315147


def test_log_checkpoint_is_signed_exactly_as_the_formats_say() -> None:
    body = f"{ORIGIN}\n20852163\n{b64encode(HEAD.root)}\n"
    assert NOTE.startswith(body + "\n\u2014 ")
    signed = parse_note(COSIGNED.encode())
    KEY.verify_key.verify(signed.signatures[0].signature, body.encode())
    stamp, signature = signed.signatures[1].signature[:8], signed.signatures[1].signature[8:]
    assert stamp == struct.pack(">Q", 1679315147)
    WITNESS.verify_key.verify(signature, b"cosignature/v1\ntime 1679315147\n" + body.encode())


def test_log_checkpoint_verifies_with_its_keys_only() -> None:
    key, witness = log_key(ORIGIN, KEY), witness_key("witness.example/w1", WITNESS)
    assert verify_checkpoint(COSIGNED.encode(), key, [witness]) == HEAD
    assert verify_cosignature(parse_note(COSIGNED.encode()), witness) == 1679315147
    signed = parse_note(COSIGNED.encode())
    wrong_keys = [
        log_key(ORIGIN, WITNESS),
        log_key("other.example/log", KEY),
        witness_key(ORIGIN, KEY),
        witness_key("witness.example/w1", WITNESS),
    ]
    for wrong in wrong_keys:
        with pytest.raises(VerificationError):
            verify_log_signature(signed, wrong)
    wrong_witnesses = [
        log_key("witness.example/w1", WITNESS),
        witness_key("witness.example/w2", WITNESS),
        witness_key("witness.example/w1", KEY),
    ]
    for wrong in wrong_witnesses:
        with pytest.raises(VerificationError):
            verify_cosignature(signed, wrong)
    with pytest.raises(VerificationError, match="no signature"):
        verify_cosignature(parse_note(NOTE.encode()), witness)


def test_log_checkpoint_roles_of_keys_cannot_be_exchanged() -> None:
    """Signatures that hold, by keys named or typed for another purpose."""
    as_witness = witness_key(ORIGIN, KEY)
    other_name = log_key("other.example/log", KEY)
    text = HEAD.text.encode()
    cosigned = b"cosignature/v1\ntime 5\n" + text
    as_log = log_key(ORIGIN, KEY)
    lines = [
        NoteSignature(as_witness.name, as_witness.key_hash, KEY.sign(text)),
        NoteSignature(other_name.name, other_name.key_hash, KEY.sign(text)),
        NoteSignature(as_log.name, as_log.key_hash, struct.pack(">Q", 5) + KEY.sign(cosigned)),
    ]
    signed = SignedCheckpoint(HEAD, tuple(lines))
    for key in (as_witness, other_name):
        with pytest.raises(VerificationError, match="the key of"):
            verify_log_signature(signed, key)
    with pytest.raises(VerificationError, match="no witness key"):
        verify_cosignature(signed, as_log)


@pytest.mark.parametrize("length", [0, 3, 8, 71, 73])
def test_log_checkpoint_cosignatures_of_other_lengths_are_refused(length: int) -> None:
    witness = witness_key("witness.example/w1", WITNESS)
    good = parse_note(COSIGNED.encode()).signatures[1].signature
    line = NoteSignature(witness.name, witness.key_hash, (good + b"\x00")[:length])
    with pytest.raises(VerificationError):
        verify_cosignature(SignedCheckpoint(HEAD, (line,)), witness)


def mutations(data: bytes, place: int) -> list[bytes]:
    before, byte, after = data[:place], data[place], data[place + 1 :]
    changed = [
        before + bytes([byte ^ 1]) + after,
        before + bytes([byte ^ 0x20]) + after,
        before + bytes([byte ^ 0x80]) + after,
        before + b" " + after,
        before + after,
        before + bytes([byte]) + data[place:],
        before + b"\n" + data[place:],
    ]
    return [item for item in changed if item != data]


def test_log_checkpoint_any_changed_byte_is_refused() -> None:
    data = COSIGNED.encode()
    key, witness = log_key(ORIGIN, KEY), witness_key("witness.example/w1", WITNESS)
    for place in range(len(data)):
        for changed in mutations(data, place):
            with pytest.raises(VerificationError):
                verify_checkpoint(changed, key, [witness])
    with pytest.raises(VerificationError):
        verify_checkpoint(data + b"\n", key, [witness])


def test_log_checkpoint_any_changed_byte_of_a_vkey_is_refused_or_another_key() -> None:
    text = log_key(ORIGIN, KEY).vkey.encode()
    for place in range(len(text)):
        for changed in mutations(text, place):
            with pytest.raises(VerificationError):
                parse_vkey(changed.decode("utf-8", errors="replace"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n\n\n\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n",
        f"{ORIGIN}\n01\n{b64encode(bytes(32))}\n\n{{line}}",
        f"{ORIGIN}\n-1\n{b64encode(bytes(32))}\n\n{{line}}",
        f"{ORIGIN}\n\u0661\n{b64encode(bytes(32))}\n\n{{line}}",
        f"{ORIGIN}\n1\n{b64encode(bytes(31))}\n\n{{line}}",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\nextension\n\n{{line}}",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n{{line}}{{line}}",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n{{line}}\n",
        f"two words\n1\n{b64encode(bytes(32))}\n\n{{line}}",
        f"{ORIGIN}\r\n1\n{b64encode(bytes(32))}\n\n{{line}}",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n- name AAAAAAAA\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n\u2014 name AAAA\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n\u2014 na+me AAAAAAAA\n",
        f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n\u2014 name AAAAAAB=\n",
    ],
)
def test_log_checkpoint_malformed_notes_are_refused(text: str) -> None:
    line = "\u2014 name AAAAAAAA\n"
    with pytest.raises(VerificationError):
        parse_note(text.replace("{line}", line).encode())
    parse_note(f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n{line}".encode())


def test_log_checkpoint_size_limits() -> None:
    with pytest.raises(VerificationError, match="bytes"):
        parse_note(b"x" * 20_000)
    lines = "".join(f"\u2014 name{n} AAAAAAAA\n" for n in range(33))
    with pytest.raises(VerificationError, match="at most 32"):
        parse_note(f"{ORIGIN}\n1\n{b64encode(bytes(32))}\n\n{lines}".encode())
    with pytest.raises(VerificationError, match="UTF-8 text"):
        parse_note(b"\xff\n1\n")


@pytest.mark.parametrize(
    "text",
    [
        "c2sp.org/tlog-proof@v2\nindex 0\n\n",
        "c2sp.org/tlog-proof@v1\n\n",
        "c2sp.org/tlog-proof@v1\nindex 00\n\n",
        "c2sp.org/tlog-proof@v1\nindex +1\n\n",
        "c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n\xff\n\n",
        "c2sp.org/tlog-proof@v1\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + (b64encode(bytes(32)) + "\n") * 65 + "\n",
    ],
)
def test_log_checkpoint_malformed_proofs_are_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        parse_proof(text.encode("latin-1") + NOTE.encode())
    assert parse_proof(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + NOTE.encode()).index == 0


def test_log_checkpoint_proof_text_round_trips() -> None:
    text = f"c2sp.org/tlog-proof@v1\nindex 7\n{b64encode(bytes(32))}\n\n{COSIGNED}"
    proof = parse_proof(text.encode())
    assert (proof.index, proof.path, proof.text) == (7, (bytes(32),), text)
