"""Training speed against peers: `python -m benchmarks.training`, or `make bench-training`."""
