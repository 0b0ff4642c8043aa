"""What Ray Data's executor calls while a stream runs, for those who want to hear of some of it.

An executor makes one of each class in `DataContext.custom_execution_callback_classes`, in its own process.
"""

from __future__ import annotations

from typing import Any


class Callback:
    """Hears all that an executor tells, and does nothing."""

    def before_execution_starts(self, executor: Any) -> None:
        """Its operators are made, and nothing has run yet."""

    def on_execution_step(self, executor: Any) -> None:
        """Its loop has turned once; called in its own thread."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """All is done."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """It ends with an error."""
