"""A malicious evaluator: what it reads of rows and keys, beside the stated bound.

Bound (docs/protocol.md, limits): one residue mod p, 20 bits, per opening it asks for - cells + 2 in
a run, + 6 in a checked one - and one refusal; nothing of it can be seen by the key holder, all of
it is refuted by a replay. What the key holder refuses at once is asserted here too.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED, N, P, Stage, parts_of

from secure_eval import framing
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Upload
from secure_eval.noise import Table
from secure_eval.opening import MaskedOpenings
from secure_eval.packing import pack
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.replay import Transcript, replay
from secure_eval.sampler import ZeroSampler
from secure_eval.sealio import seal

CELLS = 4
OPENINGS = CELLS + 2
TERNARY_PER_OPENING = 12


@pytest.fixture(scope="module")
def played(play: Callable, linear_model: Callable) -> object:
    model = linear_model(2).with_edges([0, 16, 32])
    rng = np.random.default_rng(0)
    return play(model, rng.integers(0, 16, (30, 2)), rng.integers(0, 2, 30))


class Deviation:
    """Openings of the evaluator's own choice, masked and flooded like honest ones."""

    def __init__(self, played: object, seed: bytes = b"deviating") -> None:
        self.played = played
        self.prg = Prg(seed)
        self.openings = MaskedOpenings(OPENINGS, self.prg)
        self.upload = Upload(played.sealed.layout, played.sealed.blobs)

    def message(self) -> bytes:
        public_key = self.played.agent._holder.public.public_key
        return self.openings.message(ZeroSampler(public_key, self.prg.child("z")), Kind.OPENINGS)

    def sums(self, replies: bytes) -> np.ndarray:
        """The slot sums that the replies show."""
        return self.openings.unmasked(replies, Kind.REPLIES) * N % P


def transcript(played: object, **changes: object) -> Transcript:
    messages = {**played.messages, **changes.pop("messages", {})}
    given = {
        "keys": played.agent._holder.public_keys(),
        "layout": played.sealed.layout,
        "upload": played.sealed.blobs,
        "model": played.model,
        "column_map": range(len(played.model.columns)),
        "seed": SEED,
        "run_id": "run",
        "nonces": NONCES,
        "messages": messages,
        "log": {name: hashlib.sha256(data).hexdigest() for name, data in messages.items()},
    }
    return Transcript(**{**given, **changes})


@pytest.fixture(scope="module")
def remade(played: object) -> str:
    """Hash of the only openings that a replay takes.

    A replay makes the evaluator's messages from seed and inputs, whatever openings are in the log;
    so the one replay of the honest run tells what every other openings message is compared with.
    """
    found = replay(transcript(played))
    assert (found.reproduced, found.fault) == (True, None)
    return hashlib.sha256(played.messages["openings"]).hexdigest()


def refuted_by_replay(remade: str, openings: bytes) -> bool:
    return hashlib.sha256(openings).hexdigest() != remade


# ----------------------------------------------------------------------- what it can read, unseen


def test_rows_read_through_openings_are_bounded_and_refuted(played: object, remade: str) -> None:
    lie = Deviation(played)
    slots = range(OPENINGS)
    for index in slots:
        choose = np.zeros(N, np.int64)
        choose[index] = 1
        column = seal().ntt(lie.upload.ciphertext(0, index % 2))
        chosen = seal().times_plain(column, seal().plain_ntt(seal().encoded(choose), 4))
        seal().evaluator.transform_from_ntt_inplace(chosen)
        lie.openings.add(index, chosen)
    openings = lie.message()
    agent = played.agent_before("replies")
    values = lie.sums(agent.replies(openings))
    rows = played.columns[played.sealed.order]
    read = sum(int(values[slot]) == rows[slot, slot % 2] for slot in slots)
    assert read == OPENINGS, f"measured {read} values of one row each; bound {OPENINGS} residues"
    # the quota is used up: no other message is opened in this run
    with pytest.raises(ValueError, match="already answered for other bytes"):
        agent.replies(Deviation(played, b"again").message())
    assert refuted_by_replay(remade, openings)


def test_the_secret_key_read_through_openings_is_bounded_and_refuted(
    played: object, key_holder: KeyHolder, remade: str
) -> None:
    """Openings decrypt what they are given: 12 ternary coefficients of the key in each."""
    lie = Deviation(played)
    primes = PARAMETERS.primes[:2]
    scale = (primes[0] * primes[1] + P // 2) // P
    wanted = np.arange(1, 1 + OPENINGS * TERNARY_PER_OPENING).reshape(OPENINGS, -1)
    for index, members in enumerate(wanted):
        second = np.zeros((2, N), np.int64)
        constant = 0
        for place, member in enumerate(members.tolist()):
            factor = 3**place * scale
            constant += factor
            second[:, N - member] = [-factor % prime for prime in primes]
        first = np.array([constant % prime for prime in primes], np.int64)
        lie.openings.add_residues(index, first, second)
    openings = lie.message()
    replies = played.agent_before("replies").replies(openings)
    numbers = lie.openings.unmasked(replies, Kind.REPLIES)
    found = numbers[:, None] // 3 ** np.arange(TERNARY_PER_OPENING) % 3 - 1
    right = int((found == key_holder._ternary[wanted]).sum())
    bound = OPENINGS * TERNARY_PER_OPENING
    assert right == bound, f"measured {right} of 8192 coefficients; bound {bound} in a run"
    assert refuted_by_replay(remade, openings)


def test_stripped_noise_shows_exact_counts_until_the_replay(
    played: object, monkeypatch: pytest.MonkeyPatch, remade: str
) -> None:
    from secure_eval.opening import OpeningBatch

    server = played.server_before("openings")
    with monkeypatch.context() as patch:
        patch.setattr(OpeningBatch, "add_noise", lambda _self, _residues: None)
        openings = server.openings(played.messages["characters"])
    replies = played.agent_before("replies").replies(openings)
    counts, _ = played.expected(np.zeros(CELLS, np.int64))
    assert np.array_equal(server.release(replies).counts, counts), "measured: exact counts"
    noise = played.agent.noise.reshape(counts.shape)  # 0 in all four cells once in 300 runs
    assert np.array_equal(played.opened.counts, counts + noise)
    assert refuted_by_replay(remade, openings)
    found = replay(transcript(played, messages={"openings": openings, "replies": replies}))
    assert (found.reproduced, found.message, found.fault) == (False, "openings", "evaluator")


def test_scaled_openings_show_no_more_than_a_residue(played: object, remade: str) -> None:
    scale = 1000
    server = played.server_before("openings")
    server.openings(played.messages["characters"])
    batch = server._batch
    batch._constants = batch._constants * scale % np.array(PARAMETERS.primes[:2])
    batch._seconds = (batch._seconds * scale) % np.array(PARAMETERS.primes[:2])[:, None]
    zeros = ZeroSampler(played.agent._holder.public.public_key, Prg("z"))
    openings = batch.message(zeros, Kind.OPENINGS)
    replies = played.agent_before("replies").replies(openings)
    values = batch.unmasked(replies, Kind.REPLIES)[:CELLS] * N % P
    noised = played.opened.counts.reshape(-1)
    assert np.array_equal(values, noised * scale % P), "learned: the noised counts, scaled"
    assert refuted_by_replay(remade, openings)


def test_openings_of_another_run_show_what_that_run_showed(
    played: object, play: Callable, key_holder: KeyHolder
) -> None:
    holder = key_holder
    other = CheckedAgentRun(
        holder, played.sealed.layout, played.labels[played.sealed.order], "another run"
    )
    state = played.agent_before("replies").state()
    other._run_id = "run"
    other.restore(state)
    assert other.replies(played.messages["openings"]) == played.messages["replies"]
    # the other run's own quota is gone with it
    with pytest.raises(ValueError, match="already answered for other bytes"):
        other.replies(Deviation(played).message())


# ----------------------------------------------------------------------- what is refused at once


def test_an_input_offered_as_a_score_gives_ciphertexts_only(
    played: object, key_holder: KeyHolder
) -> None:
    """The answer to message 1 is encrypted; nothing of the input is in clear."""
    upload = Upload(played.sealed.layout, played.sealed.blobs)
    column = seal().switched(upload.ciphertext(0, 0), 2)
    message = framing.encode(Kind.SCORE, [pack(seal().residues(column))])
    agent = played.new_agent()
    answer = agent.digits(message, played.tables, COMMITMENTS)
    again = played.new_agent().digits(message, played.tables, COMMITMENTS)
    assert len(answer) == len(again) == len(played.messages["digits"])
    # two answers to the same bytes share nothing but the public shape: fresh encryptions
    assert not set(parts_of(answer, Kind.DIGITS)) & set(parts_of(again, Kind.DIGITS))
    # as a share it is refused unless its slots are below the number of bins
    score = parts_of(played.messages["score"], Kind.SCORE)[0]
    wide = framing.encode(Kind.SHARES, [score, score])
    with pytest.raises(ValueError, match="values below 32 in every slot"):
        played.agent_before("characters").characters(wide, NONCES)


@pytest.mark.parametrize("count", [0, 1, OPENINGS - 1, OPENINGS + 1, 2 * OPENINGS])
def test_another_number_of_openings_is_refused(played: object, count: int) -> None:
    parts = (parts_of(played.messages["openings"], Kind.OPENINGS) * 2)[:count]
    agent = played.agent_before("replies")
    with pytest.raises(ValueError, match=f"expected {OPENINGS} parts, got {count}"):
        agent.replies(framing.encode(Kind.OPENINGS, parts))
    assert agent.replies(played.messages["openings"]) == played.messages["replies"]


def test_a_round_is_answered_once(played: object) -> None:
    agent = played.new_agent()
    agent.restore(played.agent.state())
    messages = played.messages
    calls = {
        "score": lambda m: agent.digits(m, played.tables, COMMITMENTS),
        "early_checks": agent.early_replies,
        "shares": lambda m: agent.characters(m, NONCES),
        "final_checks": agent.final_replies,
        "openings": agent.replies,
    }
    answers = {
        "score": "digits",
        "early_checks": "early_replies",
        "shares": "characters",
        "final_checks": "final_replies",
        "openings": "replies",
    }
    for name, call in calls.items():
        assert call(messages[name]) == messages[answers[name]]
        other = messages[name][:-1] + bytes([messages[name][-1] ^ 1])
        with pytest.raises(ValueError, match="already answered for other bytes"):
            call(other)


@pytest.mark.parametrize(
    "nonces", [(), (b"n" * 16,), (b"n" * 16, b""), (b"n" * 15, b"d" * 16), (b"n" * 16,) * 3]
)
def test_no_noise_without_both_nonces(played: object, nonces: tuple) -> None:
    agent = played.agent_before("characters")
    with pytest.raises(ValueError, match="nonces: expected 2 of 16 bytes each"):
        agent.characters(played.messages["shares"], nonces)
    assert agent._rounds.stored.keys() == {"digits", "early_replies"}


def test_tables_without_noise_or_of_one_name_are_refused(played: object) -> None:
    agent = played.new_agent()
    score = played.messages["score"]
    for tables, reason in (
        ([Table("histogram", CELLS, None)], "exact counts are for rehearsals"),
        ([], "expected 1 to"),
        ([Table("h", 9000, 500_000)], "expected 1 to"),
        ([Table("h", 4, 500_000), Table("h", 4, 500_000)], "two tables have the same name"),
    ):
        with pytest.raises(ValueError, match=reason):
            agent.digits(score, tables, COMMITMENTS)
    for epsilon in (0, -1, 999, 10**10):
        with pytest.raises(ValueError, match="expected epsilon"):
            Table("h", 4, epsilon)


def test_a_refusal_is_one_bit_and_ends_the_run(played: object) -> None:
    """Decryption failures under chosen noise tell about the key: one answer in a run, no more."""
    rng = np.random.default_rng(0)
    noise = framing.encode(Kind.SCORE, [pack(rng.integers(0, 2**42, (2, 2, N)))])
    agent = played.new_agent()
    with pytest.raises(ValueError, match="bits of noise budget"):
        agent.digits(noise, played.tables, COMMITMENTS)
    restored = played.new_agent()
    restored.restore(agent.state())
    for run in (agent, restored):
        for message in (noise, played.messages["score"]):
            with pytest.raises(ValueError, match="the run ended when a message was refused"):
                run.digits(message, played.tables, COMMITMENTS)


def test_openings_near_the_end_of_the_budget_are_refused(played: object) -> None:
    lie = Deviation(played)
    primes = PARAMETERS.primes[:2]
    modulus = primes[0] * primes[1]
    offset = modulus // (4 * P)
    words = np.array([offset % prime for prime in primes], np.int64)
    lie.openings.add_residues(0, words, np.zeros((2, N), np.int64))
    agent = played.agent_before("replies")
    with pytest.raises(ValueError, match="OPENINGS 0: expected at least 4 bits"):
        agent.replies(lie.message())
    with pytest.raises(ValueError, match="the run ended"):
        agent.replies(played.messages["openings"])


# ------------------------------------------------------------------------------- checked rounds


@pytest.fixture(scope="module")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    result = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    result.to_characters()
    return result


def test_checks_cannot_be_skipped_or_reordered(stage: Stage) -> None:
    labels = stage.labels[stage.sealed.order]
    agent = CheckedAgentRun(stage.holder, stage.sealed.layout, labels, "run")
    messages = stage.messages
    with pytest.raises(ValueError, match="expected the round digits first"):
        agent.early_replies(b"")
    agent.digits(messages["score"], stage.tables, COMMITMENTS)
    for call in (
        lambda: agent.characters(messages["shares"], NONCES),
        lambda: agent.final_replies(b""),
        lambda: agent.replies(b""),
    ):
        with pytest.raises(ValueError, match="expected the round early_replies first"):
            call()


def test_a_plain_evaluator_gets_nothing_from_a_checked_key_holder(stage: Stage) -> None:
    """The opt-out is on both sides: shares without the authenticator are refused."""
    parts = parts_of(stage.messages["shares"], Kind.SHARES)
    labels = stage.labels[stage.sealed.order]
    agent = CheckedAgentRun(stage.holder, stage.sealed.layout, labels, "run")
    agent.restore(stage.agent.state())
    del agent._rounds.stored["characters"]
    with pytest.raises(ValueError, match="SHARES: expected 2 parts, got 1"):
        agent.characters(framing.encode(Kind.SHARES, parts[:1]), NONCES)


def test_the_evaluator_reads_eleven_residues_more_in_a_checked_run(stage: Stage) -> None:
    """Counted: everything in clear that a checked key holder ever sends."""
    stage.to_openings()
    agent = stage.agent
    clear = {
        Kind.EARLY_REPLIES: agent._rounds.stored["early_replies"][1],
        Kind.FINAL_REPLIES: agent._rounds.stored["final_replies"][1],
        Kind.REPLIES: agent.replies(stage.messages["openings"]),
    }
    residues = sum(len(parts_of(data, kind)[0]) // 4 for kind, data in clear.items())
    assert residues == OPENINGS + 9, f"measured {residues} residues; bound cells + 11"


def test_another_model_under_the_same_seed_meets_other_masks(played: object) -> None:
    """Two scores under one mask would show their difference to the key holder."""
    weights = played.model.weights.copy()
    weights[0] += 1
    others = [
        played.new_server(model=played.model._changed(weights=weights)),
        played.new_server(run_id="other"),
        played.new_server(seed=bytes(32)),
    ]
    holder = played.agent._holder
    masked = [
        holder.vector(memoryview(parts_of(server.score(), Kind.SCORE)[0]), "score")
        for server in (played.new_server(), *others)
    ]
    for first, second in pairwise(masked):
        counts = np.bincount((first - second) % P * 32 // P, minlength=32)
        # chi-square with 31 degrees of freedom: fixed seeds, uniform differences
        assert ((counts - N / 32) ** 2 / (N / 32)).sum() < 90
