"""One entry's proof in the C2SP tlog-proof text format (c2sp.org/tlog-proof, version 1).

The optional `extra` line is refused: nothing would authenticate it.
"""

import re
from dataclasses import dataclass

from clearinghouse.errors import VerificationError
from clearinghouse.log.checkpoint import SignedCheckpoint, parse_note
from clearinghouse.log.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from clearinghouse.signing import b64decode_strict, b64encode

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})")
_MAX_PATH = 64


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry is, the path to the root, and the signed root."""

    index: int
    path: tuple[bytes, ...]
    signed: SignedCheckpoint

    @property
    def text(self) -> str:
        """The proof as a text that stands alone."""
        path = "".join(f"{b64encode(item)}\n" for item in self.path)
        return f"{_FIRST_LINE}\nindex {self.index}\n{path}\n{self.signed.text}"

    def verify_entry(self, entry: bytes) -> None:
        """Check that `entry` is the one at `index` in the checkpoint's tree.

        The checkpoint's signatures are the caller's to check.

        Raises:
            VerificationError: It is not.
        """
        head = self.signed.checkpoint
        verify_inclusion(leaf_hash(entry), self.index, head.size, self.path, head.root)


def parse_proof(data: bytes) -> LogProof:
    """Read a proof in its exact form.

    Raises:
        VerificationError: The form is not exact.
    """
    head, separator, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise VerificationError("a proof's head is ASCII text") from None
    if not separator or len(lines) < 2 or lines[0] != _FIRST_LINE:
        raise VerificationError(f"a proof starts with {_FIRST_LINE} and an index line")
    index = _INDEX.fullmatch(lines[1])
    if index is None or len(lines) - 2 > _MAX_PATH:
        raise VerificationError("a proof has an index line and at most 64 hashes")
    path = tuple(b64decode_strict(line) for line in lines[2:])
    if any(len(item) != HASH_BYTES for item in path):
        raise VerificationError(f"a proof's hashes have {HASH_BYTES} bytes")
    return LogProof(int(index[1]), path, parse_note(note))
