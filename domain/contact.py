"""E-mail addresses and phone numbers: what is one, and when two are the same."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MOST_IN_EMAIL = 254
"""The longest address that mail can be sent to (RFC 5321, 4.5.3.1.3)."""
FEWEST_DIGITS = 3
"""Short service numbers and extensions count."""
MOST_DIGITS = 15
"""ITU-T E.164, country code included."""
MOST_AS_WRITTEN = 60
"""Room for brackets, blanks and an extension."""

_EMAIL = re.compile(r"[^\s@\"<>(),:;\\\[\]]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_](?:[\w-]{0,61}[^\W_])?")
_PHONE = re.compile(r"(?P<number>\+?[\d\s().\-/]+?)(?:\s*(?:;ext=|ext\.?|x|#|转)\s*(?P<extension>\d{1,8}))?", re.ASCII)
_NATIONAL_MOBILE_CN = re.compile(r"1[3-9]\d{9}")


def normalise_email(address: str) -> str:
    """Give the form in which two spellings of one address are equal; raise ValueError where it is none.

    The local part is folded too: desks meet the same person in both cases far more often than two persons who
    differ by case only.
    """
    folded = unicodedata.normalize("NFKC", address.strip()).casefold()
    if len(folded) > MOST_IN_EMAIL or not _EMAIL.fullmatch(folded) or ".." in folded or folded.split("@")[0][-1] == ".":
        message = "is not an e-mail address"
        raise ValueError(message)
    return folded


def normalise_phone(number: str) -> str:
    """Give digits with a leading + where the country is known, and x with an extension; raise ValueError on others.

    00 counts as +, a trunk zero in brackets after a country code is dropped, and a bare mainland mobile number
    (eleven digits from 13 to 19) is taken as +86.
    """
    plain = unicodedata.normalize("NFKC", number.strip())
    parts = _PHONE.fullmatch(plain) if len(plain) <= MOST_AS_WRITTEN else None
    if parts is None:
        message = "is not a phone number"
        raise ValueError(message)
    written = parts["number"]
    international = written.startswith(("+", "00"))
    if international:
        written = written.replace("(0)", "")
    digits = re.sub(r"\D", "", written)
    if written.startswith("00"):
        digits = digits[2:]
    if not FEWEST_DIGITS <= len(digits) <= MOST_DIGITS:
        message = f"has {len(digits)} digits; a phone number has {FEWEST_DIGITS} to {MOST_DIGITS}"
        raise ValueError(message)
    if not international and _NATIONAL_MOBILE_CN.fullmatch(digits):
        international, digits = True, f"86{digits}"
    extension = f"x{parts['extension']}" if parts["extension"] else ""
    return f"{'+' if international else ''}{digits}{extension}"


def _email_as_written(address: str) -> str:
    normalise_email(address)
    return address


def _phone_as_written(number: str) -> str:
    normalise_phone(number)
    return number


EmailAddress = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_email_as_written)]
"""An address, kept as written."""

PhoneNumber = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_phone_as_written)]
"""A number, kept as written."""
