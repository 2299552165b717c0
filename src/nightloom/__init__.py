"""Nightloom: a recommender on pretrained language models that retrains itself every night."""

__version__ = "0.2.0"
