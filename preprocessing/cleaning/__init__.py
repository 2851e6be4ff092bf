"""Cleaning: what is repaired in documents, what is masked, and which documents are dropped."""

from preprocessing.cleaning.settings import CleaningConfig

__all__ = ["CleaningConfig"]
