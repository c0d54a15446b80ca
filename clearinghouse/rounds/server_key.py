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
            _rotate(tx, desk, key)
        os.replace(settings.data / NEXT_KEY, settings.data / SERVER_KEY)
        desk.head()
        return _done(desk, key.key_id, desk.key.key_id)
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


def _done(desk: Desk, key_id: str, old_key_id: str) -> ServerRotation:
    with desk.store.read() as tx:
        new, old = tx.parties.key(key_id), tx.parties.key(old_key_id)
    if new is None or old is None or new.added is None or old.revoked is None:
        raise TryAgainError("the key is changed; its log entries wait for the sequencer")
    return ServerRotation(key_id, new.added, old_key_id, old.revoked)


def _rotate(tx: Tx, desk: Desk, key: SigningKey) -> None:
    scoring = tx.requests.running_in("score")
    if scoring:
        raise TryAgainError(
            f"request {scoring[0]} is being scored and its receipts name the old key; "
            "let the server finish it first"
        )
    org, public = desk.org, key.verify_key
    tx.parties.add_key(org.id, key.key_id, public.base64)
    objects = {"org": org.id, "key": key.key_id}
    added = desk.record(tx, "key.added", org, objects=objects, hashes={"public_key": public.digest})
    tx.parties.date_key(key.key_id, added)
    new = replace(org, key_id=key.key_id, public_key=public.base64)
    objects = {"org": org.id, "key": org.key_id}
    revoked = desk.record(tx, "key.revoked", new, objects=objects)
    tx.parties.revoke_key(org.key_id, revoked)
