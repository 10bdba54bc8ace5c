"""Public holidays of a country or region, as they are known today, for a calendar to keep."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from domain.calendar import HolidaySet, Weekday
from domain.wall_hours import FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    from collections.abc import Callable

Year = Annotated[int, Field(ge=FIRST_YEAR, lt=LAST_YEAR, strict=True)]
MOST_YEARS: Final = 50


class HolidayChoice(BaseModel):
    """Whose public holidays of which years a calendar closes on.

    They are looked up once, when the calendar is adopted, and kept with it by date and name: a newer edition of the
    source changes nothing until it is adopted. Years that a government has not decided on yet lack what it will decide,
    as China's long weekends and the days worked instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    country: Annotated[str, Field(min_length=2, max_length=3, description="By ISO 3166-1, as DE.")]
    subdivision: (
        Annotated[str, Field(max_length=60, description="By ISO 3166-2 without the country, as BY.")] | None
    ) = None
    years: Annotated[tuple[Year, ...], Field(min_length=1, max_length=MOST_YEARS)]
    language: Annotated[str, Field(max_length=20, description="Of the names; by default the country's.")] | None = None
    working_as: Annotated[
        Weekday, Field(description="Whose hours a day of a weekend has that is worked instead of another, as in China.")
    ] = "mon"


def holiday_set(choice: HolidayChoice) -> HolidaySet:
    """Look up the holidays of a choice; ValueError says what is not known."""
    # Takes a while to import, and only who adopts a calendar needs it.
    source = import_module("holidays")
    years = sorted(set(choice.years))
    try:
        look_up: Callable[..., Any] = partial(source.country_holidays, choice.country, subdiv=choice.subdivision)
        # The language is always named: left out, it depends on the machine's.
        language = choice.language or look_up(years=years[0]).default_language
        found = look_up(years=years, language=language)
    except NotImplementedError as error:
        raise ValueError(_unknown(source.list_supported_countries(), choice, error)) from None
    if language not in {None, *found.supported_languages, found.default_language}:
        message = f"names are not known in {language!r} but in {', '.join(found.supported_languages)}"
        raise ValueError(message)
    return HolidaySet(
        country=choice.country,
        subdivision=choice.subdivision,
        source=f"holidays {source.__version__}",
        years=tuple(years),
        closed=dict(sorted(found.items())),
        working=tuple(sorted(on for on in found.weekend_workdays if on.year in years)),
        working_as=choice.working_as,
    )


def looked_up(said: object) -> object:
    """Turn the choice of a country into its holidays; anything else is left for its type to judge."""
    if not isinstance(said, dict) or "closed" in said:
        return said
    try:
        choice = HolidayChoice.model_validate(said)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError("; ".join(faults)) from None
    return holiday_set(choice)


Holidays = Annotated[
    HolidaySet | None, BeforeValidator(looked_up, json_schema_input_type=HolidayChoice | HolidaySet | None)
]
"""What somebody says of a calendar's holidays: whose they are, to be looked up, or the dates themselves."""


def _unknown(countries: dict[str, list[str]], choice: HolidayChoice, error: Exception) -> str:
    """Say what may be asked for instead."""
    if choice.country not in countries:
        upper = choice.country.upper()
        hint = f"; did you mean {upper}?" if upper in countries else "; a code by ISO 3166-1 like DE is wanted"
        return f"no holidays are known of country {choice.country!r}{hint}"
    if choice.subdivision is not None and choice.subdivision not in countries[choice.country]:
        known = ", ".join(countries[choice.country]) or "none"
        return f"no holidays are known of {choice.subdivision!r} in {choice.country}; of its subdivisions: {known}"
    return str(error)
