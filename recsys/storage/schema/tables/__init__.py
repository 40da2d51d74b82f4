"""All tables. Times are whole microseconds since 1970 UTC in a BIGINT: exact, and the same in both
databases; such a column's name ends in `_us`.
"""

from recsys.storage.schema.tables.access_tables import (
    accounts,
    admin_sessions,
    api_keys,
    audit_log,
    job_run_lines,
    job_runs,
    job_schedules,
    leases,
    login_failures,
)
from recsys.storage.schema.tables.answer_tables import (
    active_users,
    answer_counts,
    attributed_clicks,
    event_counts,
    impressions,
    installation,
    live_quality,
    quality_reports,
    service_counts,
    stamps,
    storage_sizes,
)
from recsys.storage.schema.tables.conversion_tables import conversions, conversions_due
from recsys.storage.schema.tables.event_tables import (
    aliases,
    deferred_events,
    events,
    imports,
    item_categories,
    items,
    rejected_events,
    removed_events,
    removed_sequences,
    tombstones,
    unmapped_names,
    users,
)
from recsys.storage.schema.tables.model_tables import (
    deployments,
    followers,
    model_files,
    model_versions,
)
from recsys.storage.schema.tables.steering_tables import scenario_versions, scenarios
from recsys.storage.schema.tables.stream_tables import stream_consumers, stream_partitions
from recsys.storage.schema.tables.table_types import metadata

__all__ = [
    "accounts",
    "active_users",
    "admin_sessions",
    "aliases",
    "answer_counts",
    "api_keys",
    "attributed_clicks",
    "audit_log",
    "conversions",
    "conversions_due",
    "deferred_events",
    "deployments",
    "event_counts",
    "events",
    "followers",
    "imports",
    "impressions",
    "installation",
    "item_categories",
    "items",
    "job_run_lines",
    "job_runs",
    "job_schedules",
    "leases",
    "live_quality",
    "login_failures",
    "metadata",
    "model_files",
    "model_versions",
    "quality_reports",
    "rejected_events",
    "removed_events",
    "removed_sequences",
    "scenario_versions",
    "scenarios",
    "service_counts",
    "stamps",
    "storage_sizes",
    "stream_consumers",
    "stream_partitions",
    "tombstones",
    "unmapped_names",
    "users",
]
