"""OpenTelemetry spans, if the operator switched them on; without it, nothing.

The extra `[otel]` brings the packages, `CLEARINGHOUSE_OTEL=1` switches it on, and the exporter
reads its own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`...). Spans carry ids, steps and kinds of
jobs, never values. A span's children may be made by another process: the trace travels in the
cause.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from clearinghouse.cause import because, current
from clearinghouse.errors import InputError

_tracers: list[Any] = []


def trace_with(provider: Any) -> None:
    """Make spans with an OpenTelemetry TracerProvider from now on; None ends it."""
    _tracers[:] = [] if provider is None else [provider.get_tracer("clearinghouse")]


def trace_to_collector(service: str) -> None:
    """Send spans to the collector that the exporter's own variables name.

    Raises:
        InputError: The extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(
            "CLEARINGHOUSE_OTEL=1 needs the extra: pip install 'eval-clearinghouse[otel]'"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace_with(provider)


@contextmanager
def span(name: str, **ids: str | int) -> Iterator[Callable[[str, str | int], None]]:
    """A span under the one that led here, in this process or another.

    Yields:
        A function that adds an attribute which is known only later.
    """
    if not _tracers:
        yield lambda _name, _value: None
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = TraceContextTextMapPropagator()
    parent = carrier.extract({"traceparent": current().trace})
    attributes = {f"clearinghouse.{key}": value for key, value in ids.items()}
    if current().call:
        attributes["clearinghouse.call"] = current().call
    with _tracers[0].start_as_current_span(name, context=parent, attributes=attributes) as made:
        told: dict[str, str] = {}
        carrier.inject(told)
        with because(replace(current(), trace=told["traceparent"])):
            yield lambda key, value: made.set_attribute(f"clearinghouse.{key}", value)
