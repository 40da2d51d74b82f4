"""Simulated visitors of the demo: they ask the service as a shop's pages would, click, buy and come back."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import orjson

from recsys.demo.reacting_shoppers import ReactingShoppers
from recsys.demo.simulation import Shop
from recsys.errors import RecsysError
from recsys.events.array_types import Int64Array
from recsys.events.identity import RandomIds

GUESTS = 1_000  # who visit the shop again and again
HOME, PRODUCT = "home", "product"  # scenarios that they ask
K = 10
MOST_PAGES = 6  # of a visit
TIMEOUT_SECONDS = 5.0
AWAY_SECONDS = 1.0  # until the next try where the service does not answer

Post = Callable[[str, object], Any]  # a path of REST and a JSON body -> the answer


class Visitors:
    """Guests of the shop, who come one after another."""

    def __init__(self, shop: Shop, post: Post, seed: int) -> None:
        """The guests' ids are new ones in each run."""
        self._post = post
        self._shoppers = ReactingShoppers(shop, GUESTS, seed)
        self._ids = [item.item_id for item in shop.items]
        self._products = {item_id: number for number, item_id in enumerate(self._ids)}
        self._rng = np.random.default_rng([seed, 3])
        self._new_id = RandomIds()
        self._run = self._new_id()[:8]

    def come(self, a_minute: int, stopped: threading.Event) -> None:
        """Some guest every now and then, until `stopped` is set; none while the service is away."""
        while not stopped.is_set():
            seconds = float(self._rng.exponential(60 / a_minute))
            try:
                self.visit(int(self._rng.integers(GUESTS)))
            except (OSError, http.client.HTTPException, RecsysError):
                seconds = AWAY_SECONDS
            stopped.wait(seconds)

    def visit(self, guest: int) -> None:
        """The start page, then the page of what was clicked, until nothing is; raises what `post` does."""
        who = np.array([guest])
        owner = {"user_id": f"guest-{self._run}-{guest:04d}", "session_id": self._new_id()}
        self._shoppers.leave(who)
        for page in range(MOST_PAGES):
            scenario = PRODUCT if page else HOME
            answer = self._post("recommendations", {**owner, "scenario": scenario, "k": K})
            events = self._reaction(who, answer)
            if not events and not page:  # nothing of interest there, so they look around
                events = [{"item_id": self._ids[int(self._shoppers.wander(who)[0])]}]
            if not events:
                break
            self._post("events", [{**owner, **event} for event in events])

    def _reaction(self, who: Int64Array, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Events that an answer leads to; products launched since the shop was made are passed by."""
        ids = [one["item_id"] for one in answer["items"] if one["item_id"] in self._products]
        if not ids:
            return []
        outcome = self._shoppers.react(who, np.array([[self._products[one] for one in ids]]))
        events: list[dict[str, Any]] = []
        for place in np.flatnonzero(outcome.clicks[0]):
            view = {"item_id": ids[place], "recommendation_id": answer["recommendation_id"]}
            events.append(view)
            if outcome.purchases[0, place]:
                price = round(float(outcome.value[0, place]), 2)
                events.append({**view, "event_type": "purchase", "value": price})
        return events


def http_post(port: int, key: str) -> Post:
    """Posts to the service of this machine. Raises OSError, HTTPException, or RecsysError where it
    refuses.
    """

    def post(path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json", "X-API-Key": key}
        with closing(
            http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request("POST", f"/api/v1/{path}", orjson.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        if response.status != 200:
            raise RecsysError(f"a visitor of the demo was answered {response.status}")
        return orjson.loads(content)

    return post
