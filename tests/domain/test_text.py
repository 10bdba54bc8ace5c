"""Texts, e-mail addresses and phone numbers that people hand in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from domain.contact import EmailAddress, PhoneNumber, normalise_email, normalise_phone
from domain.text import MOST_IN_SUBJECT, MOST_IN_TEXT, Label, Subject, Tag, Text

pytestmark = pytest.mark.pure

SUBJECT, TEXT, LABEL, TAG = (TypeAdapter[str](kind) for kind in (Subject, Text, Label, Tag))


@pytest.mark.parametrize("text", ["Printer", "打印机 3 号", "é", "🖨️", "a-b_c"])
def test_any_language_is_text(text: str) -> None:
    for kind in (SUBJECT, TEXT, LABEL, TAG):
        assert kind.validate_python(text) == text


@pytest.mark.parametrize("text", ["", " ", "\u3000", "\n", "a\x00b", "a\ud800b", "a\x1bb", "a\x7fb", "a\x85b"])
def test_what_is_blank_or_not_text_is_refused(text: str) -> None:
    for kind in (SUBJECT, TEXT, LABEL, TAG):
        with pytest.raises(ValidationError):
            kind.validate_python(text)


def test_only_messages_have_lines_and_keep_their_edges() -> None:
    assert TEXT.validate_python(" a\r\n\tb\n") == " a\r\n\tb\n"
    for kind in (SUBJECT, LABEL, TAG):
        assert kind.validate_python(" a ") == "a"
        for text in ("a\nb", "a\tb", "a\u2028b"):
            with pytest.raises(ValidationError):
                kind.validate_python(text)


def test_texts_have_an_end() -> None:
    for kind, most in ((SUBJECT, MOST_IN_SUBJECT), (TEXT, MOST_IN_TEXT), (LABEL, 100), (TAG, 60)):
        assert kind.validate_python("x" * most)
        with pytest.raises(ValidationError):
            kind.validate_python("x" * (most + 1))


@settings(deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=40))
def test_what_is_taken_can_be_stored(text: str) -> None:
    try:
        taken = TEXT.validate_python(text)
    except ValidationError:
        return
    assert "\x00" not in taken
    assert taken.encode().decode() == text


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("Carol@Example.ORG", "carol@example.org"),
        (" carol@example.org ", "carol@example.org"),
        ("o'neil+tickets@mail.example.co.uk", "o'neil+tickets@mail.example.co.uk"),
        ("陈@例子.中国", "陈@例子.中国"),
        ("ｃａｒｏｌ@example.org", "carol@example.org"),
    ],
)
def test_two_spellings_of_an_address_are_one(written: str, same: str) -> None:
    assert normalise_email(written) == same
    assert normalise_email(same) == same
    assert TypeAdapter[str](EmailAddress).validate_python(written) == written.strip()


@pytest.mark.parametrize(
    "written",
    [
        "",
        "@",
        "carol",
        "carol@",
        "@example.org",
        "carol@example",
        "a b@example.org",
        "a@b@example.org",
        "a..b@example.org",
        "a.@example.org",
        "a@-b.org",
        "a@example.1",
        "a@exam\x00ple.org",
        "a" * 65 + "@example.org",
        "a@" + "b." * 130 + "org",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(written)


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("138 0013 8000", "+8613800138000"),
        ("+86 138-0013-8000", "+8613800138000"),
        ("008613800138000", "+8613800138000"),
        ("＋８６　１３８００１３８０００", "+8613800138000"),
        ("010-6552 1234", "01065521234"),
        ("(010) 65521234 转 12", "01065521234x12"),
        ("+44 (0)20 7946 0958", "+442079460958"),
        ("+1 (212) 555-0100 ext. 7", "+12125550100x7"),
        ("110", "110"),
        ("13800138000x5", "+8613800138000x5"),
    ],
)
def test_two_spellings_of_a_number_are_one(written: str, same: str) -> None:
    assert normalise_phone(written) == same
    assert normalise_phone(same) == same
    assert TypeAdapter[str](PhoneNumber).validate_python(written) == written.strip()


@pytest.mark.parametrize(
    "written", ["", "+", "12", "call me", "1234567890123456", "12a34", "--", "1" + " " * 70 + "23"]
)
def test_what_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"phone number"):
        normalise_phone(written)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_normalising_never_fails_in_another_way_and_is_settled_after_once(text: str) -> None:
    for normalise in (normalise_email, normalise_phone):
        try:
            once = normalise(text)
        except ValueError:
            continue
        assert normalise(once) == once
