"""A training that was judged -> a version: its facts, its files and its row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from recsys.config import Settings
from recsys.events.times import to_us
from recsys.models.bundle import Bundle
from recsys.registry import write_version
from recsys.storage.entities import version_rows
from recsys.tracing import traced
from recsys.training.data_checks import Check
from recsys.training.evaluate import Trial, matrix_costs
from recsys.training.fit import Learned
from recsys.training.gate import Verdict
from recsys.training.memory import peak_mib
from recsys.training.training_log import Log
from recsys.training.warm_start import cold_started_us


@dataclass(frozen=True)
class Training:
    """One training from its log to the gate's verdict: all that a version keeps facts of."""

    now: datetime
    settings: Settings  # with what was adopted
    adopted: dict[str, dict[str, Any]]
    log: Log
    user_count: int  # of the event frame
    checks: list[Check]
    champion: Bundle | None  # it was judged against
    learned: Learned
    trial: Trial
    verdict: Verdict
    bundle: Bundle  # to publish: what was learned, or what the pass over the window made of it
    window: dict[str, Any]  # what came of that pass

    def facts(self) -> dict[str, Any]:
        """What the version tells of how it came to be; JSON-ready."""
        return {
            "adopted": self.adopted,
            "checks": [check.plain() for check in self.checks],
            "judged_against": None if self.champion is None else self.champion.version,
            "metrics": self.trial.metrics,
            "breakdown": self.trial.breakdown,
            "validation": {name: found.plain() for name, found in self.learned.validation.items()},
            "learning_curve": self.learned.curve.plain(),
            "blends": {name: blend.plain() for name, blend in self.bundle.blends.items()},
            "cold_started_us": cold_started_us(self.learned.warm, self.champion, self.now),
            "network_bytes": self.bundle.network_bytes,
            "item_matrix": matrix_costs(self.log, self.learned.bundle, self.trial.cut_us),
            "peak_mib": peak_mib(),
            "window": {
                "from_us": self.trial.cut_us,
                "positions": len(self.trial.positions),
                **self.window,
            },
            "settings": {
                name: getattr(self.settings, name).model_dump(mode="json")
                for name in ("sequences", "model", "training", "evaluation", "promotion")
            },
        }


@traced("write files")
def write_files(
    training: Training, facts: dict[str, Any], run_id: int | None
) -> version_rows.VersionRow:
    """Files first, then the row, which this gives: a version that has a row has all its files.

    The row's facts are `facts` and where the version's data ends. Raises OSError where the disk refuses.
    """
    bundle = replace(training.bundle, facts=facts)
    times, window = training.log.sequences.timestamps_us, bundle.facts["window"]
    end_us = int(times.max()) if window["learned"] else window["from_us"] - 1
    bundle.facts["data_end_us"] = end_us
    digest, size = write_version(training.settings.registry.path, bundle)
    return version_rows.VersionRow(
        version=bundle.version,
        created_at_us=to_us(training.now),
        state="candidate" if training.verdict.promote else "refused",
        ranking=bundle.ranking,
        data_start_us=int(times.min()),
        data_end_us=end_us,
        event_count=training.log.sequences.event_count,
        user_count=training.user_count,
        item_count=bundle.vocabulary.item_count,
        facts=bundle.facts,
        verdict=training.verdict.plain(),
        manifest_sha256=digest,
        size_bytes=size,
        run_id=run_id,
    )
