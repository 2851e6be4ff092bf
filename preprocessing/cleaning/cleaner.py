"""All of cleaning over one batch of documents after the other, in the order of the configuration.

Repairs, language, C4's lines, C4's documents, Gopher's quality, Gopher's repetition, evaluation
sets, personal data. A rejected document keeps the reason of the first filter it failed.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from configs.schema import digest
from preprocessing.cleaning.c4 import LineFilters, check_documents
from preprocessing.cleaning.decontamination import EvaluationSets
from preprocessing.cleaning.gopher import check_quality, check_repetition
from preprocessing.cleaning.languages import LanguageIdentifier, same_language
from preprocessing.cleaning.personal import PersonalData
from preprocessing.cleaning.profiles import DEFAULT
from preprocessing.cleaning.repairs import Repairs
from preprocessing.cleaning.scanning import Scan
from preprocessing.cleaning.sequences import FoldedWords, WordSequences
from preprocessing.cleaning.settings import CleaningConfig
from preprocessing.cleaning.verdicts import Verdicts
from preprocessing.documents import SCHEMA, Rejected, document_id
from preprocessing.storage import InputError
from preprocessing.texts import Texts

UNKNOWN = "und"


@dataclass(frozen=True)
class Knowledge:
    """What cleaning must have at hand; made once a process.

    Attributes:
        identifier: of languages, where they are identified.
        evaluation: sets to keep apart from.
        stop_words: folded hashes, by profile.
        bad_words: by profile, where a list is given.
    """

    identifier: LanguageIdentifier | None
    evaluation: EvaluationSets | None
    stop_words: Mapping[str, NDArray[np.uint64]]
    bad_words: Mapping[str, WordSequences]

    @staticmethod
    def of(config: CleaningConfig) -> Knowledge:
        """Read what the configuration names.

        Raises:
            InputError: a file or a library is missing or no good.
        """
        lists = {
            language: profile.c4.bad_words
            for language, profile in config.profiles.items()
            if profile.c4 is not None and profile.c4.bad_words is not None
        }
        return Knowledge(
            LanguageIdentifier() if config.identify_language else None,
            EvaluationSets.of(config.decontaminate) if config.decontaminate else None,
            {
                language: np.unique(_folded(profile.stop_words))
                for language, profile in config.profiles.items()
            },
            {language: _bad_words(path) for language, path in lists.items()},
        )


_known: dict[str, Knowledge] = {}


def knowledge(config: CleaningConfig) -> Knowledge:
    """:meth:`Knowledge.of`, read once in a process; one configuration's is kept."""
    key = digest(config)
    if key not in _known:
        _known.clear()
        _known[key] = Knowledge.of(config)
    return _known[key]


def versions(config: CleaningConfig) -> dict[str, str]:
    """The versions of what decides with us.

    Raises:
        InputError: a library is missing.
    """
    names = ["py3langid"] if config.identify_language else []
    names += ["phonenumbers", "python-stdnum"] if config.personal_data else []
    try:
        found = {name: metadata.version(name) for name in names}
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"corpus.clean needs {error.name}: pip install lexmill[clean], or switch off "
            "corpus.clean.identify_language and corpus.clean.personal_data"
        ) from None
    return found | {"unicode": unicodedata.unidata_version}


class Cleaner:
    """Cleans the batches of one task and counts what it does.

    Attributes:
        tables: counts for the manifest.
    """

    def __init__(self, config: CleaningConfig) -> None:
        self._config = config
        self._knowledge = knowledge(config)
        self._repairs = Repairs(config)
        self._lines = LineFilters()
        self._personal = PersonalData(config.personal_data) if config.personal_data else None
        self._contaminated: dict[str, int] = {}
        self._languages: Counter[str] = Counter()

    @property
    def tables(self) -> dict[str, dict[str, int]]:
        """Repairs count whether or not the document stays, languages the documents that do."""
        documents = self._repairs.documents + self._lines.documents
        occurrences = self._repairs.occurrences + self._lines.occurrences
        if self._personal is not None:
            documents += self._personal.documents
            occurrences += self._personal.occurrences
        tables = {
            "documents by language": dict(self._languages),
            "documents by evaluation set": self._contaminated,
            "documents repaired": dict(documents),
            "repairs": dict(occurrences),
        }
        return {name: table for name, table in tables.items() if table}

    def clean(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Rejected]]:
        """The documents that stay, as they should be, and the others with their reasons."""
        config = self._config
        given = batch.column("text")
        verdicts = Verdicts(batch.num_rows)
        texts = self._repairs.apply(given)
        _reject_empty(texts, verdicts)
        languages = self._identified(batch.column("language").to_pylist(), texts, verdicts)
        if config.languages:
            known = [
                any(same_language(language, wanted) for wanted in config.languages)
                for language in languages
            ]
            verdicts.reject(
                "language", ~np.array(known), lambda index: f"is {languages[index] or UNKNOWN}"
            )
        profiles = np.array([self._profile(language) for language in languages])
        texts = self._filtered_lines(texts, profiles, verdicts)
        self._check(texts, profiles, verdicts)
        _reject_empty(texts, verdicts)
        texts = texts.filter(pa.array(verdicts.kept))
        kept = np.flatnonzero(verdicts.kept).tolist()
        if self._personal is not None:
            regions = [config.profiles[profiles[index]].phone_regions for index in kept]
            texts = self._personal.apply(texts, regions)
        self._languages.update(languages[index] or UNKNOWN for index in kept)
        return _documents(batch, kept, texts, languages), _rejected(batch, verdicts)

    def _identified(
        self, given: Sequence[str | None], texts: pa.LargeStringArray, verdicts: Verdicts
    ) -> list[str | None]:
        """Of each document: what its column says, else what the library does."""
        identifier = self._knowledge.identifier
        languages = list(given)
        if identifier is not None:
            for index in np.flatnonzero(verdicts.kept).tolist():
                if languages[index] is None:
                    language, probability = identifier.identify(texts[index].as_py())
                    if probability >= self._config.min_confidence:
                        languages[index] = language
        return languages

    def _profile(self, language: str | None) -> str:
        """The name of the profile that is closest to a language."""
        fitting = [
            name
            for name in self._config.profiles
            if name != DEFAULT and same_language(language, name)
        ]
        return max(fitting, key=len, default=DEFAULT)

    def _filtered_lines(
        self, texts: pa.LargeStringArray, profiles: NDArray[np.str_], verdicts: Verdicts
    ) -> pa.LargeStringArray:
        for name in np.unique(profiles).tolist():
            profile = self._config.profiles[name]
            if profile.c4 is None:
                continue
            mine = pa.array((profiles == name) & verdicts.kept)
            filtered = self._lines.apply(profile.c4, profile, texts.filter(mine))
            texts = pyarrow.compute.replace_with_mask(texts, mine, filtered)
        return texts

    def _check(
        self, texts: pa.LargeStringArray, profiles: NDArray[np.str_], verdicts: Verdicts
    ) -> None:
        """Apply every filter of whole documents."""
        column = Texts.of(texts)
        scan = Scan.of(column)
        for name in np.unique(profiles).tolist():
            profile = self._config.profiles[name]
            mine = profiles == name
            if profile.c4 is not None:
                bad_words = self._knowledge.bad_words.get(name)
                check_documents(profile.c4, bad_words, texts, scan, mine, verdicts)
            if profile.gopher is not None:
                stop_words = self._knowledge.stop_words[name]
                check_quality(profile.gopher, stop_words, scan, mine, verdicts)
            if profile.repetition is not None:
                check_repetition(profile.repetition, column, scan, mine, verdicts)
        if self._knowledge.evaluation is not None:
            self._knowledge.evaluation.check(scan, verdicts, self._contaminated)


def _reject_empty(texts: pa.LargeStringArray, verdicts: Verdicts) -> None:
    blank = pyarrow.compute.match_substring_regex(texts, r"\A\s*\z").to_numpy(zero_copy_only=False)
    verdicts.reject("empty", blank, lambda index: "nothing is left of the text")


def _documents(
    batch: pa.RecordBatch,
    kept: list[int],
    texts: pa.LargeStringArray,
    languages: Sequence[str | None],
) -> pa.RecordBatch:
    rows = batch.take(pa.array(kept, pa.int64()))
    same = pyarrow.compute.equal(rows.column("text"), texts).to_pylist()
    ids = rows.column("id").to_pylist()
    for index, unchanged in enumerate(same):
        if not unchanged:
            ids[index] = document_id(texts[index].as_py())
    columns = {
        "id": pa.array(ids, SCHEMA.field("id").type),
        "text": texts,
        "language": pa.array([languages[index] for index in kept], pa.string()),
    }
    return pa.RecordBatch.from_arrays(
        [columns.get(name, rows.column(name)) for name in SCHEMA.names], schema=SCHEMA
    )


def _rejected(batch: pa.RecordBatch, verdicts: Verdicts) -> list[Rejected]:
    return [
        Rejected(
            verdicts.reasons[index],
            batch.column("source")[index].as_py(),
            batch.column("offset")[index].as_py(),
            verdicts.details[index],
            batch.column("id")[index].as_py().hex(),
        )
        for index in np.flatnonzero(~verdicts.kept).tolist()
    ]


def _folded(words: Sequence[str]) -> NDArray[np.uint64]:
    return FoldedWords.of(Scan.of(Texts.of(pa.array(words, pa.large_string())))).hashes


def _bad_words(path: Path) -> WordSequences:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of words: {error}") from None
    words = [line for line in lines if line.strip()]
    if not words:
        raise InputError(f"{path}: holds no words; one a line is expected")
    longest = max(len(FoldedWords.of(Scan.of(Texts.of(pa.array([w])))).hashes) for w in words)
    return WordSequences([words], ngram=max(1, longest), min_words=1)
