"""Pretrained text and image models: loading, weights, caches."""
