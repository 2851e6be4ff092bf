"""WordPiece as BERT uses it: chunks are its words, and plain words are encoded by compiled code.

The model takes from a word the longest piece that it begins with, then from the rest the longest
``##`` piece, and so on; a word that this does not consume, or that is longer than
``max_input_chars_per_word``, is one unknown token (Wu et al. 2016, arXiv:1609.08144, section 4.1;
Devlin et al. 2019, arXiv:1810.04805). It never looks beyond the word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import boolean, int32, int64, uint8, uint32, uint64
from numpy.typing import NDArray
from tokenizers import Tokenizer

from preprocessing.compiled import BYTES, compiled
from preprocessing.texts import Texts
from preprocessing.tokenization.bert_cuts import DROPPED, UNKNOWN, Characters
from preprocessing.tokenization.cuts import NUM_POINTS, cut
from preprocessing.tokenization.dictionary import Pool

PREFIX = "##"


class WordPiecePipeline:
    """BERT's tokenizer; raises nothing, since :mod:`.choice` has looked at the configuration.

    Args:
        tokenizer: with a WordPiece model, BERT's normalizer and BERT's pre-tokenizer.
        plain: its configuration, as in ``tokenizer.json``.
    """

    def __init__(self, tokenizer: Tokenizer, plain: Mapping[str, Any]) -> None:
        normalizer, model = plain["normalizer"], plain["model"]
        accents = normalizer["strip_accents"]
        self._characters = Characters.of(
            tokenizer.normalizer,
            tokenizer.pre_tokenizer,
            ideographs=normalizer["handle_chinese_chars"],
            decomposes=normalizer["lowercase"] if accents is None else accents,
        )
        self._most_characters = int(model["max_input_chars_per_word"])
        self._unknown = int(model["vocab"][model["unk_token"]])
        self._table = Pieces(model["vocab"])

    def cut(
        self,
        texts: Texts,
        state: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        hashes: NDArray[np.uint64],
    ) -> int:
        """The words of the texts."""
        return int(
            cut(texts.data, texts.offsets, self._characters.kinds, state, starts, lengths, hashes)
        )

    def encode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pool: Pool,
        counts: NDArray[np.int32],
    ) -> None:
        """Longest match first; a word with a character that is not plain is left over."""
        table = self._table
        pool.used = _encode(
            data, starts, lengths, counts, self._characters.folded,
            table.slots, table.spellings, table.places, table.longest,
            self._most_characters, self._unknown,
            pool.ids, pool.starts_word, pool.begins, pool.stops, pool.used,
        )  # fmt: skip


class Pieces:
    """The vocabulary as a hash table of spellings, those of ``##`` pieces without it.

    Attributes:
        slots: uint64 ``[slots]``: the upper half of a hash above an id plus one; 0 is empty.
        spellings: uint8, the pieces' UTF-8 bytes.
        places: int64 ``[ids + 1, 2]``, begin and end of each piece in ``spellings``, by id.
        longest: characters of the longest piece.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        size = max(vocabulary.values()) + 1
        keys: list[tuple[int, bytes, bool]] = []
        for piece, index in vocabulary.items():
            keys.append((index, piece.encode(), False))
            if piece.startswith(PREFIX):
                keys.append((index, piece.removeprefix(PREFIX).encode(), True))
        self.longest = max(map(len, vocabulary))
        raw = [key for _, key, _ in keys]
        ends = np.cumsum([0, *map(len, raw)])
        self.spellings = np.frombuffer(b"".join(raw), np.uint8)
        self.slots = np.zeros(1 << (4 * len(keys) - 1).bit_length(), np.uint64)
        self.places = np.zeros((size, 2, 2), np.int64)
        indices = np.array([index for index, _, _ in keys], np.int64)
        continues = np.array([c for _, _, c in keys], np.bool_)
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        self.places[indices, continues.astype(np.int64)] = spans
        _fill(self.spellings, spans, indices, continues, self.slots)


@compiled(uint64(uint64, uint8))
def _mix(value, byte):  # type: ignore[no-untyped-def]
    return (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)


@compiled(uint64(uint64))
def _finish(value):  # type: ignore[no-untyped-def]
    value ^= value >> np.uint64(29)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    return value ^ value >> np.uint64(32)


@compiled(uint64(boolean))
def _begin(continues):  # type: ignore[no-untyped-def]
    return np.uint64(0x9E3779B97F4A7C15) if continues else np.uint64(0xCBF29CE484222325)


@compiled((BYTES, int64[:, ::1], int64[::1], boolean[::1], uint64[::1]))
def _fill(spellings, spans, indices, continues, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for i in range(len(spans)):
        value = _begin(continues[i])
        for k in range(spans[i, 0], spans[i, 1]):
            value = _mix(value, spellings[k])
        value = _finish(value)
        slot = value & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = value & np.uint64(0xFFFFFFFF00000000) | np.uint64(indices[i] + 1)


@compiled(
    int64(BYTES, int64[::1], int32[::1], int32[::1], int32[::1],
          uint64[::1], BYTES, int64[:, :, ::1], int64, int64, int64,
          uint32[::1], boolean[::1], int32[::1], int32[::1], int64)
)  # fmt: skip
def _encode(  # type: ignore[no-untyped-def]
    data, starts, lengths, counts, folded,
    slots, spellings, places, longest, most_characters, unknown,
    ids, starts_word, begins, stops, used
):  # fmt: skip
    upper = np.uint64(0xFFFFFFFF00000000)
    lower = np.uint64(0x00000000FFFFFFFF)
    mask = np.uint64(len(slots) - 1)
    word = np.empty(4 * most_characters + 4, np.uint8)  # folded, as UTF-8
    ends = np.empty(most_characters + 1, np.int64)  # of each character in word
    sources = np.empty(most_characters + 1, np.int64)  # where in the chunk it comes from
    after = np.empty(most_characters + 1, np.int64)  # and where that ends
    values = np.empty(longest + 1, np.uint64)
    for i in range(len(starts)):
        start, stop = starts[i], starts[i] + lengths[i]
        place = start
        num_characters = size = last = 0
        plain = True
        while place < stop:
            source = place - start
            byte = np.int64(data[place])
            if byte < 0x80:
                point = byte
                place += 1
            elif byte < 0xE0:
                point = (byte & 0x1F) << 6 | np.int64(data[place + 1] & 0x3F)
                place += 2
            elif byte < 0xF0:
                point = (
                    (byte & 0x0F) << 12
                    | np.int64(data[place + 1] & 0x3F) << 6
                    | np.int64(data[place + 2] & 0x3F)
                )
                place += 3
            else:
                point = (
                    (byte & 0x07) << 18
                    | np.int64(data[place + 1] & 0x3F) << 12
                    | np.int64(data[place + 2] & 0x3F) << 6
                    | np.int64(data[place + 3] & 0x3F)
                )
                place += 4
            form = np.int64(folded[point]) if point < NUM_POINTS else UNKNOWN
            if form == UNKNOWN:
                plain = False
                break
            if form == DROPPED:
                continue
            if num_characters <= most_characters:
                sources[num_characters] = source
                after[num_characters] = place - start
                if num_characters < most_characters:
                    if form < 0x80:
                        word[size] = form
                        size += 1
                    elif form < 0x800:
                        word[size] = 0xC0 | form >> 6
                        word[size + 1] = 0x80 | form & 0x3F
                        size += 2
                    elif form < 0x10000:
                        word[size] = 0xE0 | form >> 12
                        word[size + 1] = 0x80 | form >> 6 & 0x3F
                        word[size + 2] = 0x80 | form & 0x3F
                        size += 3
                    else:
                        word[size] = 0xF0 | form >> 18
                        word[size + 1] = 0x80 | form >> 12 & 0x3F
                        word[size + 2] = 0x80 | form >> 6 & 0x3F
                        word[size + 3] = 0x80 | form & 0x3F
                        size += 4
                    ends[num_characters] = size
            num_characters += 1
            last = place - start
        if not plain:
            counts[i] = -1
            continue
        if num_characters == 0:
            counts[i] = 0
            continue
        first = used
        done = 0  # characters
        while done < num_characters <= most_characters:
            continues = done > 0
            begin = ends[done - 1] if continues else 0
            limit = min(num_characters, done + longest)
            value = _begin(continues)
            k = begin
            for character in range(done, limit):
                while k < ends[character]:
                    value = _mix(value, word[k])
                    k += 1
                values[character - done] = value
            taken = 0
            for character in range(limit - 1, done - 1, -1):
                value = _finish(values[character - done])
                slot = value & mask
                length = ends[character] - begin
                while slots[slot] != 0 and taken == 0:
                    if slots[slot] & upper == value & upper:
                        index = np.int64((slots[slot] & lower) - np.uint64(1))
                        spelled = places[index, 1 if continues else 0, 0]
                        if places[index, 1 if continues else 0, 1] - spelled == length:
                            k = 0
                            while k < length and spellings[spelled + k] == word[begin + k]:
                                k += 1
                            if k == length:
                                taken = character + 1 - done
                                ids[used] = index
                                starts_word[used] = not continues
                                begins[used] = sources[done]
                                stops[used] = after[character]
                                used += 1
                    slot = (slot + np.uint64(1)) & mask
                if taken:
                    break
            if taken == 0:
                break
            done += taken
        if done < num_characters:
            used = first
            ids[used] = unknown
            starts_word[used] = True
            begins[used] = sources[0]
            stops[used] = last
            used += 1
        counts[i] = used - first
    return used
