"""Fitting the model: trainer, losses, distributed launch, checkpoints."""
