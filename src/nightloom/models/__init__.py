"""The recommender, its scorers and heads, the baselines and click models: one architecture a file, one protocol for all."""
