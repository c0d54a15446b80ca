"""Spans of a worker on another machine: sent to a collector, under the call that led to the job."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jobs
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.cause import Cause, because
from clearinghouse.store.store import Store

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Any]:
    """An OpenTelemetry collector on loopback: what it was sent, and its address."""
    sent: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield sent, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_trust_traces_a_workers_span_belongs_to_the_call(
    collector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, address = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    url = f"sqlite:///{tmp_path / 'clearinghouse.db'}"
    store = Store(url)
    wanted = jobs.proofs(DiskStore(tmp_path / "blobs", max_bytes=2**24))
    with because(Cause("call-17", f"00-{TRACE}-{PARENT}-01")):
        job = jobs.add_job(store, jobs.add_request(store), replace(wanted, deadline_s=10**10), 0.0)
    with jobs.WorkerCommand(tmp_path, url, otel=1, job_deadline_s=10**10) as worker:
        worker.ready()
        jobs.wait_for(lambda: jobs.get_job(store, job.id).state == "done")
        worker.process.terminate()  # what was not sent yet is sent at the end
        assert worker.process.wait(timeout=60) == 0
    store.close()
    resources = [resource for request in sent for resource in request.resource_spans]
    spans = [s for resource in resources for scope in resource.scope_spans for s in scope.spans]
    (span,) = (span for span in spans if span.name == "job rows.prove")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {item.key: item.value.string_value for item in span.attributes}
    assert attributes["clearinghouse.call"] == "call-17"
    assert attributes["clearinghouse.job"] == job.id
    names = {item.value.string_value for r in resources for item in r.resource.attributes}
    assert "clearinghouse-worker" in names
    assert wanted.arguments not in str(sent)
