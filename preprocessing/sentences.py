"""Sentence boundaries of a document by rule: English-like scripts and Chinese or Japanese.

    >>> text = 'Mr. Hale left. "Why?" she asked.\\nHe met J. R. Thorne. 「行こう。」と言った。'
    >>> [text[start:stop] for start, stop in split_sentences(text)]
    ['Mr. Hale left.', '"Why?" she asked.', 'He met J. R. Thorne.', '「行こう。」', 'と言った。']

The rules:

- A line end always ends a sentence.
- ``.``, ``!``, ``?`` and ``…``, with the quotes and brackets that close after them, end one where
  white space follows and then an upper-case letter (or one of a script without case), a digit or
  an opening quote or bracket.
- A lone ``.`` does not after a title (``Mr.``), after ``e.g.`` and its like, after a single
  initial (``J.``, but not the pronoun in "So did I."), nor, before a digit, after ``No.``,
  ``Fig.`` or a month.
- ``。``, ``！`` and ``？``, with what closes after them, end one at once.
"""

from __future__ import annotations

import re

_CLOSING = re.escape("\"'”’“»«›)]}」』）】》〉")
_CLOSING_WIDE = re.escape("”’」』）】》〉")
_OPENING = frozenset("\"'“‘„«»‹([{¿¡「『（【《〈")
# Every terminator matches, wherever it stands, so that a long run of them is passed only once.
_CANDIDATE = re.compile(
    rf"([.!?…]++[{_CLOSING}]*+)\s*+"
    rf"|([。！？｡][.!?…。！？｡{_CLOSING_WIDE}]*+)\s*+"
    r"|[\n\r\v\f\x85\u2028\u2029]\s*+"
)
_LINE_END = re.compile(r"[\n\r\v\f\x85\u2028\u2029]")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_ABBREVIATIONS = _words(
    "Mr Mrs Ms Messrs Mme Mlle Dr Drs Prof Rev Revd Hon St Ste Fr Capt Cpt Col Gen Lt Maj Sgt Cpl "
    "Pvt Adm Cdr Gov Sen Rep Pres Supt Insp Mt "
    "e.g eg i.e ie etc cf vs v viz ca approx resp E.g I.e Cf Vs Viz"
)
_BEFORE_NUMBERS = _words(
    "No Nos Nr Vol Vols Fig Figs Eq Eqs Ch Chap Sec Sect Art Pt Ver p pp no nos nr vol fig figs eq "
    "ch chap sec sect art par pt ver Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
# No abbreviation with its opening brackets is as long, so a word cut off here is none of them.
_LONGEST_WORD = 12


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character spans ``(start, stop)`` of the sentences of a document.

    The spans are in order, do not overlap, hold every character that is not white space, and none
    is empty or begins or ends with white space.
    """
    length = len(text)
    start = length - len(text.lstrip())
    spans = []
    for match in _CANDIDATE.finditer(text, start):
        mark, following = match.span()
        if following == length:
            break
        if match.lastindex is None:
            stop = mark
            while text[stop - 1].isspace():
                stop -= 1
        else:
            stop = match.end(match.lastindex)
            if match.lastindex == 1 and not _ends(text, start, mark, stop, following):
                continue
        spans.append((start, stop))
        start = following
    if start < length:
        spans.append((start, len(text.rstrip())))
    return spans


def _ends(text: str, start: int, mark: int, stop: int, following: int) -> bool:
    """Whether a candidate ends the sentence that began at ``start``.

    The terminators begin at ``mark``, the white space at ``stop``, what comes after it at
    ``following``.
    """
    if stop == following:
        return False
    if _LINE_END.search(text, stop, following):
        return True
    after = text[following]
    if not (after in _OPENING or after.isdigit() or (after.isalpha() and not after.islower())):
        return False
    if stop - mark > 1 or text[mark] != ".":
        return True
    words = text[max(start, mark - _LONGEST_WORD) : mark].split()
    word = words[-1].lstrip("([\"'“‘") if words else ""
    if word in _ABBREVIATIONS or (word in _BEFORE_NUMBERS and after.isdigit()):
        return False
    initial = word.rpartition(".")[2]  # of "J.R" too
    return not (len(initial) == 1 and initial.isupper() and initial != "I")
