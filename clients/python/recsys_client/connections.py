"""Requests over kept connections: one at a time for each, as many as there are requests at once."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlencode, urlsplit

from recsys_client.calls import Call
from recsys_client.client_errors import RecsysError

MAX_IDLE = 16  # connections that are kept


class Connections:
    """One service and one key. May be used from any thread."""

    def __init__(self, url: str, key: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url = {url!r}: expected such as https://recommendations.example")
        if not key:
            raise ValueError("key: expected an API key")
        self._url = url.rstrip("/")
        self._host, self._port = parts.hostname, parts.port
        self._secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/") + "/api/v1"
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self._timeout_seconds = timeout_seconds
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def send(self, call: Call) -> Any:
        """The answer's JSON. Raises RecsysError."""
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, call)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                kept.close()  # it was closed since it was used last
        fresh = self._open()
        try:
            return self._exchange(fresh, call)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            reason = str(error) or type(error).__name__
            raise RecsysError(f"{self._url} cannot be reached: {reason}") from error

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def forget(self) -> None:
        """Let go of connections that another process uses: this one was forked from it."""
        self._lock = threading.Lock()
        self._idle = []

    def _exchange(self, connection: http.client.HTTPConnection, call: Call) -> Any:
        query = urlencode({name: one for name, one in call.query.items() if one is not None})
        target = f"{self._prefix}{call.path}{'?' if query else ''}{query}"
        body = None if call.body is None else json.dumps(call.body, allow_nan=False).encode()
        connection.request(call.method, target, body, self._headers)
        response = connection.getresponse()
        content = response.read()
        self._give_back(connection)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None  # a proxy's page; its status says enough
        if response.status < 300 and answer is not None:
            return answer
        problem = answer if isinstance(answer, dict) else {}
        errors = problem.get("errors") or []
        parts = [f"{one.get('field')}: {one.get('message')}" for one in errors]
        detail = problem.get("detail") or f"status {response.status}"
        wait = response.headers.get("Retry-After") or ""
        raise RecsysError(
            "; ".join([detail, *parts]),
            502 if response.status < 300 else response.status,
            errors,
            float(wait) if wait.isdigit() else 0.0,
            answer,
        )

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _open(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=self._timeout_seconds)
