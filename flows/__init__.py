"""Wiring: one Prefect flow a file."""
