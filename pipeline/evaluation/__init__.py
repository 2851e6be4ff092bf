"""Judging a trained model: held-out loss beside its baselines, and masks filled in."""
