"""What a store says when it can not take a write; each leaves what was acknowledged as it is."""

from __future__ import annotations

from nightloom.core.errors import InputError, NightloomError


class StoreError(NightloomError):
    """Base of the errors below."""


class StoreFull(StoreError):
    """The disk is full, or does not take writes. Nothing of the refused write is kept; once there is space again writes succeed."""


class StoreBusy(StoreError):
    """More writes wait than the queue holds. Try again a little later."""


class StoreClosed(StoreError):
    """The store was closed, or is being closed."""


class CentralUnavailable(StoreError):
    """PostgreSQL has not confirmed a write in time. The write is durable here and goes on later; sending it again is harmless."""


class WriteRefused(StoreError, InputError):
    """A value that no database takes, such as an integer beyond 64 bits or broken Unicode. The others of its group were written."""
