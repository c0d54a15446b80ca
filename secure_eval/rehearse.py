"""Both roles of a blind run in one process, with real keys and ciphertexts."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_run import ClassesScoringRun
from secure_eval.evaluator import Opened
from secure_eval.histogram import Histogram
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.noise import Table
from secure_eval.nonces import new_nonce, nonce_commitment
from secure_eval.params import PARAMETERS
from secure_eval.upload_checks import UploadChecks

__all__ = ["Stopwatch", "epsilon_micro", "group_codes", "play", "rehearse"]


def _label_codes(labels: ArrayLike) -> tuple[Any, int]:
    codes = np.asarray(labels)
    if codes.ndim != 1 or not len(codes):
        raise ValueError(f"labels: expected (n,) codes, got {codes.shape}")
    whole = np.rint(codes.astype(np.float64))
    if not np.array_equal(whole, codes.astype(np.float64)) or whole.min() < 0:
        raise ValueError("labels: expected class codes 0..L-1")
    whole = whole.astype(np.int64)
    return whole, max(2, int(whole.max()) + 1)


def _labelled(model: IntegerModel, rows: ArrayLike, labels: ArrayLike) -> tuple[Any, Any, int]:
    """Return the model's rows, label codes and number of label classes.

    A residual model reads one feature more than the rows have: the label, a number; there is then
    one class.
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or model.n_features != table.shape[1] + 1:
        codes, n_labels = _label_codes(labels)
        return table, codes, n_labels
    numbers = np.asarray(labels, dtype=np.float64)
    if numbers.shape != (len(table),):
        raise ValueError(f"labels: expected ({len(table)},) numbers, got {numbers.shape}")
    return np.column_stack([table, numbers]), np.zeros(len(table), np.int64), 1


def group_codes(value: Any) -> tuple[Any, int]:
    """Return codes and number of levels of a group given as codes or (codes, levels)."""
    if isinstance(value, tuple) and len(value) == 2 and np.ndim(value[1]) == 0:
        return np.asarray(value[0]).astype(np.int64), int(value[1])
    codes = np.asarray(value).astype(np.int64)
    return codes, int(codes.max(initial=0)) + 1


def epsilon_micro(noise: float | Fraction | None) -> int | None:
    """Return epsilon in millionths; rounded down, so that there is never less noise than asked."""
    if noise is None:
        return None
    if not 0 < noise < float("inf"):
        raise ValueError(f"noise: expected a positive epsilon or None, got {noise}")
    micro = Fraction(noise) * 1_000_000
    return micro.numerator // micro.denominator


class Stopwatch:
    """Wall time by what is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def take(self, what: str, work: Callable[[], Any]) -> Any:
        """Do some work and add its time."""
        started = time.monotonic()
        result = work()
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - started
        return result


def play(
    server: CheckedScoringRun | ClassesScoringRun,
    agent: CheckedAgentRun | ClassesAgentRun,
    nonces: tuple[bytes, bytes],
    tables: Sequence[Table],
    watch: Stopwatch,
) -> tuple[Opened, int]:
    """Exchange all messages, the tests' included; return what was opened and the bytes sent."""
    sent = 0

    def made(party: str, work: Callable[[], bytes]) -> bytes:
        nonlocal sent
        message: bytes = watch.take(party, work)
        sent += len(message)
        return message

    commitments = [nonce_commitment(nonce) for nonce in nonces]
    ours, theirs = "server", "hospital"
    score = made(ours, server.score)
    digits = made(theirs, lambda: agent.digits(score, tables, commitments))
    early = made(ours, lambda: server.early_checks(digits))
    server.accept_early(made(theirs, lambda: agent.early_replies(early)))
    shares = made(ours, lambda: server.shares(digits))
    characters = made(theirs, lambda: agent.characters(shares, nonces))
    final = made(ours, lambda: server.final_checks(characters))
    server.accept_final(made(theirs, lambda: agent.final_replies(final)))
    openings = made(ours, lambda: server.openings(characters, nonces))
    opened = server.release(made(theirs, lambda: agent.replies(openings)))
    return opened, sent


def _tested(holder: KeyHolder, sealed: SealedSet) -> int:
    """Test the upload as a market does; return the bytes sent."""
    checks = UploadChecks(
        holder.public_keys(),
        sealed.layout,
        sealed.blobs,
        secrets.token_bytes(32),
        secrets.token_hex(16),
    )
    message = checks.message()
    replies = AgentUpload(holder).replies(message)
    checks.accept(replies)
    return len(message) + len(replies)


def rehearse(
    model: IntegerModel,
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Mapping[str, Any] | None = None,
    noise: float | Fraction | None = None,
    max_rows_per_block: int = PARAMETERS.degree,
) -> Histogram:
    """Run a whole blind scoring with all its tests, playing both parties.

    What a market does beyond it is to test the schema's own claims on the upload.

    Args:
        model: what to evaluate.
        rows: (n, F) floats.
        labels: (n,) class codes 0..L-1, or numbers for a residual model.
        groups: attribute name to (n,) level codes, or to (codes, number of levels).
        noise: epsilon of every table; None opens exact counts.
        max_rows_per_block: rows in a block.

    Returns:
        The opened histogram.

    Raises:
        ValueError: inputs of the wrong shape or out of range.
    """
    table, codes, n_labels = _labelled(model, rows, labels)
    watch = Stopwatch()
    holder = watch.take("sealing", KeyHolder.generate)
    keys = holder.public_keys()
    levels = {name: group_codes(value) for name, value in (groups or {}).items()}
    rows_each = max_rows_per_block
    encoded = model.encode(table)
    sealed = watch.take(
        "sealing",
        lambda: holder.seal(encoded, codes, n_labels, groups=levels, max_rows_per_block=rows_each),
    )
    run_id = secrets.token_hex(16)
    tested = watch.take("upload tests", lambda: _tested(holder, sealed))
    nonces = (new_nonce(), new_nonce())
    server = CheckedScoringRun(
        keys,
        sealed.layout,
        sealed.blobs,
        model,
        range(len(model.columns)),
        secrets.token_bytes(32),
        run_id,
        nonces[0],
    )
    agent = CheckedAgentRun(
        holder,
        sealed.layout,
        codes[sealed.order],
        run_id,
        bins=model.bins,
        rows_per_block=max_rows_per_block,
        allow_exact=True,
    )
    epsilon = epsilon_micro(noise)
    tables = [Table(name, cells, epsilon) for name, cells in server.table_cells]
    opened, bytes_sent = play(server, agent, nonces, tables, watch)
    return Histogram(
        counts=opened.counts,
        edges=model.edges,
        groups=opened.groups,
        bytes_sent=bytes_sent,
        upload_bytes=len(keys) + sum(map(len, sealed.blobs)) + tested,
        seconds=watch.seconds,
    )
