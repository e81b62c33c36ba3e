import typer

from execbroker.cli.visit import DONE, ConfigFile, DataFolder, guarded


def add_to(app: typer.Typer) -> None:
    app.command()(migrate)


def migrate(config: ConfigFile = None, data: DataFolder = None) -> None:
    """Move the ledger from the data folder to the PostgreSQL database that the configuration names.

    No broker may use the data folder meanwhile. All is moved, or nothing; sessions go on with the next start.
    """

    def work() -> int:
        from execbroker.app import migrate_ledger
        from execbroker.config import load

        counts = migrate_ledger(load(config, folder=data and data.absolute()))
        typer.echo("Moved: " + ", ".join(f"{rows:,} {name}" for name, rows in counts.items()))
        return DONE

    raise typer.Exit(guarded(work))
