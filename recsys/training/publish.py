"""Make a version of a training that was judged: its facts, its files and its row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from recsys.config import Settings
from recsys.events.times import to_us
from recsys.models.bundle import Bundle
from recsys.models.version_facts import (
    Adopted,
    Check,
    EvaluationWindow,
    Verdict,
    VersionFacts,
    WindowPass,
)
from recsys.registry import write_version
from recsys.storage.entities import version_rows
from recsys.tracing import traced
from recsys.training.evaluate import Evaluation, matrix_costs
from recsys.training.event_log import EventLog
from recsys.training.fit import FittedModel
from recsys.training.report import rounded
from recsys.training.run import Run, peak_mib


@dataclass(frozen=True)
class TrainingResult:
    """One training from its log to the gate's verdict: all that a version keeps facts of."""

    settings: Settings  # with what was adopted
    adopted: Adopted
    log: EventLog
    user_count: int  # of the event frame
    checks: list[Check]
    champion: Bundle | None  # it was judged against
    fitted: FittedModel
    evaluation: Evaluation
    verdict: Verdict
    bundle: Bundle  # to publish: the fitted one, or what the pass over the window made of it
    window: WindowPass

    def facts(self, now: datetime) -> VersionFacts:
        """What the version keeps of how it came to be."""
        fitted, evaluation, champion = self.fitted, self.evaluation, self.champion
        times, from_us = self.log.sequences.timestamps_us, evaluation.cut_us
        content = self.bundle.content
        warm = fitted.warm and champion is not None
        return VersionFacts(
            adopted=self.adopted,
            checks=self.checks,
            judged_against=None if champion is None else champion.version,
            metrics=evaluation.metrics,
            breakdown=evaluation.breakdown,
            live={} if evaluation.live is None else rounded(evaluation.live.figures()),
            validation={name: found.to_json() for name, found in fitted.validation.items()},
            learning_curve=fitted.curve,
            blends=self.bundle.blends,
            cold_started_us=champion.facts.cold_started_us if champion and warm else to_us(now),
            content_explained=content.explained if content is not None else None,
            seen_items=self.bundle.repeats.said(),
            seen=self.bundle.facts.seen,
            network_bytes=self.bundle.network_bytes,
            item_matrix=matrix_costs(self.log, fitted.bundle, from_us),
            peak_mib=peak_mib(),
            window=EvaluationWindow(from_us, len(evaluation.positions), self.window),
            settings={
                name: getattr(self.settings, name).model_dump(mode="json")
                for name in ("sequences", "model", "training", "evaluation", "promotion")
            },
            data_end_us=int(times.max()) if self.window.learned else from_us - 1,
        )


@traced("write files")
def write_files(result: TrainingResult, run: Run) -> tuple[version_rows.VersionRow, VersionFacts]:
    """Write the version's files; its row and facts. A version that has a row has all its files.

    Raises OSError where the disk refuses.
    """
    facts = result.facts(run.now)
    bundle = replace(result.bundle, facts=facts)
    digest, size = write_version(result.settings.registry.path, bundle)
    row = version_rows.VersionRow(
        version=bundle.version,
        created_at_us=to_us(run.now),
        state="candidate" if result.verdict.promote else "refused",
        ranking=bundle.ranking,
        data_start_us=int(result.log.sequences.timestamps_us.min()),
        data_end_us=facts.data_end_us,
        event_count=result.log.sequences.event_count,
        user_count=result.user_count,
        item_count=bundle.vocabulary.item_count,
        facts=facts.to_json(),
        verdict=result.verdict.to_json(),
        manifest_sha256=digest,
        size_bytes=size,
        run_id=run.run_id,
    )
    return row, facts
