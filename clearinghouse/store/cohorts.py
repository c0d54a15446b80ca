"""Schemas, sources with their summaries, validation sets, and who may read which blob."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from clearinghouse.errors import ConflictError, InputError, NotFoundError
from clearinghouse.messages.intake import SealValset
from clearinghouse.store.places import places_of
from clearinghouse.store.records import SchemaRecord, Source, Summary, Valset
from clearinghouse.store.tables import (
    BlobAccessRow,
    BlobRow,
    DoomedRow,
    SchemaRow,
    SourceRow,
    SummaryRow,
    ValsetRow,
    WithdrawalRow,
)


class Cohorts:
    """Queries about declared and sealed data."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add_schema(self, schema: SchemaRecord) -> SchemaRecord:
        """Store a schema, or return the one with the same digest."""
        found = self._session.exec(
            select(SchemaRow).where(SchemaRow.digest == schema.digest)
        ).first()
        if found is not None:
            return SchemaRecord(found.id, found.digest, found.body)
        self._session.add(SchemaRow(id=schema.id, digest=schema.digest, body=schema.body))
        self._session.flush()
        return schema

    def schema(self, schema_id: str) -> SchemaRecord:
        """Return a schema.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(SchemaRow, schema_id)
        if row is None:
            raise NotFoundError(f"no schema {schema_id}")
        return SchemaRecord(row.id, row.digest, row.body)

    def add_source(self, source: Source) -> None:
        """Store a source."""
        self._session.add(
            SourceRow(
                id=source.id,
                org_id=source.org_id,
                name=source.name,
                schema_id=source.schema_id,
                size_class=source.size_class,
                rows_root=source.rows_root,
                leaves=source.leaves,
            )
        )
        self._session.flush()

    def date_source(self, source_id: str, committed: int) -> None:
        """Name the log entry, by its id, that commits a source's rows."""
        row = self._session.get(SourceRow, source_id)
        if row is None:
            raise NotFoundError(f"no source {source_id}")
        row.committed = committed
        self._session.flush()

    def source(self, source_id: str) -> Source:
        """Return a source.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(SourceRow, source_id)
        if row is None:
            raise NotFoundError(f"no source {source_id}")
        return _source(
            row,
            places_of(self._session, [row.committed])[row.committed],
            self._session.get(SummaryRow, source_id) is not None,
            self._session.get(WithdrawalRow, source_id) is not None,
        )

    def sources(
        self, schema_id: str | None = None, *, after: str = "", limit: int
    ) -> tuple[Source, ...]:
        """Return the next sources after an id, of all schemas or of one, in order of id."""
        query = select(SourceRow).where(col(SourceRow.id) > after)
        if schema_id is not None:
            query = query.where(SourceRow.schema_id == schema_id)
        rows = self._session.exec(query.order_by(SourceRow.id).limit(limit)).all()
        ids = [row.id for row in rows]
        published, withdrawn = (
            set(self._session.exec(select(column).where(column.in_(ids))))
            for column in (col(SummaryRow.source_id), col(WithdrawalRow.source_id))
        )
        found = places_of(self._session, [row.committed for row in rows])
        return tuple(
            _source(row, found[row.committed], row.id in published, row.id in withdrawn)
            for row in rows
        )

    def add_summary(self, summary: Summary) -> bool:
        """Store a source's summary; False if the identical one is there.

        Raises:
            ConflictError: Another summary of this source was published before.
        """
        row = self._session.get(SummaryRow, summary.source_id)
        if row is not None:
            if row.digest != summary.digest:
                raise ConflictError("a source publishes one summary, once; this one differs")
            return False
        self._session.add(
            SummaryRow(
                source_id=summary.source_id,
                digest=summary.digest,
                level=json.dumps(list(summary.level)),
                counts=json.dumps(list(summary.counts), separators=(",", ":")),
                epsilon_micro=summary.epsilon_micro,
            )
        )
        self._session.flush()
        return True

    def summaries(self, source_ids: Sequence[str]) -> dict[str, Summary]:
        """Return the published summaries among these sources."""
        rows = self._session.exec(
            select(SummaryRow).where(col(SummaryRow.source_id).in_(source_ids))
        )
        return {
            row.source_id: Summary(
                row.source_id,
                tuple(json.loads(row.level)),
                tuple(json.loads(row.counts)),
                row.epsilon_micro,
                row.digest,
            )
            for row in rows
        }

    def add_valset(self, valset: Valset) -> None:
        """Store a sealed validation set."""
        self._session.add(
            ValsetRow(
                id=valset.id,
                org_id=valset.org_id,
                schema_id=valset.schema_id,
                body=valset.body,
                seed=valset.seed,
                verdict=valset.verdict,
                reason=valset.reason,
            )
        )
        self._session.flush()

    def valset(self, valset_id: str) -> Valset:
        """Return a sealed validation set.

        Raises:
            NotFoundError: There is none.
        """
        row = self._valset(valset_id)
        return Valset(
            row.id,
            row.org_id,
            row.schema_id,
            row.body,
            row.seed,
            row.verdict,  # type: ignore[arg-type]
            row.reason,
        )

    def sealed(self, valset_id: str) -> SealValset:
        """Return what was said when a validation set was sealed.

        Raises:
            NotFoundError: There is none.
        """
        return SealValset.model_validate_json(self._valset(valset_id).body)

    def judge_valset(self, valset_id: str, reason: str) -> None:
        """Record what the tests of a validation set said: it passed, or why not.

        Raises:
            NotFoundError: There is none.
        """
        row = self._valset(valset_id)
        if row.verdict == "untested":
            row.verdict, row.reason = ("failed" if reason else "passed"), reason
            self._session.flush()

    def _valset(self, valset_id: str) -> ValsetRow:
        row = self._session.get(ValsetRow, valset_id)
        if row is None:
            raise NotFoundError(f"no validation set {valset_id}")
        return row


@dataclass(frozen=True, slots=True)
class Indexed:
    """A blob of the index; `seen` is roughly when it was last announced, and only grows."""

    size: int
    seen: int


class BlobIndex:
    """Sizes of blobs and who may read them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, digest: str, size: int, org_id: str) -> bool:
        """Record a stored blob and its reader; False if this organisation had it already."""
        if self._session.get(BlobRow, digest) is None:
            self._session.add(BlobRow(digest=digest, size=size))
            self._session.flush()
        doomed = self._session.get(DoomedRow, digest)
        if doomed is not None:  # the same bytes came again before they were removed
            self._session.delete(doomed)
            self._session.flush()
        return self.allow(digest, org_id)

    def allow(self, digest: str, org_id: str) -> bool:
        """Let an organisation read a blob; False if it could already."""
        if self._session.get(BlobAccessRow, (digest, org_id)) is not None:
            return False
        self._session.add(BlobAccessRow(digest=digest, org_id=org_id))
        self._session.flush()
        return True

    def touch(self, digest: str, now: float) -> None:
        """Record that a blob was announced again: it is not collected for a while."""
        row = self._session.get(BlobRow, digest)
        if row is not None:
            row.seen = max(row.seen, int(now))
            self._session.flush()

    def readable(self, digest: str, org_id: str) -> bool:
        """Whether the organisation uploaded the blob or was sent it."""
        return self._session.get(BlobAccessRow, (digest, org_id)) is not None

    def all(self) -> dict[str, Indexed]:
        """Return every blob of the index by name."""
        query = select(BlobRow.digest, BlobRow.size, BlobRow.seen)
        return {name: Indexed(size, seen) for name, size, seen in self._session.exec(query)}

    def find(self, digest: str) -> Indexed | None:
        """Return a blob as the index has it, or None."""
        row = self._session.get(BlobRow, digest)
        return None if row is None else Indexed(row.size, row.seen)

    def total(self) -> tuple[int, int]:
        """Return how many blobs there are, and their bytes."""
        count, size = self._session.exec(select(func.count(), func.sum(BlobRow.size))).one()
        return count, int(size or 0)

    def size(self, digest: str, org_id: str) -> int:
        """Return the size of a blob that `org_id` uploaded or was sent, and is about to name.

        The collector leaves alone what was named since it looked (`Indexed.seen`).

        Raises:
            InputError: There is no such blob.
        """
        row = self._session.get(BlobRow, digest)
        if row is None or not self.readable(digest, org_id):
            raise InputError(f"blob {digest} is named before it is uploaded; PUT it first")
        row.seen += 1
        self._session.flush()
        return row.size


def _source(row: SourceRow, committed: int | None, published: bool, withdrawn: bool) -> Source:
    return Source(
        row.id,
        row.org_id,
        row.name,
        row.schema_id,
        row.size_class,
        row.rows_root,
        row.leaves,
        published,
        committed,
        withdrawn,
    )
