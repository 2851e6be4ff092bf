"""Texts to ids at dictionary speed, identical to the library that the vocabulary belongs to."""
