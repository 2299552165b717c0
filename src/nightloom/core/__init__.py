"""What everything else stands on: sequences, event names, the recommender protocol, metrics, errors. It imports nothing of the rest."""
