"""Checked runs: honest parties pass, every lie is refused before it earns anything."""

from collections.abc import Callable

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from secure_eval import framing
from secure_eval.checked import CheckedScoringRun, UploadChecks
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.checks import CHECK_OPENINGS, EARLY_OPENINGS
from secure_eval.comparison import grid
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import seeded_ciphertext
from secure_eval.noise import Table
from secure_eval.nonces import nonce_commitment
from secure_eval.packing import OPENING_BYTES, SEED_BYTES, SEEDED_BYTES, pack, unpack
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

P = PARAMETERS.plain_modulus
N = PARAMETERS.degree
SEED = bytes(range(32))
NONCES = (b"n" * 16, b"d" * 16)
COMMITMENTS = [nonce_commitment(nonce) for nonce in NONCES]

Change = Callable[[list[bytes]], None]


class Cheat:
    """Rewrites parts of a message as a malicious key holder could: it knows the key."""

    def __init__(self, key_holder: KeyHolder) -> None:
        self.holder = key_holder

    def slots(self, part: bytes) -> np.ndarray:
        plain = sealapi.Plaintext()
        self.holder._decryptor.decrypt(seeded_ciphertext(memoryview(part), "x"), plain)
        return np.array(seal().encoder.decode_uint64(plain), np.int64)

    def replies(self, message: bytes, kind: Kind, reply: Kind) -> bytes:
        """Answer the checks whatever noise they carry."""
        count = EARLY_OPENINGS if kind is Kind.EARLY_CHECKS else CHECK_OPENINGS
        parts = framing.decode(message, kind, [OPENING_BYTES] * count)
        opened = [self.holder.opened(part, "x", -1) for part in parts]
        return framing.encode(reply, [np.array(opened, "<u4").tobytes()])

    def set(self, index: int, slot: int, value: int) -> Change:
        def change(parts: list[bytes]) -> None:
            slots = self.slots(parts[index])
            slots[slot] = value % P
            parts[index] = self.holder.encrypted(slots)

        return change

    def loud(self, index: int, bits: int) -> Change:
        """The right message with noise of 2^bits in one coefficient."""

        def change(parts: list[bytes]) -> None:
            body, seed = parts[index][:-SEED_BYTES], parts[index][-SEED_BYTES:]
            residues = unpack(body, 1, PARAMETERS.data_primes, "x")[0].astype(object)
            for row, prime in enumerate(PARAMETERS.data_primes):
                residues[row, 77] = (int(residues[row, 77]) + (1 << bits)) % prime
            parts[index] = pack(residues.astype(np.uint64)) + seed

        return change


@pytest.fixture(scope="module")
def cheat(key_holder: KeyHolder) -> Cheat:
    return Cheat(key_holder)


def rewritten(message: bytes, kind: Kind, lengths: list[int], change: Change | None) -> bytes:
    if change is None:
        return message
    parts = [bytes(part) for part in framing.decode(message, kind, lengths)]
    change(parts)
    return framing.encode(kind, parts)


class Setting:
    """One sealed set, model and checked run; digits or characters may be replaced by lies."""

    def __init__(
        self, holder: KeyHolder, model: object, n: int, n_labels: int, rows_per_block: int
    ) -> None:
        rng = np.random.default_rng(n)
        sizes = [column.size for column in model.columns]
        self.columns = rng.integers(0, sizes, (n, len(sizes)))
        self.labels = rng.integers(0, n_labels, n)
        self.holder, self.model, self.rows = holder, model, rows_per_block
        self.sealed: SealedSet = holder.seal(
            self.columns, self.labels, n_labels, max_rows_per_block=rows_per_block
        )
        self.keys = holder.public_keys()

        layout = self.sealed.layout
        self.server = CheckedScoringRun(
            self.keys,
            layout,
            self.sealed.blobs,
            model,
            range(layout.columns),
            SEED,
            "run",
            NONCES[0],
        )
        self.agent = CheckedAgentRun(
            holder,
            layout,
            self.labels[self.sealed.order],
            "run",
            bins=model.bins,
            rows_per_block=rows_per_block,
        )
        self.tables = [Table(name, cells, 500_000) for name, cells in self.server.table_cells]
        self.digits = self.agent.digits(self.server.score(), self.tables, COMMITMENTS)

    def early(self, change: Change | None) -> bytes:
        """The early checks of a digits message with a lie in it."""
        lengths = self.server._shapes.digits()
        message = rewritten(self.digits, Kind.DIGITS, lengths, change)
        self.server._received.clear()  # each lie is a run of its own
        return self.server.early_checks(message)

    def to_characters(self) -> None:
        """Go on honestly."""
        with pytest.raises(ValueError, match="before the early checks"):
            self.server.shares(self.digits)
        self.server.accept_early(self.agent.early_replies(self.early(None)))
        shares = self.server.shares(self.digits)
        self.characters = self.agent.characters(shares, NONCES)

    def final(self, change: Change | None) -> bytes:
        """The final checks of a characters message with a lie in it."""
        lengths = self.server._shapes.characters()
        message = rewritten(self.characters, Kind.CHARACTERS, lengths, change)
        self.server._received.pop("CHARACTERS", None)
        return self.server.final_checks(message)

    def finish(self) -> None:
        """Go on honestly to the end and compare with plain counts."""
        checks = self.final(None)
        with pytest.raises(ValueError, match="before the final checks"):
            self.server.openings(self.characters)
        self.server.accept_final(self.agent.final_replies(checks))
        openings = self.server.openings(self.characters)
        opened = self.server.release(self.agent.replies(openings))
        scores = self.model.score_columns(self.columns)
        plain = np.stack(
            [
                np.histogram(scores[self.labels == label], self.model.edges)[0]
                for label in range(self.sealed.layout.labels)
            ]
        )
        assert np.array_equal(opened.counts, plain + self.agent.noise.reshape(plain.shape))


@pytest.fixture(scope="module")
def setting(key_holder: KeyHolder, linear_model: Callable) -> Setting:
    model = linear_model(2).with_edges([0, 16, 32])
    return Setting(key_holder, model, 30, 2, N)


@pytest.fixture(scope="module")
def later(key_holder: KeyHolder, linear_model: Callable) -> Setting:
    model = linear_model(2).with_edges([0, 16, 32])
    result = Setting(key_holder, model, 30, 2, N)
    result.to_characters()
    return result


DIGIT_LIES = ["constant", "two hot", "two hot in padding", "flag", "half", "top", "loud"]


@pytest.mark.parametrize("lie", DIGIT_LIES)
def test_false_digits_are_refused_before_any_share(
    setting: Setting, cheat: Cheat, lie: str
) -> None:
    def constant(parts: list[bytes]) -> None:
        for index in range(1, 53):
            parts[index] = cheat.holder.encrypted(np.full(N, 14 if index < 40 else 32))

    def two_hot(slot: int) -> Change:
        def change(parts: list[bytes]) -> None:
            for index in (1, 2):
                cheat.set(index, slot, 1)(parts)

        return change

    changes: dict[str, Change] = {
        "constant": constant,
        "two hot": two_hot(3),
        "two hot in padding": two_hot(N - 1),
        "flag": cheat.set(52, 5, 1),
        "half": cheat.set(20, 5, (P + 1) // 2),
        "top": cheat.set(53, N - 1, 40),
        "loud": cheat.loud(7, 40),
    }
    checks = setting.early(changes[lie])
    replies = cheat.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES)
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed"):
        setting.server.accept_early(replies)
    with pytest.raises(ValueError, match="before the early checks"):
        setting.server.shares(setting.digits)


CHARACTER_LIES = ["character", "label", "padding", "share", "proof", "loud", "another residue"]


@pytest.mark.parametrize("lie", CHARACTER_LIES)
def test_false_characters_are_refused_before_any_opening(
    later: Setting, cheat: Cheat, lie: str
) -> None:
    def label(parts: list[bytes]) -> None:
        for j in range(1, 32):
            first, second = cheat.slots(parts[j]), cheat.slots(parts[31 + j])
            first[4], second[4] = second[4].copy(), first[4].copy()
            parts[j], parts[31 + j] = cheat.holder.encrypted(first), cheat.holder.encrypted(second)

    def residue(parts: list[bytes]) -> None:
        # every character of row 4 moved by one bin, consistently over labels
        powers = grid(32).powers
        for j in range(1, 32):
            for index in (j, 31 + j):
                slots = cheat.slots(parts[index])
                slots[4] = slots[4] * powers[j] % P
                parts[index] = cheat.holder.encrypted(slots)

    changes: dict[str, Change] = {
        "character": cheat.set(3, 4, 5),
        "label": label,
        "padding": cheat.set(3, N - 2, 5),
        "share": cheat.set(63, 2, 40),
        "proof": cheat.set(64, 2, 77),
        "loud": cheat.loud(3, 40),
        "another residue": residue,
    }
    checks = later.final(changes[lie])
    replies = cheat.replies(checks, Kind.FINAL_CHECKS, Kind.FINAL_REPLIES)
    with pytest.raises(ValueError, match="FINAL_REPLIES: a test failed"):
        later.server.accept_final(replies)
    with pytest.raises(ValueError, match="before the final checks"):
        later.server.openings(later.characters)


def test_the_honest_rest_of_the_same_run_passes(later: Setting) -> None:
    later.finish()


@pytest.fixture(scope="module")
def sealed(key_holder: KeyHolder) -> SealedSet:
    rng = np.random.default_rng(0)
    n = 40
    bits = np.sort(rng.integers(0, 2, (n, 2)))[:, ::-1]
    columns = np.concatenate([rng.integers(0, 1000, (n, 1)), bits], axis=1)
    labels, cells = rng.integers(0, 3, n), rng.integers(0, 4, n)
    groups = {"sex": (rng.integers(0, 2, n), 2)}
    return key_holder.seal(columns, labels, 3, cells, 4, groups, max_rows_per_block=30)


def check_upload(holder: KeyHolder, sealed: SealedSet, blobs: list[bytes]) -> None:
    checks = UploadChecks(
        holder.public_keys(),
        sealed.layout,
        blobs,
        SEED,
        "upload",
        partitions=[[{6: 1, 1: -1}, {1: 1, 2: -1}, {2: 1}]],
    )
    message = checks.message()
    if blobs != list(sealed.blobs):
        evil = Cheat(holder).replies(message, Kind.UPLOAD_CHECKS, Kind.UPLOAD_REPLIES)
        checks.accept(evil)
    checks.accept(AgentUpload(holder).replies(message))


def test_honest_uploads_pass(key_holder: KeyHolder, sealed: SealedSet) -> None:
    check_upload(key_holder, sealed, list(sealed.blobs))


UPLOAD_LIES = {
    "column off the valid slots": (0, N - 1, 5),
    "a bit of two": (1, 3, 2),
    "two labels": (3, 3, None),
    "valid without label": (6, N - 1, 1),
    "no cell": (7, 3, None),
    "half a group": (19, 3, (P + 1) // 2),
}


@pytest.mark.parametrize("lie", sorted(UPLOAD_LIES))
def test_false_uploads_are_refused(
    key_holder: KeyHolder, cheat: Cheat, sealed: SealedSet, lie: str
) -> None:
    part, slot, value = UPLOAD_LIES[lie]
    lengths = [SEEDED_BYTES] * sealed.layout.parts
    parts = [bytes(p) for p in framing.decode(sealed.blobs[1], Kind.UPLOAD_BLOCK, lengths)]
    if value is None:
        value = 1 - int(cheat.slots(parts[part])[slot])
    cheat.set(part, slot, value)(parts)
    blobs = [sealed.blobs[0], framing.encode(Kind.UPLOAD_BLOCK, parts)]
    with pytest.raises(ValueError, match="UPLOAD_REPLIES: a test failed"):
        check_upload(key_holder, sealed, blobs)


def test_loud_uploads_and_descending_bits_are_refused(
    key_holder: KeyHolder, cheat: Cheat, sealed: SealedSet
) -> None:
    lengths = [SEEDED_BYTES] * sealed.layout.parts
    honest = [bytes(p) for p in framing.decode(sealed.blobs[0], Kind.UPLOAD_BLOCK, lengths)]
    low = int(np.flatnonzero(cheat.slots(honest[1])[:30] == 0)[0])
    for change in (cheat.loud(0, 60), cheat.set(2, low, 1)):
        parts = list(honest)
        change(parts)
        blobs = [framing.encode(Kind.UPLOAD_BLOCK, parts), sealed.blobs[1]]
        with pytest.raises(ValueError, match="UPLOAD_REPLIES: a test failed"):
            check_upload(key_holder, sealed, blobs)


def test_guessed_replies_fail(setting: Setting, key_holder: KeyHolder, sealed: SealedSet) -> None:
    checks = UploadChecks(key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "upload")
    with pytest.raises(ValueError, match="after the checks were sent"):
        checks.accept(b"")
    agent = AgentUpload(key_holder)
    message = checks.message()
    good = agent.replies(message)
    assert agent.replies(message) == good
    for position in range(len(good) - 12, len(good), 4):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(ValueError, match="a test failed"):
            checks.accept(
                bytes(bad),
            )
    checks.accept(good)
