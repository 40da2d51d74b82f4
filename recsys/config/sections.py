"""The settings: one class a section of config.toml, each key with its type, bounds and default.

Whether keys fit together is said here as well; where values come from is `recsys.config.loading`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from recsys.config.attribution import AttributionSettings
from recsys.config.exclude_seen import AUTO, seen_types
from recsys.config.key_types import (
    ITEM_PATH,
    MAX_OWN_NAMES,
    Engine,
    ExcludeSeen,
    Network,
    Port,
    Secret,
    Section,
    Share,
    SqlText,
    check_limits,
    check_live,
    check_type,
    check_zone,
)
from recsys.errors import ConfigError

ENV_PREFIX = "RECSYS_"
# Keys of [events] that mean nothing without a table or query.
MAPPING_KEYS = (
    "user_column",
    "item_column",
    "timestamp_column",
    "event_type_column",
    "session_column",
    "order_column",
    "event_id_column",
    "value_column",
    "where",
    "accept_posts",
)


class DatabaseSettings(Section):
    url: Secret = SecretStr("sqlite:///var/recsys.db")
    pool_size: int = Field(5, ge=1, le=200)
    busy_timeout_seconds: float = Field(5.0, ge=0.0, le=300.0)
    synchronous: Literal["full", "normal"] = "full"
    replica_url: Secret = SecretStr("")
    replica_wait_ms: float = Field(5.0, ge=0.0, le=1_000.0)


class EventsSettings(Section):
    retention_days: int = Field(0, ge=0, le=36_500)
    url: Secret = SecretStr("")
    table: SqlText = ""
    query: SqlText = ""
    user_column: SqlText = ""
    item_column: SqlText = ""
    timestamp_column: SqlText = ""
    event_type_column: SqlText = ""
    session_column: SqlText = ""
    order_column: SqlText = ""
    event_id_column: SqlText = ""
    value_column: SqlText = ""
    where: SqlText = ""
    timezone: str = ""
    unit: Literal["", "s", "ms", "us", "ns"] = ""
    default_type: str = Field("view", min_length=1, max_length=64)
    look_back_rows: int = Field(50_000, ge=0, le=100_000_000)
    look_back_seconds: float = Field(3_600.0, ge=0, le=31_536_000)
    timeout_seconds: float = Field(2.0, ge=0.05, le=60)
    accept_posts: bool = False
    items_query: SqlText = ""
    users_query: SqlText = ""
    upload_path: Path = Path("var/uploads")
    upload_mib: int = Field(2_048, ge=1, le=1_048_576)

    @property
    def mapped(self) -> bool:
        """Whether events are read from a table of the user's own."""
        return bool(self.table or self.query)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Raises ConfigError naming the key that is missing, or that has no meaning alone."""
        if not self.mapped:
            alone = [name for name in MAPPING_KEYS if getattr(self, name)]
            queried = self.items_query or self.users_query
            if alone or (self.url.get_secret_value() and not queried):
                key = alone[0] if alone else "url"
                value = getattr(self, alone[0]) if alone else "…"
                raise ConfigError(f"events.{key}", value, "expected events.table or events.query")
            return self
        if self.table and self.query:
            raise ConfigError("events.query", self.query, "expected events.table or this, not both")
        for name in ("item_column", "timestamp_column"):
            if not getattr(self, name):
                raise ConfigError(f"events.{name}", "", "expected the name of a column")
        if not self.user_column and not self.session_column:
            raise ConfigError("events.user_column", "", "expected this or events.session_column")
        if self.accept_posts and not self.event_id_column:
            expected = "expected false, or an event id common to both: events.event_id_column"
            raise ConfigError("events.accept_posts", self.accept_posts, expected)
        return self


class SequencesSettings(Section):
    input_event_types: tuple[str, ...] = ()
    target_event_types: tuple[str, ...] = ()
    event_weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    max_length: int = Field(50, ge=2, le=1_000)
    session_gap_minutes: float = Field(30.0, gt=0, le=525_600)
    max_days: int = Field(0, ge=0, le=36_500)
    max_user_events: int = Field(5_000, ge=0, le=10**9)


class ModelSettings(Section):
    network: Network = "lstm"
    width: int = Field(128, ge=4, le=1_024, multiple_of=2)
    layers: int = Field(1, ge=1, le=4)
    channels: tuple[Literal["event_type", "gap", "session", "category"], ...] = (
        "event_type",
        "gap",
        "session",
        "category",
    )
    copy_head: bool = True
    embedding_dropout: Share = 0.6
    dropout: Share = 0.2
    content: bool = False
    text_encoder: str = ""


class TrainingSettings(Section):
    epochs: int = Field(8, ge=1, le=1_000)
    patience: int = Field(2, ge=1, le=1_000)
    batch_events: int = Field(1_024, ge=16, le=1_000_000)
    learning_rate: float = Field(0.007, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=10)
    warmup_steps: int = Field(100, ge=0, le=1_000_000)
    gradient_clip: float = Field(5.0, gt=0, le=1_000)
    full_softmax_items: int = Field(2_000, ge=1, le=10_000_000)
    negatives: int = Field(1_024, ge=1, le=1_000_000)
    neighbour_start: bool = True
    refit: bool = True
    final_epochs: int = Field(1, ge=0, le=100)
    warm_start: bool = True
    warm_epochs: int = Field(3, ge=1, le=1_000)
    ranker_events: int = Field(5_000_000, ge=1_000, le=1_000_000_000)
    cold_start_days: float = Field(7.0, ge=0, le=3_650)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(7, ge=0, le=2**31 - 1)
    threads: int = Field(0, ge=0, le=1_024)
    processes: int = Field(2, ge=1, le=256)
    engine: Engine = "local"
    engine_address: Annotated[str, Field(pattern=r"^([^:/@\s]{1,255}:[0-9]{1,5})?$")] = ""
    ranks: int = Field(2, ge=1, le=1_024)
    rank_cpus: int = Field(1, ge=1, le=1_024)
    rank_gpus: int = Field(0, ge=0, le=64)
    join_timeout_seconds: float = Field(300.0, ge=1, le=86_400)
    worker_timeout_seconds: float = Field(120.0, ge=1, le=86_400)
    min_events: int = Field(100, ge=10)
    min_users: int = Field(2, ge=1)
    max_gap_days: float = Field(30.0, gt=0, le=36_500)
    max_drop: float = Field(0.98, ge=0, le=1)
    max_surge: float = Field(50.0, ge=1, le=1e9)
    max_user_share: float = Field(0.2, gt=0, le=1)
    max_item_share: float = Field(0.5, gt=0, le=1)
    max_single_item_users: float = Field(0.5, gt=0, le=1)
    max_new_item_share: float = Field(0.95, ge=0, le=1)
    max_new_type_share: float = Field(0.5, ge=0, le=1)
    max_drift: float = Field(0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Raises ConfigError where an engine's address means nothing to the engine."""
        if self.engine == "local" and self.engine_address:
            expected = "expected an empty text: training.engine is local"
            raise ConfigError("training.engine_address", self.engine_address, expected)
        return self


class EvaluationSettings(Section):
    target: Literal["auto", "next_item", "next_basket"] = "auto"
    window_share: float = Field(0.1, gt=0, le=0.5)
    validation_share: float = Field(0.1, gt=0, le=0.5)
    max_positions: int = Field(20_000, ge=100, le=10_000_000)
    bootstrap_draws: int = Field(1_000, ge=100, le=100_000)


class PromotionSettings(Section):
    margin: float = Field(0.02, ge=0, le=1)
    min_positions: int = Field(2_000, ge=1, le=10_000_000)
    learn_window: bool = True
    auto_rollback: bool = True
    guard_min_answers: int = Field(1_000, ge=10, le=10**9)
    guard_max_empty: float = Field(0.2, ge=0, le=1)


class RegistrySettings(Section):
    path: Path = Path("var/models")
    store: Annotated[str, Field(pattern=r"^(disk|database|s3://[^/]+(/.*)?)$", max_length=512)] = (
        "disk"
    )
    keep: int = Field(10, ge=2, le=10_000)


class ServingSettings(Section):
    host: str = "127.0.0.1"
    port: Port = 8000
    storefront_key: str = Field("", max_length=200)
    workers: int = Field(2, ge=1, le=256)
    threads: int = Field(4, ge=1, le=256)
    max_body_bytes: int = Field(8 * 2**20, ge=1_024, le=2**30)
    default_k: int = Field(20, ge=1, le=1_000)
    exclude_seen: ExcludeSeen = AUTO
    reload_seconds: float = Field(2.0, ge=0.1, le=3_600)
    popular_days: int = Field(7, ge=1, le=3_650)
    live_seconds: Annotated[float, AfterValidator(check_live)] = 1.0
    live_events: int = Field(1_000_000, ge=1_000, le=50_000_000)
    item_matrix: Literal["float32", "bfloat16", "int8"] = "int8"
    control_share: float = Field(0.05, ge=0, le=0.5)
    impression_share: float = Field(1.0, ge=0, le=1)
    impression_days: int = Field(30, ge=1, le=3_650)
    trusted_proxies: int = Field(0, ge=0, le=10)
    gorse: bool = False


class ScheduleSettings(Section):
    timezone: Annotated[str, AfterValidator(check_zone)] = "UTC"
    retrain: str = "0 3 * * *"
    refresh_minutes: float = Field(5.0, ge=0.01, le=1_440)
    tune: str = ""
    tune_trials: int = Field(20, ge=1, le=10_000)
    tune_minutes: float = Field(120.0, gt=0, le=10_080)
    backup: str = ""
    backup_path: Path = Path("var/backups")
    backup_keep: int = Field(7, ge=1, le=10_000)
    poll_seconds: float = Field(2.0, ge=0.1, le=3_600)
    lease_seconds: float = Field(15.0, ge=0.5, le=3_600)
    timeout_minutes: float = Field(360.0, gt=0, le=10_080)
    memory_mib: int = Field(0, ge=0, le=10_000_000)
    nice: int = Field(19, ge=0, le=19)
    keep_runs_days: int = Field(90, ge=1, le=36_500)
    max_model_age_hours: float = Field(0.0, ge=0, le=876_000)
    webhook_url: Secret = SecretStr("")
    webhook_hosts: tuple[str, ...] = ()


class ConsumeSettings(Section):
    username: str = Field("", max_length=256)
    password: Secret = SecretStr("")
    tls: bool = False
    ca_file: str = Field("", max_length=4_096)
    certificate_file: str = Field("", max_length=4_096)
    key_file: str = Field("", max_length=4_096)
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    batch_messages: int = Field(1_000, ge=1, le=10_000)
    batch_seconds: float = Field(0.2, ge=0.01, le=10)
    lease_seconds: float = Field(10.0, ge=0.5, le=3_600)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Raises ConfigError naming a key that has no meaning without another."""
        if bool(self.certificate_file) != bool(self.key_file):
            raise ConfigError(
                "consume.key_file",
                self.key_file,
                "expected with consume.certificate_file, or both empty",
            )
        return self


class AuthSettings(Section):
    enabled: bool = True
    requests_per_minute: int = Field(0, ge=0, le=10_000_000)
    collect_per_minute: int = Field(120, ge=1, le=1_000_000)
    collect_events_per_minute: int = Field(1_000, ge=1, le=100_000_000)
    collect_bytes_per_minute: int = Field(1_048_576, ge=1_024, le=2**40)
    limits: Annotated[Secret, AfterValidator(check_limits)] = SecretStr("memory")
    session_idle_minutes: float = Field(480.0, gt=0, le=525_600)
    session_hours: float = Field(168.0, gt=0, le=8_760)


class LoggingSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    traces: bool = False


class TrackedEvent(Section):
    """What a tracked event of a team's own name is."""

    type: Annotated[str, AfterValidator(check_type)]
    item: str = Field("properties.product_id", max_length=256, pattern=ITEM_PATH)


class SegmentSettings(Section):
    events: Annotated[dict[str, TrackedEvent], Field(max_length=MAX_OWN_NAMES)] = Field(
        default_factory=dict
    )
    page_identify: bool = False


class Settings(BaseSettings):
    """All settings, frozen. Build with `load_settings`."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    database: DatabaseSettings = DatabaseSettings()
    events: EventsSettings = EventsSettings()
    sequences: SequencesSettings = SequencesSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    promotion: PromotionSettings = PromotionSettings()
    registry: RegistrySettings = RegistrySettings()
    serving: ServingSettings = ServingSettings()
    attribution: AttributionSettings = AttributionSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    consume: ConsumeSettings = ConsumeSettings()
    auth: AuthSettings = AuthSettings()
    segment: SegmentSettings = SegmentSettings()
    logging: LoggingSettings = LoggingSettings()

    def event_types(self) -> frozenset[str]:
        """The event types that are named anywhere."""
        named = {*self.sequences.input_event_types, *self.sequences.target_event_types}
        excluded = seen_types(self.serving.exclude_seen) or frozenset()
        return frozenset({*named, *self.sequences.event_weights, *excluded})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings


def get_section(name: str) -> type[BaseModel]:
    """The settings class of section `name`."""
    annotation = Settings.model_fields[name].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation


SECRET_KEYS = {
    f"{section}.{key}"
    for section, model in ((name, get_section(name)) for name in Settings.model_fields)
    for key, field in model.model_fields.items()
    if isinstance(field.default, SecretStr)
}
