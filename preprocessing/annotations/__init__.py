"""What rides along with the ids of a document: phrases, entities and the words of a segmenter.

corpus:
  annotations:
    phrases:
      - {path: lexicons/wordnet.tsv, case_sensitive: false}
    entities:
      - {path: lexicons/names.tsv}
    segmenter: {kind: jieba}
"""

from __future__ import annotations

from preprocessing.annotations.settings import AnnotationsConfig, JiebaConfig, LexiconConfig

__all__ = ["AnnotationsConfig", "JiebaConfig", "LexiconConfig"]
