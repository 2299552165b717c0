"""Scorers: they need no training, and their scores are added to the network's."""
