from pathlib import Path

from sqlalchemy.exc import DBAPIError

from execbroker.errors import StartupError
from execbroker.ledger.database import Database

HEAD = "0007"


def prepare(database: Database) -> None:
    """Bring a database to the present schema, made where there is none.

    Raises StartupError where it was written by a newer version, or cannot be read or written.
    """
    database.wait()
    try:
        found = database.revision()
        if found == HEAD:
            return
        if found is not None and found not in _revisions():
            raise StartupError(
                f"{database.name} was written by a newer version of execbroker (its schema is {found}, this one knows {HEAD}): "
                "install that version, or use another data folder"
            )
        _upgrade(database)
    except (database.fault, DBAPIError) as error:
        raise StartupError(f"{database.name} cannot be used as the broker's database: {error}") from error


def check(database: Database) -> None:
    """Raise StartupError where there is no database, or none of the present schema; nothing is changed."""
    try:
        found = database.revision()
    except database.fault as error:
        raise StartupError(f"{database.name} cannot be used as the broker's database: {error}") from error
    if found is None:
        raise StartupError(f"{database.name} is no broker's database: name the data folder of one with --data")
    if found != HEAD:
        raise StartupError(
            f"{database.name} was written by another version of execbroker (its schema is {found}, this one's is {HEAD}): "
            "ask the version that serves it, or start this one on it first"
        )


def _revisions() -> set[str]:
    versions = Path(__file__).parent / "migrations" / "versions"
    return {file.name.partition("_")[0] for file in versions.glob("[0-9]*.py")}


def _upgrade(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
