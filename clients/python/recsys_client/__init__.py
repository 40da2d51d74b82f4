"""Client of a recsys service: events in, recommendations out. See the README for both kinds.

with Recsys("http://127.0.0.1:8000", key) as recsys:
    recsys.track("P0001", user_id="u1")
    recsys.flush()
    answer = recsys.recommend(user_id="u1", k=10)
"""

from recsys_client.async_client import AsyncRecsys
from recsys_client.client_errors import RecsysError
from recsys_client.event_queue import Counts, QueueOptions
from recsys_client.sync_client import Recsys

__all__ = ["AsyncRecsys", "Counts", "QueueOptions", "Recsys", "RecsysError"]
__version__ = "0.2.0"
