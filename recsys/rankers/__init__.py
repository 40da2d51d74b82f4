"""The rankings that need no training: baselines and fallbacks alike."""

from recsys.rankers.base import Ranker
from recsys.rankers.popular import Popular, PopularRecent
from recsys.rankers.sequential_rules import SequentialRules
from recsys.rankers.session_knn import SessionKnn
from recsys.rankers.transitions import Transitions

RANKERS: dict[str, type[Ranker]] = {
    kind.name: kind for kind in (Popular, PopularRecent, Transitions, SequentialRules, SessionKnn)
}

__all__ = ["RANKERS", "Ranker"]
