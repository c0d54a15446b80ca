"""Opening the matching target: noised cell x label counts of a sealed set (protocol section 0).

Noise is geometric: a target is one release. Its ciphertext is tested before anything is opened, as
everything else of the key holder's is; what remains to an arbiter is whether it is the committed
noise (`replay.check_target_noise`).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.checks import Checks
from secure_eval.evaluator import refusing, seeded_prg
from secure_eval.framing import Kind
from secure_eval.layout import MAX_CELLS, Layout, Upload
from secure_eval.opening import OpeningBatch
from secure_eval.packing import FULL_BYTES, unpack
from secure_eval.params import PARAMETERS
from secure_eval.public_keys import PublicKeys
from secure_eval.sampler import ZeroSampler
from secure_eval.sealio import seal

__all__ = ["FINAL_NOISE_BITS", "TargetOpening"]

Integers = NDArray[np.int64]

FINAL_NOISE_BITS = 74
"""Amplification of a noise test of ciphertexts under the public key: 7 bits louder than others."""


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


class TargetOpening:
    """The noised cell x label counts of one sealed set."""

    def __init__(
        self, keys: bytes, layout: Layout, upload: Sequence[bytes], seed: bytes, run_id: str
    ) -> None:
        """Check all shapes.

        Raises:
            ValueError: anything malformed, or a layout without cells.
        """
        if layout.cells < 1 or layout.cells * layout.labels > MAX_CELLS:
            raise ValueError(f"target: expected 1 to {MAX_CELLS // layout.labels} cells")
        self._keys = PublicKeys.from_bytes(keys)
        self._upload = Upload(layout, upload)
        self._layout = layout
        context: list[bytes | str] = [_digest(keys), layout.to_json(), self._upload.digest, run_id]
        self._prg = seeded_prg(seed, "target opening", *context)
        self._batch: OpeningBatch | None = None
        self._received: bytes | None = None
        self._checks: Checks | None = None
        self._passed = False

    @refusing("TARGET_NOISE")
    def checks(self, noise: bytes) -> bytes:
        """Return the noise test of the key holder's encrypted noise: one opening.

        Raises:
            ValueError: a malformed message, or another one than before.
        """
        (part,) = framing.decode(noise, Kind.TARGET_NOISE, [FULL_BYTES])
        digest = _digest(noise)
        self._received = self._received or digest
        if self._received != digest:
            raise ValueError("TARGET_NOISE: this opening has already answered another such message")
        prg = self._prg.child("noise check", digest)
        checks = Checks(self._keys, prg, FINAL_NOISE_BITS, zero_tests=0)
        terms = checks.terms("noise")
        terms.noise([seal().ciphertext(unpack(part, 2, PARAMETERS.data_primes, "noise"))])
        checks.add(terms)
        self._checks = checks
        return checks.message(Kind.TARGET_CHECKS)

    def accept(self, replies: bytes) -> None:
        """Accept the reply to the noise test.

        Raises:
            ValueError: malformed, or the test failed: the run is burnt.
        """
        if self._checks is None:
            raise ValueError("TARGET_CHECK_REPLIES: expected after the noise message")
        self._checks.accept(replies, Kind.TARGET_CHECK_REPLIES)
        self._passed = True

    @refusing("TARGET_NOISE")
    def openings(self, noise: bytes) -> bytes:
        """Return the openings for the key holder's encrypted noise.

        Raises:
            ValueError: a malformed message, another one than tested, or not yet accepted.
        """
        (part,) = framing.decode(noise, Kind.TARGET_NOISE, [FULL_BYTES])
        if not self._passed or self._received != _digest(noise):
            raise ValueError("TARGET_NOISE: no opening before the noise test is accepted")
        prg = self._prg.child("openings", _digest(noise))
        layout, tools = self._layout, seal()
        n_cells = layout.cells * layout.labels
        batch = OpeningBatch(n_cells, prg.child("batch"))
        batch.add_noise(unpack(part, 2, PARAMETERS.data_primes, "noise"))
        checks: list[Any] = [None] * len(batch.weights)
        for index in range(n_cells):
            cell = None
            for block in range(layout.n_blocks):
                one_hot = self._upload.ciphertext(block, layout.cell_part(0, 0) + index)
                cell = tools.accumulate(cell, one_hot)
            for check, weights in enumerate(batch.weights):
                checks[check] = tools.add_scaled(checks[check], cell, int(weights[index]))
            batch.add(index, cell)
        for check, total in enumerate(checks):
            batch.add(n_cells + check, total)
        self._batch = batch
        zeros = ZeroSampler(self._keys.public_key, prg.child("zeros"))
        return batch.message(zeros, Kind.TARGET_OPENINGS)

    def release(self, replies: bytes) -> Integers:
        """Return the noised counts (K, L).

        Guarantee:
            The counts of the tested upload plus the key holder's noise, or an error: epsilon-DP
            under adding or removing one patient.
        Assumes:
            The encrypted noise is the committed one, which its test does not show (an arbiter
            does); the key holder is who the noise protects.
        Proof:
            `AgentTarget.noise_message`; the openings show the sums only (`opening`), and weighted
            sums of them that the field's random weights bind to the cells.

        Raises:
            ValueError: a malformed message or a failed check.
        """
        if self._batch is None:
            raise ValueError("TARGET_REPLIES: expected after the noise message")
        cells = self._batch.release(replies, Kind.TARGET_REPLIES)
        return cells.reshape(self._layout.cells, self._layout.labels)
