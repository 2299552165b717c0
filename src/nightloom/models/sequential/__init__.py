"""The sequential recommender: item content, history encoder, network."""
