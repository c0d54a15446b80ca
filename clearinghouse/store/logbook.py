"""The transparency log: entries, written in the transaction they record, and the tree over them.

On SQLite, where one transaction writes at a time, an entry gets its position and its nodes at once.
On PostgreSQL it waits in the outbox (`position IS NULL`) for the sequencer, which gives positions
to all that is committed, in the order of ids, one transaction at a time. Not "ids after the last
one": ids are given before transactions commit, so a lower one may come later.
"""

from typing import Any

from sqlalchemy import bindparam, func, insert, update
from sqlmodel import Session, SQLModel, col, select

from clearinghouse.errors import InputError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import MAX_NOTE_SIGNATURES, Checkpoint, sign_checkpoint
from clearinghouse.signing import SigningKey
from clearinghouse.store.nodes import Nodes
from clearinghouse.store.places import gives_places_at_once, place, places
from clearinghouse.store.tables import (
    CheckpointRow,
    CosignatureRow,
    EntryRow,
    NodeRow,
    WitnessRow,
)

MAX_ENTRIES = 1000
BATCH = 500
"""So many waiting entries the sequencer takes in one transaction."""

MAX_COSIGNERS = MAX_NOTE_SIGNATURES - 1

_ENTRY = SQLModel.metadata.tables[EntryRow.__tablename__]
_PLACED = (
    update(_ENTRY).where(_ENTRY.c.id == bindparam("number")).values(position=bindparam("place"))
)


class Logbook:
    """Queries about the log.

    Attributes:
        signed: The checkpoint that this transaction signed, if it did.
        last_waiting: Id of the last entry of this transaction that waits for the sequencer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._nodes = Nodes(session)
        self.is_sequenced_at_once = gives_places_at_once(session)
        self.signed: str | None = None
        self.last_waiting: int | None = None

    def append(self, body: bytes) -> int:
        """Add an entry and return its id; it is there exactly if the transaction commits."""
        if self.is_sequenced_at_once:
            position = self._nodes.extend([body])
            row = {"id": position, "body": body, "position": position}
            self._session.execute(insert(_ENTRY).values(row))
            return position
        written = insert(_ENTRY).values(body=body).returning(_ENTRY.c.id)
        self.last_waiting = int(self._session.execute(written).scalar_one())
        return self.last_waiting

    def sequence(self) -> tuple[int, ...]:
        """Give the next positions to entries that wait, up to `BATCH`, and return their ids.

        Only in a transaction of `Store.sequence`, which nobody else has at the same time.
        """
        waiting = self._session.exec(self._waiting().limit(BATCH)).all()
        if not waiting:
            return ()
        first = self._nodes.extend([body for _, body in waiting])
        placed = [{"number": number, "place": at} for at, (number, _) in enumerate(waiting, first)]
        self._session.connection().execute(_PLACED, placed)
        return tuple(number for number, _ in waiting)

    def _waiting(self) -> Any:
        """The query for entries that wait, in the order in which they are taken."""
        query = select(EntryRow.id, EntryRow.body).where(col(EntryRow.position).is_(None))
        return query.order_by(col(EntryRow.id))

    def place(self, entry_id: int) -> int | None:
        """Return the index of an entry; None while it waits for the sequencer."""
        return place(self._session, entry_id)

    def places(self) -> dict[int, int]:
        """Return the index of every entry by id; those that wait follow in the order of ids."""
        return places(self._session)

    def waiting(self) -> int:
        """Return how many entries wait for the sequencer."""
        query = select(func.count()).where(col(EntryRow.position).is_(None))
        return self._session.exec(query).one()

    def first_waiting(self) -> bytes | None:
        """Return the entry that waits for the sequencer longest."""
        query = select(EntryRow.body).where(col(EntryRow.position).is_(None))
        return self._session.exec(query.order_by(col(EntryRow.id)).limit(1)).first()

    def size(self) -> int:
        """Return the number of entries that have their position."""
        return self._nodes.size()

    def entries(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return up to `limit` entries from index `start` on."""
        query = (
            select(EntryRow.body)
            .where(col(EntryRow.position) >= start)
            .order_by(col(EntryRow.position))
            .limit(min(limit, MAX_ENTRIES))
        )
        return tuple(self._session.exec(query))

    def hashes(self, level: int, start: int, n: int) -> tuple[bytes, ...]:
        """Return `n` hashes of whole subtrees of 2^level entries, from the `start`-th on."""
        query = (
            select(NodeRow.hash)
            .where(NodeRow.level == level, col(NodeRow.position) >= start)
            .order_by(col(NodeRow.position))
            .limit(n)
        )
        return tuple(self._session.exec(query))

    def proof(self, index: int, size: int) -> list[bytes]:
        """Return the audit path of an entry in the tree of `size`.

        Raises:
            InputError: There is no such entry in a tree of that size.
        """
        try:
            return self._nodes.planned(lambda tree: merkle.inclusion_proof(tree, index, size))
        except ValueError as error:
            raise InputError(f"no such proof: {error}") from None

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Return the proof that the tree of `new_size` extends that of `old_size`.

        Raises:
            InputError: The log has no such sizes.
        """
        try:
            return self._nodes.planned(
                lambda tree: merkle.consistency_proof(tree, old_size, new_size)
            )
        except ValueError as error:
            raise InputError(f"no such proof: {error}") from None

    def stored_checkpoint(self) -> str | None:
        """Return the signed head of the whole tree, if it was signed already."""
        row = self._session.get(CheckpointRow, self.size())
        return None if row is None else row.note

    def checkpoint(self, origin: str, key: SigningKey) -> str:
        """Return the signed head of the tree as this transaction sees it, signing it if new."""
        stored = self.stored_checkpoint()
        if stored is not None:
            return stored
        size = self.size()
        note = sign_checkpoint(Checkpoint(origin, size, self.root(size)), key)
        self._session.add(CheckpointRow(size=size, note=note))
        self._session.flush()
        self.signed = note
        return note

    def last_checkpoint(self) -> str | None:
        """Return the newest signed head, of the whole tree or of an earlier one."""
        newest = select(CheckpointRow.note).order_by(col(CheckpointRow.size).desc()).limit(1)
        return self._session.exec(newest).first()

    def signed_size(self) -> int:
        """Return how many entries the newest signed head covers."""
        return self._session.exec(select(func.max(CheckpointRow.size))).one() or 0

    def checkpoint_of(self, size: int) -> str | None:
        """Return the signed head of the tree of this size, if it was ever signed."""
        row = self._session.get(CheckpointRow, size)
        return None if row is None else row.note

    # ------------------------------------------------------------ witnesses

    def witness_of(self, org_id: str) -> str | None:
        """Return the verifier key of an organisation's witness."""
        query = select(WitnessRow.vkey).where(WitnessRow.org_id == org_id)
        return self._session.exec(query).first()

    def knows_witness(self, vkey: str) -> bool:
        """Whether cosignatures by this key are kept."""
        return self._session.get(WitnessRow, vkey) is not None

    def add_witness(self, vkey: str, org_id: str | None) -> None:
        """Keep cosignatures by this key from now on; one key for each organisation."""
        self._session.add(WitnessRow(vkey=vkey, org_id=org_id))
        self._session.flush()

    def cosign(self, size: int, vkey: str, line: str) -> None:
        """Keep a cosignature of the checkpoint of this size; the first by a witness stays."""
        if self._session.get(CosignatureRow, (size, vkey)) is None:
            self._session.add(CosignatureRow(size=size, vkey=vkey, line=line))
            self._session.flush()

    def cosigners(self, size: int) -> tuple[str, ...]:
        """Return the verifier keys of those who cosigned the checkpoint of this size.

        No more than a note has room for; that many are more than any quorum.
        """
        query = select(CosignatureRow.vkey).where(CosignatureRow.size == size)
        query = query.order_by(col(CosignatureRow.vkey)).limit(MAX_COSIGNERS)
        return tuple(self._session.exec(query))

    def cosigned(self, size: int) -> str:
        """Return the checkpoint of this size with the cosignatures of its `cosigners`."""
        note = self.checkpoint_of(size)
        if note is None:
            raise InputError(f"no checkpoint of {size} entries was signed")
        query = select(CosignatureRow.line).where(CosignatureRow.size == size)
        query = query.order_by(col(CosignatureRow.vkey)).limit(MAX_COSIGNERS)
        return note + "".join(self._session.exec(query))

    def cosigned_sizes(self, least: int, limit: int) -> tuple[int, ...]:
        """Return sizes of at least `least` whose checkpoint has a cosignature, newest first."""
        query = (
            select(CosignatureRow.size)
            .where(col(CosignatureRow.size) >= least)
            .distinct()
            .order_by(col(CosignatureRow.size).desc())
            .limit(limit)
        )
        return tuple(self._session.exec(query))

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` entries.

        Raises:
            InputError: The log is shorter.
        """
        try:
            return self._nodes.planned(lambda tree: merkle.root(tree, size))
        except ValueError as error:
            raise InputError(f"no such root: {error}") from None
