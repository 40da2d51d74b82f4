"""What can go wrong with a request, as one error that says what and which field."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_client.api_types import FieldError


class RecsysError(Exception):
    """The service refused, or could not be reached (`status` 0)."""

    def __init__(
        self,
        message: str,
        status: int = 0,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float = 0.0,
        body: object = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = list(errors)
        self.retry_after_seconds = retry_after_seconds
        self.body = body

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, 429) or self.status >= 500
