"""Personal data, masked: what looks like it is found here, whether it is is for libraries to say.

Plain expressions find candidates; ``phonenumbers`` (Google's numbering plans), ``python-stdnum``
(check digits) and :mod:`ipaddress` judge them. Precision goes before recall: a number that may be
a date, an ISBN, a version or a section is left alone.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute

from preprocessing.cleaning.settings import PersonalDataConfig
from preprocessing.storage import InputError

# ASCII alone around candidates: a Chinese character beside a number is no part of it.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9\u00c0-\u024f_](?:[A-Za-z0-9\u00c0-\u024f._%+\-]{0,62}"
    r"[A-Za-z0-9\u00c0-\u024f_+\-])?@(?:[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f\-]"
    r"{0,61}[A-Za-z0-9\u00c0-\u024f])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9@_\-])"
)
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.\-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9_]|[.\-][0-9])")
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![A-Za-z0-9_:])"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(
    r"(?<![A-Za-z0-9])(?<![0-9][.,\-])[2-6][0-9]{3}(?:[ \-]?[0-9]){9,15}(?![A-Za-z0-9]|[.,\-][0-9])"
)
_PHONE = re.compile(
    r"(?<![A-Za-z0-9_+])(?<![0-9][.,\-/:])(?:\+ ?|\()?"
    r"[0-9][0-9 ().\-/\u00a0\u2010-\u2013]{5,22}[0-9]"
    r"(?![A-Za-z0-9_]|[.,:\-/][0-9])"
)
_DATE = re.compile(r"[0-9]{1,4}([./\- ])[0-9]{1,2}\1 ?[0-9]{1,4}(?:[ .].*)?")
_ABOUT_NETWORKS = re.compile(
    r"(?<![a-z])(?:IP|DNS|host|server|gateway)(?![a-z])[^0-9.;]*\Z", re.IGNORECASE
)
# Whether there may be anything, for RE2.
_SIGNS = r"@|[0-9](?:[ ().\-/\x{a0}\x{2010}-\x{2013}]{0,3}[0-9]){5}|[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:"

_CARD_ISSUERS = re.compile(
    r"(?:4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}"  # Diners Club
    r"|62[0-9]{14,17})\Z"  # UnionPay
)
_CARD_GROUPS = ((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 5))


class PersonalData:
    """Masks what is configured.

    Args:
        config: placeholders.

    Attributes:
        documents: how many documents held data of each kind.
        occurrences: how often.

    Raises:
        InputError: a library is missing.
    """

    def __init__(self, config: PersonalDataConfig) -> None:
        self._phonenumbers, self._iban, self._luhn, self._isbn = _libraries()
        masks: list[tuple[str, str | None, Callable[[str, str, Sequence[str]], str]]] = [
            ("iban", config.iban, self._mask_ibans),
            ("card", config.card, self._mask_cards),
            ("email", config.email, self._mask_emails),
            ("ip_address", config.ip_address, self._mask_addresses),
            ("phone", config.phone, self._mask_phones),
        ]
        self._masks = [(kind, mark, mask) for kind, mark, mask in masks if mark is not None]
        self.documents: Counter[str] = Counter()
        self.occurrences: Counter[str] = Counter()
        self._found = 0

    def apply(
        self, texts: pa.LargeStringArray, regions: Sequence[Sequence[str]]
    ) -> pa.LargeStringArray:
        """The texts without personal data; a column that holds none comes back as it is.

        Args:
            texts: ``[documents]``.
            regions: the countries whose telephone numbers are known, of each document.
        """
        signs = pyarrow.compute.match_substring_regex(texts, _SIGNS)
        suspects = np.flatnonzero(signs.to_numpy(zero_copy_only=False)).tolist()
        masked = {index: self.mask(texts[index].as_py(), regions[index]) for index in suspects}
        if not masked:
            return texts
        everything = texts.to_pylist()
        for index, text in masked.items():
            everything[index] = text
        return pa.array(everything, pa.large_string())

    def mask(self, text: str, regions: Sequence[str] = ()) -> str:
        """One text without personal data."""
        for kind, mark, mask in self._masks:
            self._found = 0
            text = mask(text, mark, regions)
            if self._found:
                self.documents[kind] += 1
                self.occurrences[kind] += self._found
        return text

    def _mask_emails(self, text: str, mark: str, regions: Sequence[str]) -> str:
        if "@" not in text:
            return text
        text, found = _EMAIL.subn(lambda match: mark, text)
        self._found += found
        return text

    def _mask_addresses(self, text: str, mark: str, regions: Sequence[str]) -> str:
        def version4(match: re.Match[str]) -> str:
            try:
                address = ipaddress.IPv4Address(match[0])
            except ValueError:
                return match[0]
            # Small numbers are versions and sections, unless the words before say otherwise.
            before = text[max(0, match.start() - 24) : match.start()].lower()
            small = max(address.packed) < 32 and not _ABOUT_NETWORKS.search(before)
            return match[0] if small or address.is_loopback else self._masked(mark)

        def version6(match: re.Match[str]) -> str:
            try:
                address = ipaddress.IPv6Address(match[0])
            except ValueError:
                return match[0]
            assigned = address.packed[0] >> 5 == 1 or address.is_link_local
            return self._masked(mark) if assigned else match[0]

        text = _IPV4.sub(version4, text)
        return _IPV6.sub(version6, text) if ":" in text else text

    def _mask_ibans(self, text: str, mark: str, regions: Sequence[str]) -> str:
        def judged(match: re.Match[str]) -> str:
            # Capitals behind the number may look like more of it.
            for end in range(len(match[0]), 14, -1):
                number = match[0][:end]
                if not match[0][end : end + 1].isalnum() and self._iban.is_valid(number):
                    return self._masked(mark) + match[0][len(number.rstrip()) :]
            return match[0]

        return _IBAN.sub(judged, text)

    def _mask_cards(self, text: str, mark: str, regions: Sequence[str]) -> str:
        def judged(match: re.Match[str]) -> str:
            groups = re.split("[ -]", match[0])
            digits = "".join(groups)
            written = len(groups) == 1 or tuple(map(len, groups)) in _CARD_GROUPS
            valid = _CARD_ISSUERS.match(digits) and self._luhn.is_valid(digits)
            return self._masked(mark) if written and valid else match[0]

        return _CARD.sub(judged, text)

    def _mask_phones(self, text: str, mark: str, regions: Sequence[str]) -> str:
        def judged(match: re.Match[str]) -> str:
            candidate = match[0]
            num_digits = sum(map(str.isdigit, candidate))
            isbn = num_digits >= 10 and self._isbn.is_valid(candidate)
            if isbn or _DATE.fullmatch(candidate):
                return candidate
            tried = [None] if candidate.startswith(("+", "(+")) else regions
            for region in tried:
                start, end = self._phone(candidate, region)
                if end:
                    return candidate[:start] + self._masked(mark) + candidate[end:]
            return candidate

        return _PHONE.sub(judged, text)

    def _phone(self, candidate: str, region: str | None) -> tuple[int, int]:
        """Where a number of a region begins and ends; ``(0, 0)`` where there is none."""
        library = self._phonenumbers
        leniency = library.Leniency.VALID if region is None else library.Leniency.STRICT_GROUPING
        for found in library.PhoneNumberMatcher(candidate, region, leniency=leniency):
            # Digits without any break are a telephone number only if they are a mobile one.
            mobile = library.number_type(found.number) == library.PhoneNumberType.MOBILE
            if region is None or not found.raw_string.isdigit() or mobile:
                return found.start, found.end
        return 0, 0

    def _masked(self, mark: str) -> str:
        self._found += 1
        return mark


def _libraries() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    try:
        names = ("phonenumbers", "stdnum.iban", "stdnum.luhn", "stdnum.isbn")
        phonenumbers, iban, luhn, isbn = map(importlib.import_module, names)
    except ImportError as error:
        raise InputError(
            f"corpus.clean.personal_data needs {error.name}: pip install lexmill[clean], or set "
            "corpus.clean.personal_data=null"
        ) from None
    return phonenumbers, iban, luhn, isbn
