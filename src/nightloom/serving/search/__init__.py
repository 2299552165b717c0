"""Asking in words: titles and attributes, meaning, and what a person likes."""
