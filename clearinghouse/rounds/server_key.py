"""Changing the server's own key, while no server runs.

The log's key is not changed here: it is the name by which everybody knows the log, so another one
means another log (docs/operate.md).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from clearinghouse.clock import Clock, SystemClock
from clearinghouse.errors import InputError, TryAgainError
from clearinghouse.rounds.desk import NEXT_KEY, SERVER_KEY, Desk, open_desk
from clearinghouse.settings import Settings
from clearinghouse.signing import SigningKey
from clearinghouse.store.records import OrgKey
from clearinghouse.store.store import Tx


@dataclass(frozen=True, slots=True)
class ServerRotation:
    """The new key with the log entries that add it and revoke the old one."""

    key_id: str
    added: int
    old_key_id: str
    revoked: int


def rotate_server_key(settings: Settings, clock: Clock | None = None) -> ServerRotation:
    """Replace the server's key; a rotation that broke off is finished by the next start.

    Raises:
        InputError: There is no server's folder.
        TryAgainError: Models are being scored: their receipts name the old key.
    """
    if not (settings.data / SERVER_KEY).is_file():
        raise InputError(f"{settings.data} is no server's folder: it has no {SERVER_KEY}")
    desk = open_desk(settings, clock or SystemClock())
    try:
        key = _next_key(settings.data)
        with desk.store.write() as tx:
            done = _rotate(tx, desk, key)
            desk.checkpoint(tx)
        os.replace(settings.data / NEXT_KEY, settings.data / SERVER_KEY)
        return done
    finally:
        desk.store.close()


def _next_key(data: Path) -> SigningKey:
    """The key to come, on the disk before it is in the log."""
    path = data / NEXT_KEY
    if not path.exists():
        unfinished = data / f"{NEXT_KEY}.new"
        unfinished.unlink(missing_ok=True)
        SigningKey.generate().save(unfinished)
        os.replace(unfinished, path)
    return SigningKey.load(path)


def _rotate(tx: Tx, desk: Desk, key: SigningKey) -> ServerRotation:
    scoring = tx.requests.running_in("score")
    if scoring:
        raise TryAgainError(
            f"request {scoring[0]} is being scored and its receipts name the old key; "
            "let the server finish it first"
        )
    org, public = desk.org, key.verify_key
    added = tx.log.size()
    tx.parties.add_key(OrgKey(key.key_id, org.id, public.base64, added, None))
    objects = {"org": org.id, "key": key.key_id}
    desk.record(tx, "key.added", org, objects=objects, hashes={"public_key": public.digest})
    new = replace(org, key_id=key.key_id, public_key=public.base64)
    objects = {"org": org.id, "key": org.key_id}
    revoked = desk.record(tx, "key.revoked", new, objects=objects)
    tx.parties.revoke_key(org.key_id, revoked)
    return ServerRotation(key.key_id, added, org.key_id, revoked)
