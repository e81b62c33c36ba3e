from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from execbroker.errors import StartupError
from execbroker.ledger import schema
from execbroker.ledger.database import Database
from execbroker.ledger.sqlite import Sqlite
from execbroker.ledger.tables import journal, metadata

AT_ONCE = 2000
TABLES = [table for table in metadata.sorted_tables if table is not journal]


def migrate(source: Sqlite, target: Database) -> dict[str, int]:
    """Copy a ledger to another database, all or nothing: how many rows of each table are there now. The file is then put aside
    under another name, so that no broker takes it up again.

    What was interrupted before that may be done again. Raises StartupError where the target has rows of its own.
    """
    if not source.path.exists():
        raise StartupError(f"There is no ledger at {source.path}: name the data folder of a broker with --data")
    for database in (source, target):
        schema.prepare(database)
    with source.migrating() as old, target.migrating() as new:
        counts = {table.name: _count(old, table) for table in TABLES}
        known = {table.name: _count(new, table) for table in TABLES}
        if any(known.values()) and not _same(old, new):
            rows = ", ".join(f"{rows} {name}" for name, rows in known.items() if rows)
            raise StartupError(f"{target.name} has rows already ({rows}); nothing was moved")
        if not any(known.values()):
            for table in TABLES:
                _copy(old, new, table)
    source.path.replace(source.path.with_name("ledger.moved.sqlite"))
    return counts


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _same(old: Connection, new: Connection) -> bool:
    """Whether all is there already."""
    return all(_rows(old, table) == _rows(new, table) for table in TABLES)


def _rows(connection: Connection, table: Table) -> list[Any]:
    return [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]


def _copy(old: Connection, new: Connection, table: Table) -> None:
    for rows in old.execute(select(table).order_by(*table.primary_key)).partitions(AT_ONCE):
        new.execute(insert(table), [row._asdict() for row in rows])
    if (counter := table.autoincrement_column) is not None:
        sequence = func.pg_get_serial_sequence(table.name, counter.name)
        new.execute(select(func.setval(sequence, func.max(counter))))
