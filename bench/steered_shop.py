"""A simulated shop behind the service's own code, whose visitors react by chances that are known."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from recsys import pipeline
from recsys.config import Settings
from recsys.demo.demo_run import simulate
from recsys.demo.reacting_shoppers import ReactingShoppers
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.array_types import Int64Array
from recsys.events.fields import Event
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.progress import Say
from recsys.serving.answering import recommend
from recsys.serving.answers import Answer, Request
from recsys.serving.context import stored_context
from recsys.serving.recommender import Recommender
from recsys.serving.steering.experiments import Assigned
from recsys.serving.steering.reranking import tried_items, widened
from recsys.serving.steering.scenarios import Scenario
from recsys.serving.steering.steered_answers import ranked_candidates
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.engine.database import Database
from recsys.training.run import Run

SIZE = ShopSize(products=600, shoppers=2_000, events=30_000)
VIEWS = 4  # of each visitor, before they are shown anything
K = 10


@dataclass(frozen=True)
class SteeredShop:
    """The shop, what answers for it, and n visitors in the middle of a session."""

    shop: Shop
    recommender: Recommender
    shoppers: ReactingShoppers
    now_us: int
    prefix: str = ""  # of the visitors' ids

    @cached_property
    def ids(self) -> list[str]:
        """Item ids by product."""
        return [item.item_id for item in self.shop.items]

    @cached_property
    def products(self) -> dict[str, int]:
        """Products by item id."""
        return {item_id: number for number, item_id in enumerate(self.ids)}

    def answer(self, visitor: int, scenario: Scenario) -> Answer:
        """What a visitor is shown, after what they viewed in this session."""
        return recommend(self.recommender, scenario.applied(self._request(visitor)), self.now_us)

    def tried(self, visitor: int, spec: ScenarioSpec) -> list[str]:
        """The items that a scenario which explores would try in what the visitor is shown."""
        assigned = Assigned(Scenario(spec).applied(self._request(visitor)))
        model = self.recommender.choose_model(assigned)
        context = stored_context(self.recommender, assigned.request, model, self.now_us)
        ranked = ranked_candidates(self.recommender, widened(context, spec), spec)
        chosen = list(itertools.islice(ranked, K))
        return [one.item_id for one in tried_items(self.recommender, context, chosen, ranked)]

    def _request(self, visitor: int) -> Request:
        viewed = self.shoppers.memory[visitor]
        viewed = viewed[viewed >= 0][::-1]
        session = f"visitor-{self.prefix}{visitor}"
        events = tuple(
            Event(
                None, session, self.ids[product], "view", self.now_us - 1_000 * (len(viewed) - at)
            )
            for at, product in enumerate(viewed.tolist())
        )
        return Request(session_id=session, events=events, k=K, exclude_seen="none")

    def numbers(self, answers: Sequence[Sequence[str]]) -> Int64Array:
        """Products of lists of the same length; (B, K)."""
        return np.array([[self.products[item_id] for item_id in items] for items in answers])


@contextmanager
def steered_shop(visitors: int, seed: int, now: datetime, say: Say) -> Iterator[SteeredShop]:
    """Import the shop's log, train on it, and let visitors begin their sessions."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = _settings(folder)
        shop = Shop(SIZE, seed, to_us(now))
        with closing(Database(f"sqlite:///{folder}/steering.db")) as database:
            log = folder / "events.parquet"
            simulate(database, shop, log, now)
            imported = pipeline.import_events(database, log, ReadOptions(), now).accepted
            say(f"learning {imported:,} events of {SIZE.products:,} products")
            pipeline.train(settings, database, Run(now), force=True)
            shoppers = ReactingShoppers(shop, visitors, seed)
            for _ in range(VIEWS):
                shoppers.wander(np.arange(visitors))
            with closing(Recommender(settings, database, time.monotonic)) as recommender:
                yield SteeredShop(shop, recommender, shoppers, to_us(now))


def _settings(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": f"sqlite:///{folder}/steering.db"},
            "registry": {"path": folder / "models"},
            "sequences": {"input_event_types": ["view"], "target_event_types": ["view"]},
            "model": {"width": 32},
            "training": {"epochs": 3, "refit": False, "final_epochs": 0, "threads": 1},
            "evaluation": {"bootstrap_draws": 100, "max_positions": 500},
            "promotion": {"learn_window": False, "min_positions": 50},
            "serving": {"live_seconds": 0.0},
        }
    )
