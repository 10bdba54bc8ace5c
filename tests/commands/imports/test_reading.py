"""Files as they come: packed or not, with odd headers, broken lines and nothing at all."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from commands.imports import FORMATS, ImportRefused
from commands.imports.reading import Case, Refusal, cases, layout_of, survey
from tests.commands.imports.files import ITALIAN, SERVICENOW, VOLVO, rows_of, text_of, told, topics, write

if TYPE_CHECKING:
    from pathlib import Path

VOLVO_FORMAT = FORMATS["volvo"]


def test_columns_are_found_by_name_wherever_they_stand(tmp_path: Path) -> None:
    backwards = [dict(reversed(row.items())) for row in rows_of("servicenow", {}, {"sys_mod_count": "1"})]
    one, _ = told("servicenow", write(tmp_path / "a.csv", rows_of("servicenow", {}, {"sys_mod_count": "1"})))
    other, _ = told("servicenow", write(tmp_path / "b.csv", backwards))
    assert one[0].events == other[0].events


def test_a_column_more_and_an_optional_column_less_change_nothing_else(tmp_path: Path) -> None:
    row = {name: value for name, value in VOLVO.items() if name != "organization country"} | {"new column": "x"}
    (story,), refusals = told("volvo", write(tmp_path / "a.csv", [row]))
    assert refusals == []
    assert topics(story) == ["opened", "assigned"]


def test_a_name_that_stands_twice_in_the_header_means_its_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of([ITALIAN]).replace("Variant.1", "Variant", 1).replace("\n", ",customer\n", 1)[:-1] + ",x\n")
    (story,), _ = told("italian-helpdesk", path)
    assert story.customer(("customer", "Customer Value 4")) == story.ticket.requester_id


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_seen_from_the_header(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of([VOLVO], delimiter))
    stories, refusals = told("volvo", path)
    assert (len(stories), refusals) == (1, [])


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text_of([SERVICENOW]).replace("\n", "\r\n").encode())
    (story,), refusals = told("servicenow", path)
    assert refusals == []
    assert story.foreign_id == "servicenow:INC1"


def test_a_packed_file_is_known_by_its_bytes_not_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(text_of([VOLVO]).encode()))
    assert survey(layout_of(path, VOLVO_FORMAT)).rows == 1


def test_cases_that_do_not_lie_together_are_told_whole(tmp_path: Path) -> None:
    steps = [
        {"case:concept:name": case, "time:timestamp": f"2020-03-01 10:0{minute}:00+00:00"}
        for minute, case in enumerate(["1-1", "1-2", "1-1", "1-2"])
    ]
    layout = layout_of(write(tmp_path / "a.csv", rows_of("volvo", *steps)), VOLVO_FORMAT)
    found = [
        (item.name, [line.number for line in item.lines])
        for item in cases(layout, survey(layout).scattered)
        if isinstance(item, Case)
    ]
    assert found == [("1-1", [2, 4]), ("1-2", [3, 5])]


def test_a_broken_row_is_refused_by_its_line_and_its_neighbours_are_not(tmp_path: Path) -> None:
    good = text_of(rows_of("volvo", {}, {"lifecycle:transition": "Wait"})).splitlines()
    latin = text_of([{**VOLVO, "product": "Räder"}]).splitlines()[1].encode("latin-1")
    nul = text_of([{**VOLVO, "product": "PR\0D"}]).splitlines()[1].encode()
    long = text_of([{**VOLVO, "product": "x" * 1001}]).splitlines()[1].encode()
    nobody = text_of([{**VOLVO, "case:concept:name": "?"}]).splitlines()[1].encode()
    lines = [good[0].encode(), good[1].encode(), b"1,2,3", b"", latin, nul, long, nobody, good[2].encode()]
    path = tmp_path / "a.csv"
    path.write_bytes(b"\n".join(lines) + b"\n")
    (*_, story), refusals = told("volvo", path)
    assert sorted((refusal.line, refusal.reason) for refusal in refusals) == [
        (3, "has 3 cells, the header has 12"),
        (5, "is not UTF-8 text"),
        (6, "contains U+0000 at 52, which is not text"),
        (7, "has a cell of more than 1000 characters"),
        (8, "names no case"),
    ]
    assert [row.line for row in story.told] == [2, 9]
    assert survey(layout_of(path, VOLVO_FORMAT)).blank_lines == 1


def test_a_cell_over_several_lines_keeps_the_line_numbers_right(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = text_of(rows_of("volvo", {"product": '"two\nlines"'}, {"time:timestamp": "never"}))
    path.write_text(rows)
    _, refusals = told("volvo", path)
    assert [refusal.line for refusal in refusals] == [4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "has no header"),
        (text_of([ITALIAN]).encode(), "is not a Volvo IT log: columns lifecycle:transition, org:group, impact missing"),
        (gzip.compress(text_of([VOLVO]).encode())[:-9], "is damaged"),
        (b"\x00\xff\xfe binary", "is not a Volvo IT log"),
    ],
)
def test_a_file_that_is_no_such_log_is_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ImportRefused) as refusal:
        survey(layout_of(path, VOLVO_FORMAT))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ImportRefused, match="cannot be read"):
            survey(layout_of(path, VOLVO_FORMAT))


def test_a_header_without_rows_is_a_log_without_cases(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of([VOLVO]).splitlines()[0])
    assert [item for item in cases(layout_of(path, VOLVO_FORMAT)) if not isinstance(item, Refusal)] == []
