"""One small JSON message to one address, for people to be told.

The address is of a host that the configuration allows, redirects are not followed, and a receiver
that does not answer costs a few seconds of a thread of its own.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog

from recsys.config import Settings
from recsys.errors import ConfigError

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


class Webhook:
    """Tells the log, and the configured address if there is one."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an address that is not on the web or of a host not allowed."""
        self._url = settings.schedule.webhook_url.get_secret_value()
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        if not self._url:
            return
        parts, allowed = urlsplit(self._url), settings.schedule.webhook_hosts
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("schedule.webhook_url", "…", "expected https://host/path")
        if parts.hostname not in allowed:
            raise ConfigError(
                "schedule.webhook_hosts", list(allowed), "expected webhook_url's host among them"
            )

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell, without waiting. `message` has the key `event`, which says of what kind it is."""
        log.warning("notice", **{"kind" if k == "event" else k: v for k, v in message.items()})
        if self._url:
            threading.Thread(target=self._post, args=(message,), daemon=True).start()

    def _post(self, message: Mapping[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "recsys"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url, orjson.dumps({"source": "recsys", **message}), headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS):
                pass
        except Exception as error:  # its text may hold the address, which is a secret
            log.warning("the webhook was not reached", kind=type(error).__name__)
