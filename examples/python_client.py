"""A client for the REST service on the standard library: copy it into a backend and go on from there.

    RECSYS_KEY=… python python_client.py http://127.0.0.1:8000 visitor-1 P0001 P0042

posts a view of each product for that session and prints what comes next.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from typing import Any


class RecsysError(Exception):
    """The service refused; `status` and `problem` (RFC 9457) say why."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status, self.problem = status, problem
        fields = "; ".join(f"{e['field']}: {e['message']}" for e in problem.get("errors", []))
        super().__init__(f"{status} {problem.get('detail', '')} {fields}".strip())


class Recsys:
    """One service and one key."""

    def __init__(self, base: str, key: str, timeout_seconds: float = 5.0) -> None:
        self._base, self._key, self._timeout = base.rstrip("/"), key, timeout_seconds

    def send(self, item_id: str, event_type: str = "view", **more: Any) -> dict[str, Any]:
        """Store an event; `more`: user_id or session_id, value, recommendation_id, ...

        Sent again with the same event_id where the service or the network fails: it is one event
        however often it arrives.
        """
        event = {"item_id": item_id, "event_type": event_type, "event_id": uuid.uuid4().hex, **more}
        for attempt in range(4):
            try:
                return self._call("POST", "/events", event)
            except (RecsysError, OSError) as error:
                status = error.status if isinstance(error, RecsysError) else 503
                final = status < 500 and status != 429
                if final or attempt == 3:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("not reached")

    def recommend(self, k: int = 10, **more: Any) -> list[dict[str, Any]]:
        """The next k items for a user_id or a session_id, what was just stored included."""
        answer = self._call("POST", "/recommendations", {"k": k, **more})
        return list(answer["items"])

    def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._base}/api/v1{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "X-API-Key": self._key},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            try:
                problem = json.load(error)
            except ValueError:
                problem = {}
            raise RecsysError(error.code, problem) from None


def main(base: str, session: str, *items: str) -> None:
    client = Recsys(base, os.environ["RECSYS_KEY"])
    for item in items:
        client.send(item, session_id=session)
    for found in client.recommend(5, session_id=session):
        title = (found["item"] or {}).get("title") or found["item_id"]
        print(f"{found['rank']:>2}  {title:<40} {found['source']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
