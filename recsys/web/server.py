"""The service under gunicorn, a production WSGI server."""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication

from recsys.config import Settings
from recsys.storage.database import Database
from recsys.web.app import create_app

GRACE_SECONDS = 30


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, url: str, options: dict[str, Any]) -> None:
        self._settings, self._url, self._options = settings, url, options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # Called in each worker: neither connections nor torch's threads survive a fork.
        chosen = self._settings.database
        database = Database(self._url, chosen.pool_size, chosen.busy_timeout_seconds)
        app = create_app(self._settings, database)
        app.extensions["recsys"].recommender.bundle()  # warm before the first request
        return app


def serve(settings: Settings) -> None:
    """Serve until told to stop; SIGTERM lets requests in hand finish."""
    serving = settings.serving
    options = {
        "bind": f"{serving.host}:{serving.port}",
        "workers": serving.workers,
        "threads": serving.threads,
        "worker_class": "gthread",
        "graceful_timeout": GRACE_SECONDS,
        "timeout": 120,
        "keepalive": 30,
        "preload_app": False,
        "accesslog": None,
        "errorlog": "-",
        "loglevel": "warning",
        "proc_name": "recsys",
        "control_socket_disable": True,
        "limit_request_line": 8_190,
        "limit_request_fields": 64,
        "limit_request_field_size": 8_190,
    }
    _Server(settings, settings.database.url.get_secret_value(), options).run()
