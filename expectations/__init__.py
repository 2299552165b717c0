"""Data contracts: Great Expectations suites on the canonical tables."""
