"""Canonical tables, their conversion, and the immutable snapshot that holds them."""
