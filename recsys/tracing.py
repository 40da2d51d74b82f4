"""Spans for OpenTelemetry, where the extra `otel` is installed and `logging.traces` is on; else nothing.

The SDK is configured by its own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME. A
span holds no id of a user, no item and no key: names, numbers and the request id alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from recsys.config import Settings
from recsys.errors import MissingExtraError

P = ParamSpec("P")
R = TypeVar("R")
_provider: Any = None  # of this process, while spans are taken


def check(settings: Settings) -> None:
    """Raises MissingExtraError where spans are asked for and cannot be taken."""
    if settings.logging.traces:
        try:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401
        except ImportError:
            raise MissingExtraError("otel", "for logging.traces") from None


def start(settings: Settings, exporter: Any = None) -> None:
    """Take spans from now on; to be called in each process, after it was forked.

    `exporter`: where they go; default by OTLP over HTTP. Raises MissingExtraError.
    """
    global _provider
    if not settings.logging.traces or _provider is not None:
        return
    check(settings)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()  # with what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "recsys"}))
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))


def stop() -> None:
    """Send what waits and take no more; happens by itself where a process ends."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def is_on() -> bool:
    """Whether spans are taken."""
    return _provider is not None


def begin_request(method: str, route: str, traceparent: str, request_id: str) -> Any:
    """A server's span, of the trace that `traceparent`, the caller's header, names; None where none is taken."""
    if _provider is None:
        return None
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {"traceparent": traceparent}
    return _provider.get_tracer("recsys").start_span(
        f"{method} {route}",
        context=TraceContextTextMapPropagator().extract(given),
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": method,
            "http.route": route,
            "recsys.request_id": request_id,
        },
    )


def end_request(span: Any, status: int) -> None:
    """The answer's status; ends the span that `begin_request` gave."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """What happens in the block, as a span of its own; an error marks it, by its kind alone."""
    if _provider is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    tracer = _provider.get_tracer("recsys")
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield
        except BaseException as error:
            opened.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def traced(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Each call of the function as a span."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with span(name):
                return function(*args, **kwargs)

        return call

    return wrap
