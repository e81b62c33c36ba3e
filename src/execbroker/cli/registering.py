import sys

import typer

from execbroker.cli.visit import DONE, ConfigFile, guarded


def add_to(app: typer.Typer) -> None:
    app.command(name="registry-record")(registry_record)


def registry_record(config: ConfigFile = None) -> None:
    """Print the VOResource record of the broker of this configuration, for a registry of the Virtual Observatory."""

    def work() -> int:
        from execbroker.config import load
        from execbroker.model.times import Clock
        from execbroker.web.vosi import record

        sys.stdout.buffer.write(record(load(config), Clock().now()))
        return DONE

    raise typer.Exit(guarded(work))
