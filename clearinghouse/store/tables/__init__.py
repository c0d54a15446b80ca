"""Every table, by what it is about; `base` says what they share."""

from sqlalchemy import BigInteger, Integer
from sqlmodel import AutoString, SQLModel

from clearinghouse.store import conservation
from clearinghouse.store.tables.base import SCHEMA_VERSION, TEXT, MetaRow
from clearinghouse.store.tables.cohorts import (
    BlobAccessRow,
    BlobRow,
    PartialRow,
    SchemaRow,
    SourceRow,
    SummaryRow,
    UploadRow,
    ValsetRow,
)
from clearinghouse.store.tables.consent import (
    DoomedRow,
    GrantRow,
    SaltRow,
    StaleRow,
    UseRow,
    WithdrawalRow,
)
from clearinghouse.store.tables.disputes import DisputeRow, OutcomeRow, PriceRow
from clearinghouse.store.tables.identity import (
    ApiKeyRow,
    NonceRow,
    OrgKeyRow,
    OrgRow,
    PersonRow,
    ReplyRow,
    SessionRow,
)
from clearinghouse.store.tables.jobs import JobRow, WorkerRow
from clearinghouse.store.tables.ledger import AccountRow, PostingRow, TransferRow, ZeroRow
from clearinghouse.store.tables.logbook import (
    CheckpointRow,
    CosignatureRow,
    EntryRow,
    NodeRow,
    ReceiptRow,
    ReleaseRow,
    WitnessRow,
)
from clearinghouse.store.tables.market import (
    AskRow,
    DocumentRow,
    MessageRow,
    OrderRow,
    PartyRow,
    RequestRow,
    RunRow,
    StepRow,
    TaskRow,
)

__all__ = [
    "SCHEMA_VERSION",
    "TEXT",
    "AccountRow",
    "ApiKeyRow",
    "AskRow",
    "BlobAccessRow",
    "BlobRow",
    "CheckpointRow",
    "CosignatureRow",
    "DisputeRow",
    "DocumentRow",
    "DoomedRow",
    "EntryRow",
    "GrantRow",
    "JobRow",
    "MessageRow",
    "MetaRow",
    "NodeRow",
    "NonceRow",
    "OrderRow",
    "OrgKeyRow",
    "OrgRow",
    "OutcomeRow",
    "PartialRow",
    "PartyRow",
    "PersonRow",
    "PostingRow",
    "PriceRow",
    "ReceiptRow",
    "ReleaseRow",
    "ReplyRow",
    "RequestRow",
    "RunRow",
    "SaltRow",
    "SchemaRow",
    "SessionRow",
    "SourceRow",
    "StaleRow",
    "StepRow",
    "SummaryRow",
    "TaskRow",
    "TransferRow",
    "UploadRow",
    "UseRow",
    "ValsetRow",
    "WithdrawalRow",
    "WitnessRow",
    "WorkerRow",
    "ZeroRow",
]


conservation.attach(SQLModel.metadata.tables["zero"], SQLModel.metadata.tables["posting"])

for _table in SQLModel.metadata.tables.values():
    for _column in _table.columns:
        if isinstance(_column.type, AutoString):
            _column.type = TEXT
        elif isinstance(_column.type, Integer):
            _column.type = BigInteger()
