"""What keeps a broker from starting, and what does not."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

import stores
from brokersite import Site, asked
from execbroker.config import load
from execbroker.errors import StartupError
from execbroker.ledger import schema
from execbroker.ledger.sqlite import Sqlite


async def opens(folder: Path) -> None:
    async with Site(folder) as site:
        await site.take(**asked())


@pytest.mark.sqlite
def test_a_data_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            with pytest.raises(StartupError, match=r"in use by another broker.*--data"):
                await opens(tmp_path)
            await site.take(**asked())
        await opens(tmp_path)

    asyncio.run(work())


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    asyncio.run(opens(tmp_path))
    folder = tmp_path / "broker"
    stores.execute(folder, "UPDATE alembic_version SET version_num = '9999'")
    before = [stores.execute(folder, f"SELECT * FROM {table}") for table in ("sessions", "events", "bookings")]
    with pytest.raises(StartupError, match="written by a newer version"):
        asyncio.run(opens(tmp_path))
    assert before == [stores.execute(folder, f"SELECT * FROM {table}") for table in ("sessions", "events", "bookings")]
    assert before[0]


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "ledger.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(StartupError, match="cannot be used as the broker's database"):
        asyncio.run(opens(tmp_path))


@pytest.mark.sqlite
def test_tables_that_somebody_else_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with sqlite3.connect(tmp_path / "broker" / "ledger.sqlite") as database:
        database.execute("CREATE TABLE sessions (a)")
    database.close()
    with pytest.raises(StartupError, match="cannot be used as the broker's database"):
        asyncio.run(opens(tmp_path))


@pytest.mark.sqlite
def test_the_schema_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """A first start that fails half-way, here at a table in the way, leaves nothing that the next one stumbles over."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE measures (in_the_way)")
    with pytest.raises(StartupError):
        schema.prepare(Sqlite(path))
    assert database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("measures",)]
    database.execute("DROP TABLE measures")
    database.close()
    schema.prepare(Sqlite(path))
    schema.prepare(Sqlite(path))


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("a file")
    with pytest.raises(StartupError, match="cannot be used: File exists"):
        asyncio.run(opens(tmp_path))


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECBROKER_DATA", "/srv/execbroker")
    with pytest.raises(StartupError, match=r"EXECBROKER_DATA must be JSON; .* EXECBROKER_DATA__<KEY>"):
        load()


@pytest.mark.postgres
def test_a_broker_goes_on_when_a_newer_one_has_changed_the_schema(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            await site.take(**asked())
            for change in (
                "ALTER TABLE sessions ADD COLUMN later text",
                "ALTER TABLE bookings ADD COLUMN later integer NOT NULL DEFAULT 1",
                "CREATE TABLE later (a integer PRIMARY KEY)",
                "UPDATE alembic_version SET version_num = '9999'",
            ):
                stores.execute(site.folder, change)
            session = await site.take(**asked())
            await site.advance(3600)
            assert await site.phase(session) == "COMPLETED"
            assert await site.faults() == []

    asyncio.run(work())
