"""Text to examples: NumPy and Arrow only, so that it installs alone on CPU nodes."""
