"""Training: one loop, two engines behind one protocol, checkpoints, tracking."""
