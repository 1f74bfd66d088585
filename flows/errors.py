"""Errors that the user can mend."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Told in one sentence, without a traceback.

    Args:
        text: the sentence.
        usage: whether the command was wrong (exit status 2) or the world is (1).
    """

    def __init__(self, text: str, *, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage
