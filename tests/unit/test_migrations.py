from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect

from execbroker.ledger import schema
from execbroker.ledger.tables import metadata


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
    schema.prepare(tmp_path / "migrated")
    engine = create_engine(f"sqlite:///{tmp_path / 'declared'}")
    metadata.create_all(engine)
    engine.dispose()
    assert shape(tmp_path / "migrated") == shape(tmp_path / "declared")


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    versions = Path(schema.__file__).parent / "migrations" / "versions"
    assert max(path.name for path in versions.glob("[0-9]*.py")).startswith(f"{schema.HEAD}_")
