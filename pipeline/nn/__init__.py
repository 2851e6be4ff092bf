"""Building blocks of all families. No file here knows the name of a family."""
