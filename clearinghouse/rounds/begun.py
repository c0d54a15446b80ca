"""What the server is bound to before it sends anything: its seed and nonces, by commitments.

Everything it draws in a run follows from one seed (docs/protocol.md section 8), so a replay after
the fact needs the seed that was fixed before. The commitment goes into the log in the transaction
that makes the first message possible.
"""

from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request, Run, Valset
from clearinghouse.store.store import Tx
from secure_eval.nonces import NONCE_BYTES, nonce_commitment, seed_commitment
from secure_eval.params import PROTOCOL

__all__ = ["committed_nonce", "committed_seed", "opens", "record_begun", "record_checks"]

_VERSION = {"protocol": PROTOCOL}
"""Of the messages, which a replay must have; the commitment to the seed is bound to it too."""


def committed_seed(seed: str) -> str:
    """The commitment to a seed, both in hex."""
    return seed_commitment(bytes.fromhex(seed))


def committed_nonce(nonce: str) -> str:
    """The commitment to a nonce, both in hex."""
    return nonce_commitment(bytes.fromhex(nonce)).hex()


def opens(nonce: str, commitment: str) -> bool:
    """Whether a nonce, in hex, has the right length and opens a commitment."""
    return len(nonce) == 2 * NONCE_BYTES and committed_nonce(nonce) == commitment


def record_begun(tx: Tx, desk: Desk, request: Request, run: Run) -> None:
    """Log a run before its first message: the seed, the nonces and, for a score, the model."""
    objects = {
        "request": request.id,
        "run": run.id,
        "valset": request.valset_id,
        "owner": request.org_id,
    }
    hashes = {"seed": committed_seed(run.seed), "nonce": committed_nonce(run.nonce)}
    if run.kind == "score":
        objects["model"] = run.model_id
        hashes["model"] = str(run.model["digest"])
        hashes["developer_nonce"] = str(run.model["nonce_commitment"])
    desk.record(tx, "run.begun", desk.org, objects=objects, hashes=hashes, amounts=_VERSION)


def record_checks(tx: Tx, desk: Desk, request: Request, valset: Valset) -> None:
    """Log the tests of a sealed set before they are sent."""
    objects = {"request": request.id, "valset": valset.id, "owner": valset.org_id}
    hashes = {"seed": committed_seed(valset.seed)}
    desk.record(tx, "checks.begun", desk.org, objects=objects, hashes=hashes, amounts=_VERSION)
