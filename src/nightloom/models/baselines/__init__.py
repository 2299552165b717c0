"""Baselines that are ranked beside the model."""
