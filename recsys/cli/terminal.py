"""What commands share with the terminal: options, settings, results on stdout, progress on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from recsys.cli.visible_output import visible
from recsys.config import Settings, load_settings
from recsys.errors import InputError
from recsys.progress import OnRows, Stage

if TYPE_CHECKING:  # torch takes seconds to load
    from recsys.models.lstm.checkpoint import Progress as TrainingProgress
    from recsys.storage.engine.database import Database
    from recsys.storage.entities.audit_rows import Actor
    from recsys.training.run import Run

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The config.toml to use.", show_default=False)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")
]

errors = Console(stderr=True, highlight=False)
LINE_SECONDS = 10.0


def settings_of(config: Path | None, **overrides: dict[str, Any]) -> Settings:
    """The settings, with logging set up after them; `overrides` as in `load_settings`."""
    settings = load_settings(config, **overrides)
    set_up_logging(settings)
    return settings


def set_up_logging(settings: Settings) -> None:
    """Logs go to stderr; stdout is for results."""
    level = getattr(logging, settings.logging.level.upper())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.logging.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),  # type: ignore[arg-type]
    )


class _Stderr:
    """Whatever sys.stderr is when a line is written: it may have been another when logging began."""

    def write(self, text: str) -> int:
        with suppress(OSError):  # a full disk that holds the log costs its lines, and no answer
            sys.stderr.write(visible(text))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


@contextmanager
def named_as_given(**names: str) -> Iterator[None]:
    """Call a field by its option or argument, by `names`, in the InputError that tells of it."""
    try:
        yield
    except InputError as error:
        if error.field not in names:
            raise
        raise InputError(names[error.field], error.value, error.expected) from None


def steering(config: Path | None) -> tuple[Database, Actor, int]:
    """What a change of state asks for: the database, the command line as its actor, the time in µs."""
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI

    return open_database(settings_of(config)), CLI, to_us(now())


def now() -> datetime:
    return datetime.now(UTC)


def say(line: str) -> None:
    """A line for people, on stderr."""
    errors.print(line, markup=False, soft_wrap=True)


def show(result: dict[str, Any], as_json: bool, text: str | None = None) -> None:
    """The result on stdout: one JSON line, or text for people."""
    if as_json:
        sys.stdout.write(
            orjson.dumps(
                result, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
            ).decode()
            + "\n"
        )
    elif text is not None:
        sys.stdout.write(text.rstrip("\n") + "\n")
    else:
        width = max(map(len, result), default=0)
        for name, value in result.items():
            sys.stdout.write(f"{name:<{width}}  {_readable(value)}\n")
    sys.stdout.flush()


def _readable(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


class _Lines(Progress):
    """A bar for where no terminal shows it: what changed, a line every LINE_SECONDS."""

    _said_at = 0.0

    def start(self) -> None:
        self._said_at = time.monotonic()

    def stop(self) -> None:
        pass

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        if time.monotonic() - self._said_at < LINE_SECONDS:
            return
        self._said_at = time.monotonic()
        task = self.tasks[task_id]
        parts = [task.description, f"{task.percentage:.0f}%" if task.total else ""]
        left = "" if not task.time_remaining else time_left(task.time_remaining)
        say("  ".join(filter(None, [*parts, task.fields.get("note", ""), left])))


def time_left(seconds: float) -> str:
    """
    >>> time_left(3.2), time_left(95), time_left(7_300)
    ('less than a minute left', 'about 2 min left', 'about 122 min left')
    """
    return "less than a minute left" if seconds < 60 else f"about {seconds / 60:.0f} min left"


@contextmanager
def progress_bar(label: str, total: float | None) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr with a free-text field `note`; without a terminal a line now and then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    kind = Progress if errors.is_terminal else _Lines
    with kind(*columns, console=errors, transient=True) as progress:
        yield progress, progress.add_task(label, total=total, note="")


@contextmanager
def row_progress(label: str) -> Iterator[OnRows]:
    """A bar on stderr for rows whose number is not known, and what moves it."""
    with progress_bar(label, None) as (progress, task):
        yield lambda stage, rows: progress.update(task, note=f"{stage} {rows:,} rows")


@contextmanager
def training_run(moment: datetime, actor: Actor | None = None) -> Iterator[Run]:
    """A run that tells people on stderr how far it is, by lines and a bar."""
    from recsys.storage.entities.audit_rows import CLI
    from recsys.training.run import Run

    with progress_bar("training", 1.0) as (progress, task):

        def on_progress(at: TrainingProgress) -> None:
            note = f"{at.events_per_second:,.0f} events/s, loss {at.loss:.3f}"
            label = f"{at.stage} {at.epoch}/{at.epochs}"
            progress.update(task, description=label, completed=at.done, note=note)

        def on_stage(stage: Stage) -> None:
            progress.update(task, description=stage, completed=0.0, note="")
            if not errors.is_terminal:
                say(stage)

        yield Run(moment, actor or CLI, say=say, on_progress=on_progress, on_stage=on_stage)
