"""Comparisons beside the night: replay, baselines, transfer."""
