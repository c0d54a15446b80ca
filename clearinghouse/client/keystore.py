"""A party's directory: its keys, its ledger and what it must not forget, readable by it alone."""

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage

from clearinghouse.canonical import canonical_bytes, parse_canonical
from clearinghouse.errors import InputError
from clearinghouse.signing import SigningKey

_SIGNING = "signing.pem"
_NEXT = "signing.next.pem"
_OLD = "signing.old.pem"
_AGE = "age.txt"


@dataclass(frozen=True, slots=True)
class Keystore:
    """Keys of one organisation, made here once and loaded ever after.

    Attributes:
        directory: Mode 0700.
        signing_key: Ed25519; signs requests and statements.
        age_identity: X25519; opens what is sealed to this party.
        old_key: The signing key before a rotation that is not finished, if there is one.
    """

    directory: Path
    signing_key: SigningKey
    age_identity: Any = field(repr=False)
    old_key: SigningKey | None = None

    @classmethod
    def open(cls, directory: Path) -> "Keystore":
        """Load the keys in `directory`, or make it and them.

        Raises:
            InputError: The directory is open to other users, or a key file is damaged.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) & 0o077:
            raise InputError(f"other users can read {directory}: run chmod 700 {directory}")
        signing = directory / _SIGNING
        if not signing.exists():
            SigningKey.generate().save(signing)
        age = directory / _AGE
        if not age.exists():
            _write(age, str(pyrage.x25519.Identity.generate()).encode())
        try:
            identity = pyrage.x25519.Identity.from_str(age.read_text().strip())
        except (pyrage.IdentityError, UnicodeDecodeError):
            raise InputError(f"{age} holds no age identity. Restore it from a backup") from None
        old = directory / _OLD
        old_key = SigningKey.load(old) if old.exists() else None
        return cls(directory, SigningKey.load(signing), identity, old_key)

    def reopened(self) -> "Keystore":
        """The same directory as it is now."""
        return Keystore.open(self.directory)

    @property
    def is_rotating(self) -> bool:
        """Whether a next key is made that is not in use yet."""
        return (self.directory / _NEXT).exists()

    def next_key(self) -> SigningKey:
        """The key that will replace the signing key: on the disk before anybody hears of it."""
        path = self.directory / _NEXT
        if not path.exists():
            unfinished = self.directory / f"{_NEXT}.new"
            unfinished.unlink(missing_ok=True)
            SigningKey.generate().save(unfinished)
            os.replace(unfinished, path)
            _sync(self.directory)
        return SigningKey.load(path)

    def use_next_key(self) -> None:
        """Sign with the next key from now on; the old one stays on the disk as `old_key`."""
        old = self.directory / _OLD
        old.unlink(missing_ok=True)
        os.link(self.directory / _SIGNING, old)
        os.replace(self.directory / _NEXT, self.directory / _SIGNING)
        _sync(self.directory)

    def forget_old_key(self) -> None:
        """Remove the old signing key, once nobody accepts it any more."""
        (self.directory / _OLD).unlink(missing_ok=True)
        _sync(self.directory)

    def key_named_in(self, statement: bytes) -> SigningKey:
        """The signing key that a statement names as its signer; the current one if it names none.

        Whether the statement may be signed, and by this key, is for its reader to check.
        """
        if self.old_key is not None and self.old_key.key_id.encode() in statement:
            return self.old_key
        return self.signing_key

    @property
    def age_recipient(self) -> str:
        """Where others seal records for this party to."""
        return str(self.age_identity.to_public())

    @property
    def ledger_path(self) -> Path:
        """The file of this party's epsilon ledger."""
        return self.directory / "ledger.sqlite"

    @property
    def ledger_place(self) -> Path | str:
        """Where the ledger is: its file, or the URL of the owner's database if one was named."""
        known = self.recall("ledger")
        return self.ledger_path if known is None else str(known["url"])

    @property
    def ledger_words(self) -> str:
        """The same for people: a URL without user and password."""
        place = str(self.ledger_place)
        scheme, mark, rest = place.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if mark else place

    def unseal(self, sealed: bytes) -> bytes:
        """Open an age file sealed to this party.

        Raises:
            InputError: It is not, or a byte of it was changed.
        """
        try:
            return bytes(pyrage.decrypt(sealed, [self.age_identity]))
        except pyrage.DecryptError:
            raise InputError("the sealed bytes do not open with this party's key") from None

    def path(self, name: str) -> Path:
        """A file below the directory; its folder is made if need be."""
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise InputError(f"{name!r} leads out of the party's directory")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def write(self, name: str, data: bytes) -> None:
        """Store bytes so that after a crash either the old or the new file is there, whole."""
        _write(self.path(name), data)

    def read(self, name: str) -> bytes | None:
        """The stored bytes, or None."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        """Remove stored bytes, if they are there."""
        self.path(name).unlink(missing_ok=True)

    def remember(self, name: str, value: object) -> None:
        """Store a JSON value without floats as `name`.json."""
        self.write(f"{name}.json", canonical_bytes(value))

    def recall(self, name: str) -> Any:
        """The JSON value stored as `name`.json, or None."""
        data = self.read(f"{name}.json")
        return None if data is None else parse_canonical(data)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
