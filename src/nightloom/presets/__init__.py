"""Shipped configs, one YAML a domain."""
