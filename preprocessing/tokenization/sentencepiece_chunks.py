"""The kernel of the SentencePiece encoder: texts in, ids out, with a memory of chunks.

It runs until it needs something that only Python has (more room, the library itself), says so, and
goes on where it was.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int32, int64, uint8, uint16, uint32, uint64

from preprocessing.compiled import BYTES, PLACES, compiled
from preprocessing.tokenization.sentencepiece_kernels import (
    LOWEST_SUM,
    SPACE_POINT,
    best_two,
    character,
    library_viterbi,
    merge,
    normal_form,
    simple_form,
)
from preprocessing.tokenization.sentencepiece_memory import LONGEST_KEY, TOKENS_A_FORM
from preprocessing.tokenization.sentencepiece_model import BIGRAM_BITS, RESERVED, WHITE

COMPILED_WITH = {"sentencepiece_kernels.py": "8ab1ac5170670d67"}
"""Digests of the files whose kernels are compiled into those of this one; see ``compiled``."""

DONE, FULL, MORE_ROOM, REFERENCE = range(4)
"""Why the kernel came back."""
LONGEST_WORD_KEY = 24
"""Bytes of a word of a unigram model that is remembered. Longer ones seldom come again, and are
searched as fast as they are remembered; so are most of those between Chinese or Japanese marks."""
_UNCUT = 1024
"""Bytes of a word of a unigram model before it may be cut: looking for cuts takes time."""

(
    TEXT, BYTE, CONTINUES, TOKENS, MARK, AFTER_UNKNOWN,
    FIRST_TOKEN, FIRST_MARK, BEGUN, STATE_SIZE,
) = range(10)  # fmt: skip
"""Where the kernel is, as an array. ``BYTE`` is where a chunk, or white space before it, begins;
``CONTINUES`` says that it goes on a word. ``FIRST_TOKEN`` and
``FIRST_MARK`` are those of the text, for beginning it anew."""


@compiled(int64(int32[::1], int64))
def _letter(letters, code):  # type: ignore[no-untyped-def]
    """The code point of a code."""
    return np.int64(letters[code]) if code < len(letters) else code - len(letters)


@compiled(int64(int64))
def _utf8_size(point):  # type: ignore[no-untyped-def]
    if point < 0x800:
        return 1 if point < 0x80 else 2
    return 3 if point < 0x10000 else 4


@compiled(int64(int64, int64, int64))
def _utf8_byte(point, size, k):  # type: ignore[no-untyped-def]
    """Byte k of a character of so many bytes."""
    if size == 1:
        return point
    rest = point >> (6 * (size - 1 - k))
    if k:
        return 0x80 | rest & 0x3F
    return rest | (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0)


@compiled(
    int64(
        int32[::1], int32[::1], int64, int32[:, ::1], int32[:], float32[:], int32[::1],
        int32, int32, float32, int32[::1], int32[::1], float32[::1], uint16[::1], int64,
    )
)  # fmt: skip
def _write_tokens(  # type: ignore[no-untyped-def]
    text, origins, size, back, node_ids, node_scores, letters,
    space, unknown, unknown_score, bytes_of, tokens, token_scores, begins, first,
):  # fmt: skip
    """Write the tokens that the way back from the end passes, in order; how many."""
    fallback = len(bytes_of) > 0
    count = 0
    place = size
    while place > 0:
        begin = np.int64(back[place, 0])
        bytewise = fallback and back[place, 1] == 0
        count += _utf8_size(_letter(letters, text[begin])) if bytewise else 1
        place = begin
    token = first + count
    place = size
    while place > 0:
        begin = np.int64(back[place, 0])
        node = back[place, 1]
        origin = origins[begin]
        if begin > 0 and origins[begin - 1] == origin and text[begin - 1] != space:
            origin += 1  # in the middle of what one character became
        is_start = text[begin] == space
        if fallback and node == 0:
            point = _letter(letters, text[begin])
            num_bytes = _utf8_size(point)
            for k in range(num_bytes - 1, -1, -1):
                token -= 1
                tokens[token] = 2 * bytes_of[_utf8_byte(point, num_bytes, k)]
                token_scores[token] = np.float32(0.0)
                begins[token] = origin
            token_scores[token] = unknown_score
            tokens[token] += is_start
        else:
            token -= 1
            tokens[token] = 2 * (node_ids[node] if node else unknown) + is_start
            token_scores[token] = node_scores[node] if node else unknown_score
            begins[token] = origin
        place = begin
    return count


_MEMORY = (
    uint64[::1], int32[:, ::1], uint8[::1],
    int32[::1], float32[::1], uint16[::1], int64[::1],
)  # fmt: skip
_SCRATCH = (int32[::1], int32[::1], float64[:, ::1], float32[::1], int32[:, ::1], int64[:, ::1])


@compiled(
    int64(
        BYTES, PLACES, int64[::1], float32[::1], boolean, int64,
        int32[::1], uint8[::1], uint8[::1], uint32[::1], uint8[::1],
        int32[::1], int32[::1], int32[:, ::1], int32[:], float32[:],
        int32, float32, float64, int32[::1],
        *_MEMORY, *_SCRATCH,
        int32[::1], boolean[::1], int64[::1], PLACES, int64[::1], boolean[::1],
    )
)  # fmt: skip
def encode_chunks(  # type: ignore[no-untyped-def]
    data, offsets, state, total, unigram, longest,
    forms, frequent_cuts, sieve, units, targets,
    codes, letters, cells, node_ids, node_scores, unknown, unknown_score, largest, bytes_of,
    slots, entries, keys, pool, pool_scores, pool_begins, used,
    text, origins, best, sums, back, symbols,
    ids, starts, text_ends, marks, at, exact,
):  # fmt: skip
    """Encode texts from ``state`` on; the reason for coming back."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    upper = np.uint64(0xFFFFFFFF00000000)
    lower = np.uint64(0xFFFFFFFF)
    mask = np.uint64(len(slots) - 1)
    num_texts, num_marks = len(offsets) - 1, len(marks)
    alphabet, space = np.int64(len(letters)), codes[SPACE_POINT]
    uncut = _UNCUT if unigram else 0
    longest_key = LONGEST_WORD_KEY if unigram else LONGEST_KEY
    while state[TEXT] < num_texts:
        index = state[TEXT]
        stop = offsets[index + 1]
        begin = state[BYTE]
        continues = state[CONTINUES] == 1
        tokens, mark = state[TOKENS], state[MARK]
        after_unknown = state[AFTER_UNKNOWN] == 1
        if state[BEGUN] == 0:
            state[BEGUN] = 1
            state[FIRST_TOKEN], state[FIRST_MARK] = tokens, mark
            total[0] = 0.0
            after_unknown = False
            continues = False
        before = total[0]
        reason = DONE
        while True:
            # The next chunk: from begin to place.
            if not continues:
                while begin < stop:
                    point, width = character(data, begin)
                    if forms[point] != WHITE:
                        break
                    begin += width
            if begin >= stop:
                break
            place = begin
            simple = True
            left = np.int64(-1)
            value = golden if continues else np.uint64(0)
            cut = False
            num_characters = 0
            while place < stop:
                point, width = np.int64(data[place]), 1
                if point >= 0x80:
                    point, width = character(data, place)
                right = np.int64(forms[point])
                if right == WHITE:
                    break
                if right < 0:
                    if right == RESERVED:
                        reason = REFERENCE
                        break
                    simple = False
                elif left >= 0 and (point < 0x80 or place - begin >= uncut):
                    if left < 128 and right < 128:
                        cut = frequent_cuts[left * 128 + right] == 1
                    else:
                        bit = (np.uint64(left << 21 | right) * golden) >> np.uint64(
                            64 - BIGRAM_BITS
                        )
                        cut = sieve[bit >> np.uint64(3)] >> (bit & np.uint64(7)) & 1 == 0
                    if cut and place + width < stop:  # what follows may change this character
                        following, _ = character(data, place + width)
                        cut = forms[following] >= WHITE
                    if cut:
                        break
                value = (value ^ np.uint64(point)) * golden
                left = right
                num_characters += 1
                place += width
            length = place - begin
            if reason == REFERENCE or length > longest:
                reason = REFERENCE
                break
            # A character of BPE by itself is the piece that it is.
            alone = False
            if not unigram and continues and num_characters == 1 and 0 <= left < alphabet:
                alone = node_ids[left] >= 0
            # Its entry.
            value ^= value >> np.uint64(32)
            value *= golden
            tag = value & upper
            signed_length = -length if continues else length
            entry = np.int64(-1)
            slot = value >> np.uint64(20) & mask
            if length <= longest_key and not alone:
                while slots[slot] != 0:
                    if slots[slot] & upper == tag:
                        candidate = np.int64(slots[slot] & lower) - 1
                        if entries[candidate, 1] == signed_length:
                            key = np.int64(entries[candidate, 0])
                            k = 0
                            while k < length and keys[key + k] == data[begin + k]:
                                k += 1
                            if k == length:
                                entry = candidate
                                break
                    slot = (slot + np.uint64(1)) & mask
            if before < LOWEST_SUM:
                before = np.float32(0.0)
            sure = alone or (entry >= 0 and -before <= entries[entry, 4])
            if not sure:  # new, or behind too large a sum: its pieces have to be found
                if (
                    used[0] == len(entries)
                    or used[1] + LONGEST_KEY > len(keys)
                    or used[2] + 2 * TOKENS_A_FORM > len(pool)
                ):
                    reason = FULL
                    break
                if simple:
                    size = simple_form(data, begin, place, continues, forms, codes, text, origins)
                else:
                    size = normal_form(
                        data, begin, place, continues, codes, units, targets, text, origins
                    )
                if size < 0:
                    reason = REFERENCE
                    break
            if alone:
                first, count = used[2], np.int64(1)
                pool[first], pool_scores[first], pool_begins[first] = 2 * node_ids[left], 0.0, 0
            elif entry < 0 and (length <= longest_key or not unigram):
                limit = np.float64(-LOWEST_SUM)
                if unigram:
                    lead = best_two(
                        text, size, cells, node_ids, node_scores, alphabet, unknown_score,
                        best, back,
                    )  # fmt: skip
                    limit = min(lead * 2.0**23 / (size + 2), limit) - (size + 2) * largest
                else:
                    merge(text, size, cells, node_ids, node_scores, alphabet, symbols, back)
                first = used[2]
                count = _write_tokens(
                    text, origins, size, back, node_ids, node_scores, letters, space,
                    unknown, unknown_score, bytes_of, pool, pool_scores, pool_begins, first,
                )  # fmt: skip
                sure = -before <= limit
                if length <= longest_key:
                    entry = used[0]
                    slots[slot] = tag | np.uint64(entry + 1)
                    entries[entry, 0] = used[1]
                    entries[entry, 1] = signed_length
                    entries[entry, 2] = first
                    entries[entry, 3] = count
                    entries[entry, 4] = np.int32(np.floor(max(limit, -1.0)))
                    for k in range(length):
                        keys[used[1] + k] = data[begin + k]
                    used[0] += 1
                    used[1] += length
                    used[2] += count
            elif entry >= 0:
                first, count = np.int64(entries[entry, 2]), np.int64(entries[entry, 3])
            if not sure:
                library_viterbi(
                    text, size, cells, node_ids, node_scores, alphabet, unknown_score,
                    before, sums, back,
                )  # fmt: skip
                first = used[2]
                count = _write_tokens(
                    text, origins, size, back, node_ids, node_scores, letters, space,
                    unknown, unknown_score, bytes_of, pool, pool_scores, pool_begins, first,
                )  # fmt: skip
            # Its tokens.
            if tokens + count > len(ids):
                reason = MORE_ROOM
                break
            for k in range(first, first + count):
                token = pool[k] >> 1
                known = token != unknown or not after_unknown
                after_unknown = token == unknown
                before = np.float32(before + pool_scores[k])
                while mark < num_marks and marks[mark] <= begin + pool_begins[k]:
                    at[mark] = tokens
                    exact[mark] = known and (k == first or marks[mark] == begin + pool_begins[k])
                    mark += 1
                if known:
                    ids[tokens] = token
                    starts[tokens] = pool[k] & 1
                    tokens += 1
            while count and mark < num_marks and marks[mark] < place:
                at[mark] = tokens
                exact[mark] = False
                mark += 1
            if not sure:
                before = sums[size]
            begin = place
            continues = cut
        if reason == REFERENCE:
            state[TOKENS], state[MARK] = state[FIRST_TOKEN], state[FIRST_MARK]
            return reason
        state[TOKENS], state[MARK] = tokens, mark
        state[BYTE], state[CONTINUES] = begin, continues
        state[AFTER_UNKNOWN] = after_unknown
        total[0] = before
        if reason != DONE:
            return reason
        while mark < num_marks and (marks[mark] < stop or index == num_texts - 1):
            at[mark] = tokens
            exact[mark] = True
            mark += 1
        state[MARK] = mark
        state[TEXT], state[BYTE] = index + 1, stop
        state[BEGUN] = 0
        text_ends[index + 1] = tokens
    return DONE
