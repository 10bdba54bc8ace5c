"""The environment says where the record is, and a wrong word in it is answered by one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from storage.releases import installed_release
from storage.settings import Settings, SettingsError, external_conninfo, project_root


def test_with_nothing_said_the_desk_brings_its_own_server_and_keeps_its_data_in_the_checkout() -> None:
    settings = Settings.from_environment({})
    root = project_root()
    assert root is not None
    assert settings.embedded
    assert settings.data_dir == root / ".desk"
    assert settings.key_file == root / ".desk" / "root.key"
    assert (settings.host, settings.port, settings.workspace) == ("127.0.0.1", 8000, "main")


def test_empty_variables_count_as_absent() -> None:
    names = ("DATABASE_URL", "PGHOST", "PGSERVICE", "DESK_DATA_DIR", "DESK_PORT", "DESK_WORKSPACE", "DESK_KEY_FILE")
    assert Settings.from_environment(dict.fromkeys(names, " ")) == Settings.from_environment({})


def test_database_url_wins_over_the_libpq_variables() -> None:
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://ann@db/desk", "PGHOST": "elsewhere"})
    assert settings.database_url == "postgresql://ann@db/desk"
    assert not settings.embedded


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE"])
def test_a_libpq_variable_that_names_a_server_leaves_the_rest_to_libpq(name: str) -> None:
    settings = Settings.from_environment({name: "x"})
    assert settings.database_url == ""
    assert not settings.embedded


@pytest.mark.parametrize("name", ["PGUSER", "PGPASSWORD", "PGSSLMODE", "PGAPPNAME"])
def test_a_libpq_variable_that_names_no_server_does_not_mean_one(name: str) -> None:
    assert Settings.from_environment({name: "x"}).embedded


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://one:5432,two:5433/desk?target_session_attrs=read-write",
        "host=one,two port=5432,5433 dbname=desk",
        "postgres://%2Fvar%2Frun%2Fpostgresql/desk",
        "postgresql://",
    ],
)
def test_every_address_libpq_understands_is_handed_to_it_unchanged(url: str) -> None:
    assert Settings.from_environment({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url",
    ["htp://ann:hunter2@db/desk", "postgresql://ann:hunter2@[db/desk", "hunter2", "postgresql://db?colour=hunter2"],
)
def test_a_wrong_address_is_refused_without_quoting_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL must be an address .*\.$") as refusal:
        Settings.from_environment({"DATABASE_URL": url})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DESK_PORT", "http"),
        ("DESK_PORT", "65536"),
        ("DESK_PORT", "-1"),
        ("DESK_PORT", "٣"),
        ("DESK_POOL_SIZE", "0"),
        ("DESK_WORKERS", "1.5"),
        ("DESK_TIMER", "no"),
        ("DESK_WORKSPACE", "Main"),
        ("DESK_WORKSPACE", "1st"),
        ("DESK_WORKSPACE", "a" * 41),
        ("DESK_WORKSPACE", 'x"; DROP'),
        ("DESK_POSTGRES_VERSION", "17"),
        ("DESK_DATA_DIR", "a\0b"),
        ("DESK_KEY_FILE", "a\0b"),
        ("DESK_DATA_DIR", __file__),
        ("DESK_DATA_DIR", "~no-such-user-here/desk"),
    ],
)
def test_a_wrong_value_is_answered_by_one_sentence_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} [^\n]*\.?$"):
        Settings.from_environment({name: value})


def test_values_are_taken(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "DESK_DATA_DIR": str(tmp_path),
            "DESK_KEY_FILE": "keys/root",
            "DESK_WORKSPACE": "north_2",
            "DESK_HOST": "0.0.0.0",  # noqa: S104 - only read here
            "DESK_PORT": "0",
            "DESK_POOL_SIZE": "20",
            "DESK_WORKERS": "2",
            "DESK_TIMER": "off",
            "DESK_POSTGRES_VERSION": "16",
        }
    )
    assert settings == Settings(
        data_dir=tmp_path,
        key_file=Path.cwd() / "keys" / "root",
        workspace="north_2",
        host="0.0.0.0",  # noqa: S104 - only read here
        port=0,
        pool_size=20,
        workers=2,
        timer=False,
        postgres_version=16,
    )


def test_on_an_external_server_the_owner_is_the_address_and_other_roles_are_taken_on() -> None:
    url = "postgresql://ann@one,two/desk?options=-c%20jit%3Doff"
    assert external_conninfo(url, "ledgerdesk_owner") == url
    parts = conninfo_to_dict(external_conninfo(url, "ledgerdesk_app"))
    assert (parts["host"], parts["user"]) == ("one,two", "ann")
    assert parts["options"] == "-c jit=off -c role=ledgerdesk_app"


def test_options_of_the_environment_stay_in_force_beside_the_role() -> None:
    parts = conninfo_to_dict(external_conninfo("", "ledgerdesk_app", {"PGOPTIONS": "-c work_mem=8MB"}))
    assert parts == {"options": "-c work_mem=8MB -c role=ledgerdesk_app"}


async def test_the_embedded_server_lives_as_long_as_somebody_has_its_address(tmp_path: Path) -> None:
    # Its directory is closed to all but us, as a data directory often is.
    settings = Settings(data_dir=tmp_path / "desk", key_file=tmp_path / "root.key")
    async with settings.server_conninfo("ledgerdesk_owner") as owner, settings.server_conninfo("ledgerdesk_app") as app:
        assert conninfo_to_dict(owner)["user"] == "ledgerdesk_owner"
        assert conninfo_to_dict(app)["user"] == "ledgerdesk_app"
        assert list((settings.data_dir / "socket").glob(".s.PGSQL.*[0-9]"))
    assert not list((settings.data_dir / "socket").iterdir())


def test_the_largest_event_is_a_number_of_bytes_within_reason() -> None:
    assert Settings.from_environment({}).largest_event == 2 * 1024 * 1024
    assert Settings.from_environment({"DESK_LARGEST_EVENT": "8192"}).largest_event == 8192
    for wrong in ("0", "4095", "1MB", "-1", "999999999"):
        with pytest.raises(SettingsError, match="DESK_LARGEST_EVENT must be a whole number from 4096 to"):
            Settings.from_environment({"DESK_LARGEST_EVENT": wrong})


def test_the_release_is_the_installed_one_unless_it_is_named() -> None:
    assert Settings.from_environment({}).release == installed_release()
    assert Settings.from_environment({"DESK_RELEASE": "2.1.0+c0ffee"}).release == "2.1.0+c0ffee"
    for wrong in ("x" * 65, "-1", "a b", "a;b", "版本"):
        with pytest.raises(SettingsError, match="DESK_RELEASE must be at most 64 letters"):
            Settings.from_environment({"DESK_RELEASE": wrong})
