"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("nightloom", deadline=None)  # machines are busy, and no test is about seconds
settings.load_profile("nightloom")
