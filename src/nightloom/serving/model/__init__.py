"""A champion in numpy and numba: encoder, scorers, fusion, re-ranker, cached users."""
