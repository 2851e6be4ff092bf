"""Checkpoints: written whole, verified, moved between engines, hosts and object stores."""
