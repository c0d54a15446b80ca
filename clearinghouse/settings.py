"""What an operator may choose. Read once, at an entry point, and passed on as a value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from clearinghouse.blobs.place import BlobPlace
from clearinghouse.errors import InputError

MEBIBYTE = 2**20


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server process.

    Attributes:
        data: Folder of the database, the blobs and the server's keys; made at first start.
        database_url: Another SQLAlchemy URL (PostgreSQL); SQLite inside `data` when empty.
        origin: Name of the transparency log: printable ASCII without space or plus.
        name: The server's own name, as people read it.
        public_url: Scheme and host that callers address and sign, when a proxy stands in front.
        sequencer: On PostgreSQL: this process gives log entries their positions and signs the log's
            heads; if not, `clearinghouse sequencer` must run, and it alone has the log's key.
        sequencer_wait_s: So long an act waits for a sequencer elsewhere before it is answered all
            the same; thirty times as long a start waits for the first one.
        in_process: Run homomorphic jobs in this process; for quick tests, never in production,
            because hostile ciphertexts can end the process that parses them.
        workers: Jobs at work at once, each in a process of its own; 0 leaves them all to
            `clearinghouse worker` on this machine or others.
        lease_s: Seconds without a heartbeat after which a worker's job is given to another.
        job_attempts: How often a job is tried whose process or worker dies.
        job_deadline_s: Seconds after which a job fails that nobody has finished.
        drain_s: Seconds that a worker which is told to stop gives its jobs to end.
        disk_reserve_bytes: Free bytes of the data folder's disk that no blob may take: they are
            for the database and the log. Uploads answer 507 before they would.
        otel: Send OpenTelemetry spans (needs the extra `[otel]` and its own variables).
        worker_wall_s: Seconds a homomorphic job may take before its process is ended.
        worker_memory_bytes: Address space of each worker process.
        block_processes: Processes that share the blocks of one run, or those of its classes; each
            has `worker_memory_bytes`, and they start with the first run that has more than one.
        blob_bytes: Largest blob.
        blob_url: `s3://bucket/prefix`, if blobs shall lie in a bucket and not in `data`.
        body_bytes: Largest JSON body; summaries may have `summary_bytes`.
        summary_bytes: Largest body of a summary.
        owner_epsilon_micro: Quota: no request is opened that could bring its owner, over all of its
            data, beyond so many millionths of epsilon; 0 leaves it to the owners' own ledgers.
        reads_per_s: Reads an organisation may make in a second, in each process.
        writes_per_s: Signed writes, likewise.
        key_reads_per_s: Reads with one API key, likewise.
        inflight_bytes: Bytes an organisation may be uploading at once, in each process; and so many
            may its unfinished uploads announce, over all processes.
        partial_bytes: Bytes that all unfinished uploads together may announce.
        partial_hours: So long after its last piece an unfinished upload is forgotten.
        stored_bytes: Bytes of uploads an organisation may have stored; exact.
        open_requests: Requests an organisation may have running; exact.
        stall_s: Seconds after which a connection that sends or takes nothing is ended.
        oidc_issuer: Address of the OpenID provider whose people the console lets in; off if empty.
        oidc_client_id: The client id that the provider gave this server.
        oidc_secret: File of the client secret; None for a public client.
        console_operators: Addresses of the operator's own people, with commas between them.
        idle_s: How often the advancing thread looks for expired tasks and others' work.
        keep_ciphertexts_days: So long the ciphertexts of a finished request stay; its validation
            set stays longer. Audits and disputes need them.
        keep_deliveries_days: So long its sealed deliveries stay.
        garbage_hours: So often blobs that nothing names are collected; 0 for never.
        garbage_grace_hours: So old they must be.
        witnesses: Verifier keys of witnesses from outside, separated by commas or spaces.
        record_bodies: Folder for every HTTP body, for privacy tests only; None writes nothing.
    """

    data: Path
    database_url: str = ""
    origin: str = "clearinghouse.local"
    name: str = "clearinghouse"
    public_url: str = ""
    sequencer: bool = True
    sequencer_wait_s: float = 2.0
    in_process: bool = False
    workers: int = field(default_factory=cores)
    lease_s: float = 20.0
    job_attempts: int = 3
    job_deadline_s: int = 86_400
    drain_s: float = 60.0
    disk_reserve_bytes: int = 256 * MEBIBYTE
    otel: bool = False
    worker_wall_s: int = 900
    worker_memory_bytes: int = 6 * 1024 * MEBIBYTE
    block_processes: int = field(default_factory=lambda: min(cores(), 4))
    blob_bytes: int = 512 * MEBIBYTE
    blob_url: str = ""
    body_bytes: int = MEBIBYTE
    summary_bytes: int = 16 * MEBIBYTE
    owner_epsilon_micro: int = 0
    reads_per_s: int = 200
    writes_per_s: int = 100
    key_reads_per_s: int = 50
    inflight_bytes: int = 2048 * MEBIBYTE
    partial_bytes: int = 64 * 1024 * MEBIBYTE
    partial_hours: int = 24
    stored_bytes: int = 256 * 1024 * MEBIBYTE
    open_requests: int = 100
    stall_s: int = 30
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_secret: Path | None = None
    console_operators: str = ""
    idle_s: float = 0.5
    keep_ciphertexts_days: int = 180
    keep_deliveries_days: int = 90
    garbage_hours: int = 24
    garbage_grace_hours: int = 48
    witnesses: str = ""
    record_bodies: Path | None = None

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data / 'clearinghouse.db'}"

    @property
    def blob_place(self) -> BlobPlace:
        """Where blobs are."""
        folder = self.data / "blobs"
        return BlobPlace(folder, self.blob_bytes, self.disk_reserve_bytes, self.blob_url)

    @property
    def witness_keys(self) -> frozenset[str]:
        """The verifier keys of `witnesses`."""
        return frozenset(self.witnesses.replace(",", " ").split())

    @property
    def published(self) -> Path:
        """File of the last published checkpoint: beside `data`, so that no restore replaces it."""
        data = self.data.resolve()
        return data.with_name(f"{data.name}.checkpoint")


def settings_from_environment(data: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Take `CLEARINGHOUSE_<NAME>` for each setting that is present, defaults for the others.

    Raises:
        InputError: A variable is not of its setting's type.
    """
    found = Settings(data=data)
    for item in fields(Settings):
        text = environment.get(f"CLEARINGHOUSE_{item.name.upper()}")
        if text is not None:
            found = replace(found, **{item.name: _read(item.name, getattr(found, item.name), text)})
    return found


def _read(name: str, default: object, text: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"0": False, "1": True}[text]
        if isinstance(default, int | float):
            return type(default)(text)
    except (KeyError, ValueError):
        kind = "0 or 1" if isinstance(default, bool) else "a number"
        raise InputError(f"CLEARINGHOUSE_{name.upper()} must be {kind}, not '{text}'") from None
    return text if isinstance(default, str) else Path(text)
