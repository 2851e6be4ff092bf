"""What rides along with the ids of a document: phrases, entities, a segmenter's words, capitals.

corpus:
  annotations:
    phrases:
      - {path: lexicons/wordnet.tsv, case_sensitive: false}
    entities:
      - {path: lexicons/names.tsv}
    segmenter: {kind: jieba}
    capitals: true
"""

from __future__ import annotations

from preprocessing.annotations.settings import AnnotationsConfig, JiebaConfig, LexiconConfig

__all__ = ["AnnotationsConfig", "JiebaConfig", "LexiconConfig"]
