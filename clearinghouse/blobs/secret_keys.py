"""Secret keys among bytes that should become a blob: refused before they are stored.

A key file and what stays on one machine begin with a frame of their own. Objects of SEAL begin with
its header, alone, inside TenSEAL's contexts (a message whose first field is SEAL's parameters and
whose third is the secret key) and inside whatever holds those, compressed by SEAL or not. No blob
of the market holds such an object, public ones travel in our own frames, so its header is refused
anywhere. A whole file that was compressed can hide anything, and none is needed.
"""

import re

from clearinghouse.errors import InputError

__all__ = ["HEAD_BYTES", "OVERLAP", "SecretWatch", "check_bytes", "check_head", "looks_secret"]

HEAD_BYTES = 256
"""So many first bytes are looked at for what a secret begins with."""

OVERLAP = 63
"""So many bytes before a chunk are looked at with it: a sign may lie across its border."""

_FRAME_VERSION = 1
_SECRET_FRAMES = frozenset({12, 13, 14})  # key file, and the two states that stay on one machine
_SEAL_MAGIC = b"\x5e\xa1"
_SEAL_HEADER = re.compile(
    rb"\x5e\xa1\x10[\x03-\x05][\x00-\x1f][\x00-\x02]\x00\x00.{5}\x00\x00\x00", re.DOTALL
)
"""Magic, header size, version, compression, reserved, and a size below 2^40. Some 80 bits are
given, so no terabyte of ciphertext holds one by chance."""
_SEAL_START = b"\x5e\xa1\x10"
_SECRET_TEXTS = (b"AGE-SECRET-KEY-1", b"PRIVATE KEY-----")
_COMPRESSED = (
    b"\x1f\x8b\x08",  # gzip
    b"\x28\xb5\x2f\xfd",  # zstd
    b"\xfd7zXZ\x00",
    b"BZh",
    b"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c",
)


def looks_secret(data: bytes) -> bool:
    """Whether a blob, or its first bytes, are or hold a secret key."""
    framed = data[:1] == bytes([_FRAME_VERSION]) and data[1:2] != b""
    if framed and data[1] in _SECRET_FRAMES and data[2:3] != b"":
        return True
    return data.startswith(_SEAL_MAGIC) or _holds_secret(data)


def _holds_secret(window: bytes) -> bool:
    """Whether bytes from anywhere in a blob show a secret key."""
    if any(text in window for text in _SECRET_TEXTS):
        return True
    return _SEAL_START in window and _SEAL_HEADER.search(window) is not None


def check_head(head: bytes) -> None:
    """Refuse the first bytes of a secret key, or of a compressed file.

    Raises:
        InputError: They look like one.
    """
    if looks_secret(head):
        raise _refused()
    if head.startswith(_COMPRESSED):
        raise InputError(
            "this is a compressed file; it was not stored. Nothing that the market takes is one: "
            "send what `valset seal`, `model submit` or `source deliver` wrote"
        )


def check_bytes(window: bytes) -> None:
    """Refuse bytes from anywhere in a blob, with `OVERLAP` bytes before them, that show a key.

    Raises:
        InputError: They do.
    """
    if _holds_secret(window):
        raise _refused()


def _refused() -> InputError:
    return InputError(
        "this looks like a secret key; it was not stored. Keep keys on your machine "
        "and send only what `valset seal` or `source deliver` wrote"
    )


class SecretWatch:
    """Looks at all bytes of a blob as they come."""

    def __init__(self) -> None:
        self._head, self._tail = b"", b""

    def see(self, chunk: bytes) -> None:
        """Look at the next bytes.

        Raises:
            InputError: They show a secret key, or the blob begins like a compressed file.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[:HEAD_BYTES]
            check_head(self._head)
        window = self._tail + chunk
        check_bytes(window)
        self._tail = window[-OVERLAP:]
