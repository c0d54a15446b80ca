"""`clearinghouse witness`: watch a log from outside, cosign it, keep evidence of a fork."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearinghouse.errors import RefusedError, TryAgainError

Report = Callable[[dict[str, Any], str], None]


def watch(
    server: str, folder: Path, log_key: str | None, *, once: bool, interval_s: float, report: Report
) -> None:
    """Look at the log every `interval_s`, compare with other witnesses, and hand in a cosignature.

    Args:
        server: The server's address.
        folder: Where the witness keeps its key and what it saw.
        log_key: Verifier key of the log, if it is known from elsewhere.
        once: Whether to look once and return.
        interval_s: Pause between looks.
        report: Gets every event, as a value and in words.

    Raises:
        ForkError: The log showed two histories; the evidence is in the folder.
        InputError: The folder watches another log.
        TryAgainError: The server is away (with `once`; otherwise it is waited for).
    """
    from clearinghouse.client.transport import Transport, make_client
    from clearinghouse.clock import SystemClock
    from clearinghouse.log.witness import Witness
    from clearinghouse.signing import SigningKey

    clock = SystemClock()
    path = folder / "caller.pem"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        SigningKey.generate().save(path)  # calls are signed like everybody's; nobody knows this key
    with make_client(server) as client:
        transport = Transport(server, SigningKey.load(path), clock, client)
        name = f"witness/{transport.key.key_id}"
        witness = Witness(folder, name, clock, log_vkey=log_key)
        report({"event": "watching", "vkey": witness.key.vkey}, f"this witness: {witness.key.vkey}")
        while True:
            try:
                _look(witness, transport, report)
            except TryAgainError as error:
                if once:
                    raise
                report({"event": "waiting", "message": str(error)}, str(error))
            if once:
                return
            time.sleep(interval_s)


def _look(witness: Any, transport: Any, report: Report) -> None:
    from clearinghouse.log.checkpoint import parse_note
    from clearinghouse.log.witness import gossip, log_prover
    from clearinghouse.messages.results import CheckpointView, Cosigned

    view = transport.get("/log/checkpoint", CheckpointView)
    note = witness.observe(view.checkpoint.encode(), view.vkey, log_prover(transport))
    compared = gossip(witness, transport)
    size = parse_note(view.checkpoint.encode()).checkpoint.size
    if note is None:
        words = f"{size} entries: older than what was seen, and consistent with it"
        report({"event": "older", "size": size, "compared": compared}, words)
        return
    handed_in = True
    try:
        message = Cosigned(vkey=witness.key.vkey, checkpoint=note)
        transport.send("/log/cosignatures", message)
    except RefusedError:
        handed_in = False
    told = "handed in" if handed_in else "kept here: the operator has not named this witness"
    report(
        {"event": "cosigned", "size": size, "compared": compared, "handed_in": handed_in},
        f"{size} entries cosigned, {compared} checkpoints of others agree; {told}",
    )
