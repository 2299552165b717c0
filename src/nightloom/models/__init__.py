"""The recommender and the classic families beside it, one architecture a file, one protocol for all."""
