"""Changing a party's signing key so that no crash leaves it without one the server accepts.

The next key is on the disk before the server hears of it, the old one stays until the server has
revoked it, and every step can be repeated: whatever a crash interrupted, the same command goes on
where it was.
"""

from dataclasses import dataclass

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import Transport
from clearinghouse.errors import TryAgainError
from clearinghouse.messages.identity import AddKey, KeyView, possession_bytes
from clearinghouse.messages.tasks import ReceiptSignTask, TaskList
from clearinghouse.signing import SigningKey, b64decode_strict, b64encode


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did.

    Attributes:
        key_id: The key in use now.
        added: Index of the log entry from which on it signs.
        old_key_id: The key before; still good if `revoked` is None.
        revoked: Index of the log entry from which on the old key is refused.
    """

    key_id: str
    added: int
    old_key_id: str
    revoked: int | None


def rotate(
    keystore: Keystore, transport: Transport, org_id: str, *, keep_old: bool = False
) -> Rotation:
    """Replace the signing key of a party, or finish a rotation that broke off.

    Args:
        keystore: The party's directory; open it again afterwards.
        transport: Signs with the key in use, also after it has changed.
        org_id: The organisation.
        keep_old: Leave the old key valid; the next rotation revokes it first.

    Raises:
        TryAgainError: A receipt waits for the old key's signature, or the server is away.
        ClearinghouseError: The server refuses.
    """
    if keystore.old_key is None or keystore.is_rotating:
        message = announcement(keystore.next_key(), org_id)
        transport.post("/keys", message, KeyView)
        keystore.use_next_key()
        keystore = keystore.reopened()
    transport.key = keystore.signing_key
    old = keystore.old_key
    added = transport.post("/keys", announcement(keystore.signing_key, org_id), KeyView)
    if old is None or keep_old:
        return Rotation(added.id, added.added, "" if old is None else old.key_id, None)
    _need_no_receipt(transport, old)
    revoked = transport.delete(f"/keys/{old.key_id}", KeyView).revoked
    keystore.forget_old_key()
    return Rotation(added.id, added.added, old.key_id, revoked)


def announcement(key: SigningKey, org_id: str) -> AddKey:
    """What tells the server of a key, with the proof that its owner wants it."""
    public = key.verify_key.base64
    return AddKey(
        public_key=public, possession=b64encode(key.sign(possession_bytes(org_id, public)))
    )


def _need_no_receipt(transport: Transport, old: SigningKey) -> None:
    """A receipt that names the old key would be lost with it.

    Raises:
        TryAgainError: One waits for the signature.
    """
    for view in transport.get("/agent/tasks", TaskList).tasks:
        task = view.task
        if isinstance(task, ReceiptSignTask) and (
            old.key_id.encode() in b64decode_strict(task.payload)
        ):
            raise TryAgainError(
                f"a receipt waits for the signature of {old.key_id}, which stays valid for now. "
                "Run clearinghouse agent run, then clearinghouse key rotate again"
            )
