"""What a text may be that somebody hands to the desk; texts already recorded are taken as they are."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MOST_IN_SUBJECT = 300
MOST_IN_TEXT = 65_536
MOST_IN_LABEL = 100
MOST_IN_TAG = 60


# Controls (NUL among them) and lone surrogates, which no encoding can carry.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable_text(text: str) -> str:
    """Give the text back; raise ValueError where it holds a control character other than tab and line end."""
    return _without(_NOT_TEXT, text)


def printable_line(text: str) -> str:
    """Give the text back; raise ValueError where it holds a control character or a second line."""
    return _without(_NOT_IN_A_LINE, text)


def _without(unwanted: re.Pattern[str], text: str) -> str:
    if found := unwanted.search(text):
        message = f"contains U+{ord(found.group()):04X} at {found.start()}, which is not text"
        raise ValueError(message)
    return text


Subject = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_IN_SUBJECT),
    AfterValidator(printable_line),
]
"""The subject line of a ticket."""

Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_IN_TEXT, pattern=r"\S"),
    AfterValidator(printable_text),
]
"""A message or a note: any number of lines, kept as written, not blank."""

Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_IN_LABEL),
    AfterValidator(printable_line),
]
"""A short name: of a person, a team, a category, a custom field, a third party."""

Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_IN_TAG),
    AfterValidator(printable_line),
]
"""A tag, in whatever language and case it was given."""
