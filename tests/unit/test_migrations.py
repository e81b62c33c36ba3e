import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect

from execbroker.errors import StartupError
from execbroker.ledger import schema
from execbroker.ledger.rows import read_slot
from execbroker.ledger.sqlite import Sqlite
from execbroker.ledger.tables import metadata
from execbroker.model.waist import Share, Slot


def shape(path: Path) -> dict[str, Any]:
    """The columns and indexes of every table."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        look = inspect(engine)
        return {
            name: (
                {column["name"]: (str(column["type"]), column["nullable"]) for column in look.get_columns(name)},
                {index["name"]: index["column_names"] for index in look.get_indexes(name)},
            )
            for name in look.get_table_names()
            if name != "alembic_version"
        }
    finally:
        engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    schema.prepare(Sqlite(tmp_path / "migrated"))
    engine = create_engine(f"sqlite:///{tmp_path / 'declared'}")
    metadata.create_all(engine)
    engine.dispose()
    assert shape(tmp_path / "migrated") == shape(tmp_path / "declared")


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    versions = Path(schema.__file__).parent / "migrations" / "versions"
    assert max(path.name for path in versions.glob("[0-9]*.py")).startswith(f"{schema.HEAD}_")


SLOT = '{"platform":"site","node":"n","prepare":1,"start":2,"end":3,"done":4,"cores":5,"memory":6,"storages":[[7,8]]}'
SHARED = '{"shares":[["n",5,6,[],null]],"platform":"site","prepare":1,"start":2,"end":3,"done":4,"storages":[[7,8]]}'
FIRST = {
    "offersets": {"uuid": "o", "owner": "me", "created": 1, "modified": 2, "expires": 3, "result": "YES"}
    | {"request": "{}", "messages": "[]"},
    "sessions": {"uuid": "s", "offerset": "o", "owner": "me", "rank": 0, "phase": "WAITING", "outcome": None, "created": 1}
    | {"modified": 2, "version": 7, "expires": 3, "slot": SLOT, "state": "{}", "secret": "x", "due": 4}
    | {"leased_until": 5, "lease": "l"},
    "bookings": {"id": 9, "holder": "s", "platform": "site", "node": "n", "start": 1, "end": 1 << 40}
    | {"cores": 4, "memory": 8, "storage": 1 << 33},
    "events": {"seq": 11, "session": "s", "time": 1, "phase": "WAITING", "message": None},
    "measures": {"id": 12, "what": "w", "seconds": 0.5, "amount": 2.5, "time": 1},
}
"""A row of every table of the first schema."""
ADDED = {
    "bookings": {"kind": None, "count": 0},
    "sessions": {"quote": None, "slot": SHARED, "groups": None},
    "events": {"schedule": None},
}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A database of the first schema, with a row in every table."""
    path = tmp_path / "ledger.sqlite"
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(path) as database:
        for table, row in FIRST.items():
            names = ", ".join(f'"{name}"' for name in row)
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
    database.close()
    return path


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    found = {table: [dict(row) for row in database.execute(f"SELECT * FROM {table}")] for table in FIRST}
    database.close()
    return found


def test_the_first_schema_becomes_the_present_one_and_keeps_everything(first: Path, tmp_path: Path) -> None:
    assert rows(first) == {table: [row] for table, row in FIRST.items()}
    schema.prepare(Sqlite(first))
    assert rows(first) == {table: [row | ADDED.get(table, {})] for table, row in FIRST.items()}
    schema.prepare(Sqlite(tmp_path / "new"))
    assert shape(first) == shape(tmp_path / "new")
    assert read_slot(rows(first)["sessions"][0]["slot"]) == Slot("site", (Share("n", 5, 6),), 1, 2, 3, 4, ((7, 8),))


def test_only_the_present_schema_is_read_without_a_broker(first: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="schema is 0001"):
        schema.check(Sqlite(first))
    with pytest.raises(StartupError, match="no broker's database"):
        schema.check(Sqlite(tmp_path / "nothing"))
    (tmp_path / "other").write_bytes(b"not a database, but long enough to look like one" * 40)
    with pytest.raises(StartupError, match="cannot be used"):
        schema.check(Sqlite(tmp_path / "other"))
    schema.prepare(Sqlite(first))
    schema.check(Sqlite(first))
