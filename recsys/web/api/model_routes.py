"""Registered model versions, and which of them serves."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from pydantic import BaseModel

from recsys.commands import deployments
from recsys.events.times import rfc3339
from recsys.storage.entities import version_rows
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.fields import PageQuery, Reason, Strict
from recsys.web.operations import operation
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("models", __name__, url_prefix="/api/v1")


class PromoteBody(Strict):
    reason: Reason = "by hand"


class ChampionAnswer(BaseModel):
    champion: str


class ModelOut(BaseModel):
    version: str
    created_at: str
    state: str
    champion: bool
    ranking: str
    data_start: str
    data_end: str
    events: int
    users: int
    items: int
    size_bytes: int
    verdict: dict[str, Any]
    facts: dict[str, Any]


class ModelPage(BaseModel):
    models: list[ModelOut]
    next_cursor: str | None


@operation(blueprint, "GET", "/models", scope="read", query=PageQuery, answer=ModelPage)
def list_models(query: PageQuery) -> ModelPage:
    """List model versions, newest first."""
    before = read_cursor(query.cursor)
    with services().database.connect() as connection:
        champion = version_rows.champion_name(connection)
        page = version_rows.list_versions(connection, query.limit, before)
    return ModelPage(
        models=[_model(row, champion) for row in page],
        next_cursor=write_cursor(page[-1].version) if len(page) == query.limit else None,
    )


@operation(
    blueprint, "GET", "/models/<id:version>", scope="read", answer=ModelOut, statuses=(200, 404)
)
def get_model(version: str) -> ModelOut:
    """Get one version with its metrics and the gate's verdict."""
    with services().database.connect() as connection:
        champion = version_rows.champion_name(connection)
        return _model(version_rows.get_version(connection, version), champion)


@operation(
    blueprint,
    "POST",
    "/models/<id:version>/promote",
    scope="admin",
    body=PromoteBody,
    answer=ChampionAnswer,
    statuses=(200, 404, 409),
)
def promote_model(version: str, body: PromoteBody) -> ChampionAnswer:
    """Make a version the champion, bypassing the gate; all workers switch within seconds."""
    deployments.promote(services().database, actor(), version, body.reason, now_us())
    return ChampionAnswer(champion=version)


@operation(
    blueprint,
    "POST",
    "/models/rollback",
    scope="admin",
    body=PromoteBody,
    answer=ChampionAnswer,
    statuses=(200, 409),
)
def roll_back_model(body: PromoteBody) -> ChampionAnswer:
    """Go back to the champion before this one."""
    champion = deployments.roll_back(services().database, actor(), body.reason, now_us())
    return ChampionAnswer(champion=champion)


def _model(row: VersionRow, champion: tuple[str, str] | None) -> ModelOut:
    return ModelOut(
        version=row.version,
        created_at=rfc3339(row.created_at_us),
        state=row.state,
        champion=champion is not None and champion[0] == row.version,
        ranking=row.ranking,
        data_start=rfc3339(row.data_start_us),
        data_end=rfc3339(row.data_end_us),
        events=row.event_count,
        users=row.user_count,
        items=row.item_count,
        size_bytes=row.size_bytes,
        verdict=row.verdict,
        facts=row.facts,
    )
