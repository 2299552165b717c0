"""Shells around the recommender: one stage a file."""
