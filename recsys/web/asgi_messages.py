"""What goes between an ASGI server and the application: requests, answers, refusals."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

Message = MutableMapping[str, Any]  # of ASGI: a scope, or what is received and sent

RETRY_SECONDS = 1


@dataclass(frozen=True)
class Answer:
    """A response, ready to be sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes
    parts: Iterator[bytes] | None = None  # in place of `content`: made as they are sent


def path_of(scope: Message) -> str:
    """The path as WSGI has it: percent signs undone, a character a byte."""
    return unquote_to_bytes(scope["raw_path"]).decode("latin-1")


def environ_of(scope: Message, body: bytes) -> dict[str, Any]:
    """The WSGI environment (PEP 3333) of an ASGI request, with the target as sent in RAW_URI.

    A header whose name has an underscore is left out: it would be taken for one with a hyphen, that a
    proxy sets.
    """
    raw_path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path_of(scope),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": (raw_path + b"?" + query if query else raw_path).decode("latin-1"),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        if name == "TRANSFER_ENCODING":  # Undone by now: the length is known.
            environ["CONTENT_LENGTH"] = str(len(body))
            continue
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        if name in environ:
            value = f"{environ[name]}{'; ' if name == 'HTTP_COOKIE' else ','}{value}"
        environ[name] = value
    return environ


def refusal(status: int, detail: str) -> Answer:
    """A problem document (RFC 9457) that the application was not asked for."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [],
        "request_id": "",
    }
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    return Answer(status, headers, orjson.dumps(problem))
