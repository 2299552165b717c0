"""Heads over retrieval: the re-ranker of the best candidates and the label head, with their counters."""
