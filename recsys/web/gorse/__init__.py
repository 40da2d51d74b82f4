"""Gorse's REST under /api, for its clients as they are, where `serving.gorse` says so.

    gorse_protocol.py         routes, parameters, bodies, answers and errors as Gorse has them
    gorse_users.py            users and health
    gorse_items.py            items and their categories
    gorse_feedback.py         feedback: events of the log, listed as one row a (type, user, item)
    gorse_recommendations.py  recommendations, write-back, lists of items

What differs from Gorse stands in docs/gorse.md.
"""

from __future__ import annotations

from flask import Flask

from recsys.web.gorse import (
    gorse_feedback,
    gorse_items,
    gorse_protocol,
    gorse_recommendations,
    gorse_users,
)


def register(app: Flask) -> None:
    """Mount the routes beside /api/v1."""
    gorse_protocol.register(app)
    for module in (gorse_users, gorse_items, gorse_feedback, gorse_recommendations):
        app.register_blueprint(module.blueprint)
