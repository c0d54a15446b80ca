"""Hostile or broken messages: refused in both directions, before anything is given away."""

import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES

from secure_eval import framing
from secure_eval.agent import AgentRun
from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.evaluator import ScoringRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Layout, Upload
from secure_eval.noise import Table
from secure_eval.packing import OPENING_BYTES, VECTOR_BYTES
from secure_eval.params import PARAMETERS
from secure_eval.target import TargetOpening

P = PARAMETERS.plain_modulus


@pytest.fixture(scope="module")
def played(play: Callable, linear_model: Callable) -> object:
    model = linear_model(2).with_edges([0, 16, 32])
    rng = np.random.default_rng(0)
    return play(model, rng.integers(0, 16, (30, 2)), rng.integers(0, 2, 30))


def spoiled(message: bytes, position: int, word: bytes = b"\xff" * 150) -> bytes:
    return message[:position] + word + message[position + len(word) :]


def variants(message: bytes) -> list[bytes]:
    """Truncated, overlong, other version, other kind, other count, and a residue out of range."""
    return [
        b"",
        message[:5],
        message[:-1],
        message[: len(message) // 2],
        message + b"\0",
        message + message,
        b"\2" + message[1:],
        message[:1] + b"\x7f" + message[2:],
        message[:2] + struct.pack("<I", 1 << 20) + message[6:],
        spoiled(message, len(message) // 2 // 11 * 11),
    ]


def test_agent_refuses_malformed_scores_shares_and_openings(played: object) -> None:
    agent = played.new_agent()
    for bad in variants(played.messages["score"]):
        with pytest.raises(ValueError, match="SCORE"):
            agent.digits(bad, played.tables, COMMITMENTS)
    assert agent.digits(
        played.messages["score"], played.tables, COMMITMENTS
    )  # a refused message leaves the round open
    for name, call in (
        ("SHARES", lambda m: played.agent_before("characters").characters(m, NONCES)),
        ("OPENINGS", lambda m: played.agent_before("replies").replies(m)),
    ):
        for bad in variants(played.messages[name.lower()]):
            with pytest.raises(ValueError, match=name):
                call(bad)


def test_server_refuses_malformed_digits_characters_and_replies(played: object) -> None:
    server = played.new_server()
    for bad in variants(played.messages["digits"]):
        with pytest.raises(ValueError, match=r"DIGITS|digit"):
            server.early_checks(bad)
    server = played.server_before("shares")
    assert server.shares(played.messages["digits"]) == played.messages["shares"]
    for bad in variants(played.messages["characters"]):
        with pytest.raises(ValueError, match=r"CHARACTERS|character"):
            server.final_checks(bad)
    for bad in variants(played.messages["replies"]):
        with pytest.raises(ValueError, match="REPLIES"):
            played.server.release(bad)


def test_any_changed_reply_fails_the_batch_check(played: object) -> None:
    good = played.messages["replies"]
    body = framing.decode(good, Kind.REPLIES, [len(good) - 10])[0]
    values = np.frombuffer(body, "<u4").copy()
    assert len(values) == 4 + 2
    for index in range(len(values)):
        for change in (1, P - 1, P // 2):
            tampered = values.copy()
            tampered[index] = (int(tampered[index]) + change) % P
            message = framing.encode(Kind.REPLIES, [tampered.tobytes()])
            with pytest.raises(ValueError, match="batch check failed"):
                played.server.release(message)
    swapped = values.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    with pytest.raises(ValueError, match="batch check failed"):
        played.server.release(framing.encode(Kind.REPLIES, [swapped.tobytes()]))
    assert np.array_equal(played.server.release(good).counts, played.opened.counts)


def test_each_round_is_answered_once(played: object) -> None:
    agent, messages = played.agent, played.messages
    assert agent.digits(messages["score"], played.tables, COMMITMENTS) == messages["digits"]
    assert agent.characters(messages["shares"], NONCES) == messages["characters"]
    assert agent.replies(messages["openings"]) == messages["replies"]
    other_score = played.new_server(run_id="other").score()
    with pytest.raises(ValueError, match="already answered for other bytes"):
        agent.digits(other_score, played.tables, COMMITMENTS)
    with pytest.raises(ValueError, match="already answered for other bytes"):
        agent.characters(messages["shares"], (b"n" * 16, b"e" * 16))
    richer = [Table(t.name, t.n_cells, 900_000) for t in played.tables]
    with pytest.raises(ValueError, match="already answered for other bytes"):
        agent.digits(messages["score"], richer, COMMITMENTS)


def test_rounds_come_in_order(played: object) -> None:
    agent = played.new_agent()
    with pytest.raises(ValueError, match="expected the round digits first"):
        agent.characters(played.messages["shares"], NONCES)
    with pytest.raises(ValueError, match="expected the round digits first"):
        agent.replies(played.messages["openings"])
    server = played.new_server()
    with pytest.raises(ValueError, match="before the final checks are accepted"):
        server.openings(played.messages["characters"])
    with pytest.raises(ValueError, match="expected after the characters message"):
        server.release(played.messages["replies"])


def test_agent_opens_exactly_what_was_agreed(played: object) -> None:
    agent = played.agent_before("replies")
    parts = framing.decode(played.messages["openings"], Kind.OPENINGS, [OPENING_BYTES] * 6)
    for wrong in (parts[:5], [*parts, parts[0]]):
        with pytest.raises(ValueError, match="OPENINGS: expected 6 parts"):
            agent.replies(framing.encode(Kind.OPENINGS, wrong))


def test_agent_refuses_a_low_noise_budget(played: object, key_holder: KeyHolder) -> None:
    rng = np.random.default_rng(0)
    random_vector = rng.integers(0, 2**42, (2, 2, PARAMETERS.degree))
    from secure_eval.packing import pack

    bad = framing.encode(Kind.SCORE, [pack(random_vector)])
    assert len(bad) == framing.frame_size([VECTOR_BYTES])
    with pytest.raises(ValueError, match="bits of noise budget"):
        played.new_agent().digits(bad, played.tables, COMMITMENTS)
    opening = struct.pack("<QQ", 5, 6) + pack(random_vector[0])
    # a random coefficient has 4 bits of budget left with probability 1/16
    accepted = 0
    for first in range(40):
        part = struct.pack("<QQ", first * 2**37, 6) + opening[16:]
        with suppress(ValueError):
            key_holder.opened(memoryview(part), "opening")
            accepted += 1
    assert accepted < 20
    # an exact multiple of q / p plus noise of q / 4p: one bit of budget
    noisy = struct.pack("<QQ", *_noisy_words()) + bytes(len(opening) - 16)
    with pytest.raises(ValueError, match="opening: expected at least 4 bits of noise budget"):
        key_holder.opened(memoryview(noisy), "opening")
    for words in ((PARAMETERS.primes[0], 0), (0, PARAMETERS.primes[1])):
        part = struct.pack("<QQ", *words) + opening[16:]
        with pytest.raises(ValueError, match="not below its prime"):
            key_holder.opened(memoryview(part), "opening")


def _noisy_words() -> list[int]:
    modulus = PARAMETERS.primes[0] * PARAMETERS.primes[1]
    value = 77 * modulus // P + modulus // (4 * P)
    return [value % prime for prime in PARAMETERS.primes[:2]]


def test_agent_refuses_shares_out_of_range(played: object) -> None:
    # a whole masked score instead of a share: most slots hold values of 32 and more
    agent = played.agent_before("characters")
    (part,) = framing.decode(played.messages["score"], Kind.SCORE, [VECTOR_BYTES])
    with pytest.raises(ValueError, match="values below 32 in every slot"):
        agent.characters(framing.encode(Kind.SHARES, [part, part]), NONCES)


def test_exact_tables_are_for_rehearsals(played: object) -> None:
    agent, score = played.new_agent(), played.messages["score"]
    tables = [Table("histogram", 4, None)]
    with pytest.raises(ValueError, match="exact counts are for rehearsals"):
        agent.digits(score, tables, COMMITMENTS)
    with pytest.raises(ValueError, match="cells"):
        agent.digits(score, [], COMMITMENTS)


def test_transparent_ciphertexts_are_refused(played: object, key_holder: KeyHolder) -> None:
    server = played.server_before("openings")
    server._received.pop("CHARACTERS")
    message = bytearray(played.messages["characters"])
    lengths = server._shapes.characters()
    start = framing.frame_size(lengths) - sum(lengths)
    message[start : start + lengths[0]] = bytes(lengths[0])
    with pytest.raises(ValueError, match="refused by the cryptographic library"):
        server.final_checks(bytes(message))


def test_server_refuses_malformed_inputs(played: object, key_holder: KeyHolder) -> None:
    sealed, model = played.sealed, played.model
    good = {
        "keys": key_holder.public_keys(),
        "layout": sealed.layout,
        "upload": sealed.blobs,
        "model": model,
        "column_map": [0, 1],
        "seed": bytes(32),
        "run_id": "run",
        "server_nonce": b"n" * 16,
    }
    CheckedScoringRun(**good)
    with pytest.raises(TypeError, match="use CheckedScoringRun"):
        ScoringRun(**good)
    for name, value, reason in (
        ("keys", good["keys"][:-1], "PUBLIC_KEYS"),
        ("keys", spoiled(good["keys"], 11_000), "not below its prime"),
        ("upload", (), "expected 1 blocks, got 0"),
        ("upload", (sealed.blobs[0][:-1],), "UPLOAD_BLOCK"),
        ("column_map", [0], "expected 2 indices"),
        ("column_map", [0, 0], "distinct indices"),
        ("column_map", [0, 2], "distinct indices"),
        ("column_map", [0, -1], "distinct indices"),
        ("seed", b"short", "expected 32 bytes"),
    ):
        with pytest.raises(ValueError, match=reason):
            CheckedScoringRun(**{**good, name: value})
    with pytest.raises(ValueError, match="no subgroup attribute"):
        CheckedScoringRun(**good, groups=["race"])
    with pytest.raises(ValueError, match="target: expected 1 to"):
        TargetOpening(good["keys"], sealed.layout, sealed.blobs, bytes(32), "run")


def test_upload_check_names_the_bad_part(played: object) -> None:
    upload = Upload(played.sealed.layout, played.sealed.blobs)
    upload.check()
    blob = played.sealed.blobs[0]
    header = framing.frame_size([0] * played.sealed.layout.parts)
    bad = Upload(played.sealed.layout, [spoiled(blob, header + 180_288 * 2 + 1100)])
    with pytest.raises(ValueError, match="upload block 0, part 2: a residue"):
        bad.check()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "bfv-8192-1032193-0"}, "expected version"),
        ({"n_blocks": 0}, "n_blocks"),
        ({"n_blocks": 61}, "n_blocks"),
        ({"labels": 0}, "labels"),
        ({"labels": True}, "labels"),
        ({"columns": 2.0}, "columns"),
        ({"cells": -1}, "cells"),
        ({"groups": [["a", 0]]}, "levels of a"),
        ({"groups": [["a", 2], ["a", 2]]}, "distinct"),
        ({"groups": [["a"]]}, "pairs"),
        ({"cells": 19_000}, "at most 20000 parts"),
        ({"extra": 1}, "expected the keys"),
    ],
)
def test_layouts_are_read_strictly(change: dict, reason: str) -> None:
    import json

    layout = Layout(PARAMETERS.version, 2, 5, 3, 4, (("sex", 2), ("age", 4)))
    assert Layout.from_json(layout.to_json()) == layout
    assert layout.parts == 5 + 3 + 1 + 12 + 6 + 12
    plain = {**json.loads(layout.to_json()), **change}
    with pytest.raises(ValueError, match=reason):
        Layout.from_json(json.dumps(plain))


def test_states_of_other_runs_are_refused(played: object) -> None:
    state = played.agent.state()
    with pytest.raises(TypeError, match="use CheckedAgentRun"):
        AgentRun(played.agent._holder, played.sealed.layout, played.labels, "run")
    agent = CheckedAgentRun(
        played.agent._holder,
        played.sealed.layout,
        played.labels[played.sealed.order],
        "another run",
    )
    with pytest.raises(ValueError, match="belongs to another run"):
        agent.restore(state)
    with pytest.raises(ValueError, match="RUN_STATE"):
        agent.restore(state[:-1])
