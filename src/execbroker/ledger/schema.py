import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from execbroker.errors import StartupError

HEAD = "0002"


def prepare(path: Path) -> None:
    """Bring the database at `path` to the present schema, made where there is none.

    Raises StartupError where it was written by a newer version, or cannot be read or written.
    """
    try:
        found = _revision(path)
        if found == HEAD:
            return
        if found is not None and found not in _revisions():
            raise StartupError(
                f"{path} was written by a newer version of execbroker (its schema is {found}, this one knows {HEAD}): "
                "install that version, or use another data folder"
            )
        _upgrade(path)
    except (sqlite3.Error, DBAPIError) as error:
        raise StartupError(f"{path} cannot be used as the broker's database: {error}") from error


def check(path: Path) -> None:
    """Raise StartupError where there is no database at `path`, or none of the present schema; nothing is changed."""
    try:
        found = _revision(path)
    except sqlite3.Error as error:
        raise StartupError(f"{path} cannot be used as the broker's database: {error}") from error
    if found is None:
        raise StartupError(f"{path} is no broker's database: name the data folder of one with --data")
    if found != HEAD:
        raise StartupError(
            f"{path} was written by another version of execbroker (its schema is {found}, this one's is {HEAD}): "
            "ask the version that serves it, or start this one on it first"
        )


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    finally:
        connection.close()
    return row[0] if row else None


def _revisions() -> set[str]:
    versions = Path(__file__).parent / "migrations" / "versions"
    return {file.name.partition("_")[0] for file in versions.glob("[0-9]*.py")}


def _upgrade(path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    # The driver would commit every CREATE TABLE by itself, and a broker killed between two would leave half a schema.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
