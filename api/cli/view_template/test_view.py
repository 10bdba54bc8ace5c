"""The example view has every ticket with its status.

That neither pages, nor crashes, nor rebuilds make a difference to its rows is tested for every view there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from projections import example_view as view
from tests.projections.desk_days import DeskDays, as_recorded
from tests.projections.test_folds import folded

if TYPE_CHECKING:
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio


@settings(max_examples=25, deadline=None)
@given(seed=some.integers(0, 10_000))
def test_a_row_says_of_its_ticket_what_the_ticket_says_of_itself(seed: int) -> None:
    desk = DeskDays(seed)
    rows = folded(view.VIEW, as_recorded([*desk.first(), *desk.more(150)]))
    assert {key: row["status"] for key, row in rows.items()} == {(one.id,): one.status for one in desk.tickets}


async def test_tickets_are_listed_by_status(desk: DeskOverHttp) -> None:
    opened, solved = await desk.open(), await desk.open()
    await desk.done(f"/tickets/{solved['id']}/solve", {"resolution_code": "fixed"})
    await desk.catch_up()
    path = "/views/example_view/rows"
    told = (await desk.get(path, params={"after": await desk.head()})).json()
    assert [(item["number"], item["status"]) for item in told["items"]] == [
        (opened["number"], "new"),
        (solved["number"], "solved"),
    ]
    page = (await desk.get(path, params={"status": "solved", "limit": 1})).json()
    assert [item["ticket_id"] for item in page["items"]] == [solved["id"]]
