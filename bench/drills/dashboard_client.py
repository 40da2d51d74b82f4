"""A browser's part in the dashboard: a cookie, the token of a page's form, and what is posted with it."""

from __future__ import annotations

import http.client
import re
import urllib.parse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@dataclass
class Dashboard:
    """One visitor of the dashboard at `port`."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)  # sent with every request
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> tuple[int, str, str]:
        """(status, body, where it leads)."""
        return self._ask("GET", path, None)

    def token(self, page: str) -> str:
        """What a form of `page` has to be sent with; empty where it has none."""
        found = TOKEN.search(self.get(page)[1])
        return found[1] if found else ""

    def send(self, path: str, form: Mapping[str, str], token: str) -> tuple[int, str, str]:
        """Send a form; the same as `get` gives."""
        return self._ask("POST", path, urllib.parse.urlencode({**form, "csrf_token": token}))

    def log_in(self, name: str, password: str, query: str = "") -> tuple[int, str, str]:
        """A log-in with the form's token; the same as `get` gives."""
        login = f"/admin/login{query}"
        return self.send(login, {"name": name, "password": password}, self.token(login))

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str, str]:
        headers = dict(self.headers)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        for cookie in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, text, answer.headers["Location"] or ""


def log_in(port: int, name: str, headers: Mapping[str, str] | None = None) -> int:
    """The status of one attempt with a wrong password; 0 where the connection broke."""
    try:
        return Dashboard(port, dict(headers or {})).log_in(name, "wrong password")[0]
    except (OSError, http.client.HTTPException):
        return 0
