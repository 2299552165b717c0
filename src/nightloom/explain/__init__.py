"""Reasons of a recommendation: Shapley values of history events and item fields, and a check that they hold."""
