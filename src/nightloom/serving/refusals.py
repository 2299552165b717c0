"""Requests that are well formed, and yet can not be answered."""

from __future__ import annotations

from nightloom.core.errors import InputError


class Conflict(InputError):
    """The fields contradict each other, or name what the model that serves does not know. The message begins with the field."""


class Forged(InputError):
    """A token that this service did not sign."""
