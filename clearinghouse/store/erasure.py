"""What must be forgotten: salts, bodies, answers, blobs. The log's commitments stay."""

import json
from collections.abc import Collection, Sequence

from sqlalchemy import update
from sqlmodel import Session, col, delete, func, select

from clearinghouse.store.tables import (
    AskRow,
    BlobAccessRow,
    BlobRow,
    DoomedRow,
    OrderRow,
    ReplyRow,
    RequestRow,
    SaltRow,
    StaleRow,
    StepRow,
    SummaryRow,
    TaskRow,
    UseRow,
    ValsetRow,
    WithdrawalRow,
)


class Erasure:
    """Deletes, and remembers what is still to be removed from the disk."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # ------------------------------------------------------------ salts

    def keep_salt(self, object_id: str, salt: bytes) -> None:
        """Store the salt of an object's commitment in the log."""
        self._session.merge(SaltRow(object_id=object_id, salt=salt.hex()))
        self._session.flush()

    def salt(self, object_id: str) -> bytes | None:
        """Return a salt, unless it was erased."""
        row = self._session.get(SaltRow, object_id)
        return None if row is None else bytes.fromhex(row.salt)

    # ------------------------------------------------------------ a source

    def forget_source(self, source_id: str, org_id: str) -> None:
        """Delete a source's summary and salts, and the stored answers that its owner got for it."""
        self._session.execute(delete(SummaryRow).where(col(SummaryRow.source_id) == source_id))
        self._session.execute(delete(SaltRow).where(col(SaltRow.object_id) == source_id))
        self._session.execute(
            delete(ReplyRow).where(
                col(ReplyRow.org_id) == org_id, col(ReplyRow.body).contains(source_id)
            )
        )
        self._session.execute(
            update(AskRow).where(col(AskRow.source_id) == source_id).values(salt=None)
        )
        self._session.flush()
        self._session.expire_all()

    def forget_answers(self, request_id: str, subjects: Collection[str]) -> None:
        """Delete a provider's answers about a source or its orders; such tasks end."""
        query = select(TaskRow).where(
            TaskRow.request_id == request_id,
            col(TaskRow.subject).in_(subjects),
            col(TaskRow.kind).in_(("ask.commit", "ask.reveal", "deliver", "show")),
        )
        for row in self._session.exec(query):
            row.state = "void" if row.state in ("open", "answered") else row.state
            row.answer = None
        self._session.flush()

    def drop_tasks(self, request_id: str, kind: str, subject: str = "") -> None:
        """Delete the tasks of a kind, or those about a subject, so that they are asked anew."""
        chosen = delete(TaskRow).where(
            col(TaskRow.request_id) == request_id, col(TaskRow.kind) == kind
        )
        if subject:
            chosen = chosen.where(col(TaskRow.subject) == subject)
        self._session.execute(chosen)
        self._session.flush()
        self._session.expire_all()

    def erased(self, source_id: str, now: int) -> None:
        """Record that nothing of a withdrawn source is left."""
        row = self._session.get(WithdrawalRow, source_id)
        if row is not None:
            row.erased = now
            self._session.flush()

    def unerased(self) -> tuple[str, ...]:
        """Return the withdrawn sources whose bodies may still be on the disk."""
        query = select(WithdrawalRow.source_id).where(col(WithdrawalRow.erased).is_(None))
        return tuple(sorted(self._session.exec(query)))

    # ------------------------------------------------------------ blobs

    def close_blob(self, digest: str, org_id: str) -> None:
        """Let an organisation read a blob no more."""
        self._session.execute(
            delete(BlobAccessRow).where(
                col(BlobAccessRow.digest) == digest, col(BlobAccessRow.org_id) == org_id
            )
        )
        self._session.flush()
        self._session.expire_all()

    def doom(self, digests: Sequence[str]) -> int:
        """Take blobs out of the index and have them removed from the disk; how many there were."""
        known = self._session.exec(select(BlobRow.digest).where(col(BlobRow.digest).in_(digests)))
        found = sorted(set(known))
        self._session.execute(delete(BlobAccessRow).where(col(BlobAccessRow.digest).in_(found)))
        self._session.execute(delete(BlobRow).where(col(BlobRow.digest).in_(found)))
        for digest in found:
            self._session.merge(DoomedRow(digest=digest))
        self._session.flush()
        self._session.expire_all()
        return len(found)

    def doomed(self) -> tuple[str, ...]:
        """Return the blobs that are to be removed."""
        return tuple(sorted(self._session.exec(select(DoomedRow.digest))))

    def is_doomed(self, digest: str) -> bool:
        """Whether a blob is still to be removed: the same bytes may have come again."""
        return self._session.get(DoomedRow, digest) is not None

    def removed(self, digests: Sequence[str]) -> None:
        """Record that blobs are gone from the disk."""
        self._session.execute(delete(DoomedRow).where(col(DoomedRow.digest).in_(digests)))
        self._session.flush()

    def delivered_blobs(self, order_ids: Collection[str]) -> tuple[str, ...]:
        """Return sealed bodies and proofs that came for these orders."""
        sealed = select(OrderRow.sealed_blob).where(col(OrderRow.id).in_(order_ids))
        found = {digest for digest in self._session.exec(sealed) if digest is not None}
        passed = select(UseRow.blob).where(
            col(UseRow.order_id).in_(order_ids), UseRow.act == "passed", UseRow.blob != ""
        )
        found.update(self._session.exec(passed))
        tasks = select(TaskRow.answer).where(
            TaskRow.kind == "deliver", col(TaskRow.subject).in_(order_ids)
        )
        for text in self._session.exec(tasks):
            found.update(_blobs(text))
        return tuple(sorted(found))

    def shown_blobs(self, request_id: str, source_id: str) -> tuple[str, ...]:
        """Return the sealed tags of rows that a source showed in a request."""
        tasks = select(TaskRow.answer).where(
            TaskRow.request_id == request_id, TaskRow.kind == "show", TaskRow.subject == source_id
        )
        return tuple(sorted({name for text in self._session.exec(tasks) for name in _blobs(text)}))

    # ------------------------------------------------------------ what must be computed again

    def mark_stale(self, request_id: str) -> None:
        """Have a settled request's indicative prices computed again."""
        self._session.merge(StaleRow(request_id=request_id))
        self._session.flush()

    def stale(self) -> tuple[str, ...]:
        """Return the requests whose prices are to be computed again."""
        return tuple(sorted(self._session.exec(select(StaleRow.request_id))))

    def fresh(self, request_id: str) -> None:
        """Record that it was done."""
        self._session.execute(delete(StaleRow).where(col(StaleRow.request_id) == request_id))
        self._session.flush()

    # ------------------------------------------------------------ retention

    def finished_before(self, moment: float) -> tuple[str, ...]:
        """Return the requests that ended before a moment, in order of id."""
        ended = func.max(StepRow.finished)
        query = (
            select(RequestRow.id)
            .join(StepRow, col(StepRow.request_id) == col(RequestRow.id))
            .where(RequestRow.state != "running")
            .group_by(col(RequestRow.id))
            .having(ended < moment)
            .order_by(RequestRow.id)
        )
        return tuple(self._session.exec(query))

    def sealed_blobs_in_use(self) -> frozenset[str]:
        """Return the ciphertexts of validation sets: other requests may need them again."""
        found: set[str] = set()
        for text in self._session.exec(select(ValsetRow.body)):
            body = json.loads(text)
            found |= {str(body["keys_blob"]), *map(str, body["upload_blobs"])}
        return frozenset(found)


def _blobs(answer: str | None) -> set[str]:
    """The hashes of blobs that a stored answer names."""
    if answer is None:
        return set()
    content = json.loads(answer)
    return {str(value) for name, value in content.items() if name.endswith("_blob")}
