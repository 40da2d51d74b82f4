"""config.toml + environment -> frozen settings. The only reader of os.environ.

Each key of `config.toml` may be overridden by `RECSYS_<SECTION>__<KEY>`. An unknown key or a bad
value raises ConfigError with the key's name, the value and what was expected.
"""

from recsys.config.attribution import AttributionSettings
from recsys.config.display import effective, meanings, template
from recsys.config.key_types import ENGINES, NETWORKS
from recsys.config.loading import (
    chosen_path,
    from_environment,
    has_password,
    load_settings,
    secret_files,
    variable,
)
from recsys.config.process import (
    exchange_on_loopback,
    guard_ray,
    launched_rank,
    rank_environment,
    started_by_torchrun,
)
from recsys.config.sections import (
    SECRET_KEYS,
    AuthSettings,
    DatabaseSettings,
    EvaluationSettings,
    EventsSettings,
    LoggingSettings,
    ModelSettings,
    PromotionSettings,
    RegistrySettings,
    ScheduleSettings,
    SegmentSettings,
    SequencesSettings,
    ServingSettings,
    Settings,
    TrackedEvent,
    TrainingSettings,
    get_section,
)

__all__ = [
    "ENGINES",
    "NETWORKS",
    "SECRET_KEYS",
    "AttributionSettings",
    "AuthSettings",
    "DatabaseSettings",
    "EvaluationSettings",
    "EventsSettings",
    "LoggingSettings",
    "ModelSettings",
    "PromotionSettings",
    "RegistrySettings",
    "ScheduleSettings",
    "SegmentSettings",
    "SequencesSettings",
    "ServingSettings",
    "Settings",
    "TrackedEvent",
    "TrainingSettings",
    "chosen_path",
    "effective",
    "exchange_on_loopback",
    "from_environment",
    "get_section",
    "guard_ray",
    "has_password",
    "launched_rank",
    "load_settings",
    "meanings",
    "rank_environment",
    "secret_files",
    "started_by_torchrun",
    "template",
    "variable",
]
