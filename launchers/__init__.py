"""A launch configuration becomes ordinary commands that a person can read and run alone."""
