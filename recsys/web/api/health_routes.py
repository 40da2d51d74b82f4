"""Whether the process lives, and whether it can answer."""

from __future__ import annotations

from flask import Blueprint
from pydantic import BaseModel

from recsys.errors import RecsysError
from recsys.storage.entities import version_rows
from recsys.web.operations import operation
from recsys.web.services import services

blueprint = Blueprint("health", __name__)


class HealthAnswer(BaseModel):
    status: str
    checks: dict[str, str]


@operation(blueprint, "GET", "/health/live", scope=None, answer=HealthAnswer)
def live() -> HealthAnswer:
    """Liveness: the process responds."""
    return HealthAnswer(status="live", checks={})


@operation(blueprint, "GET", "/health/ready", scope=None, answer=HealthAnswer, statuses=(200, 503))
def ready() -> tuple[HealthAnswer, int]:
    """Readiness: the database responds, and the champion, if there is one, is loaded."""
    checks: dict[str, str] = {}
    try:
        with services().database.connect() as connection:
            version_rows.champion_name(connection)
        checks["database"] = "ok"
    except RecsysError as error:
        checks["database"] = str(error)
    bundle = services().recommender.bundle()  # loading ranks once: green means it has answered
    refused = services().recommender.active.refused
    if bundle is None:
        checks["model"] = "no model has been promoted yet" if refused is None else "refused"
    else:
        checks["model"] = "ok" if refused is None else f"{refused} was refused; an older one serves"
    good = checks["database"] == "ok" and (bundle is not None or refused is None)
    return HealthAnswer(
        status="ready" if good else "not ready", checks=checks
    ), 200 if good else 503
