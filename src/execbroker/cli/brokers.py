from typing import Annotated

import typer

from execbroker.cli.visit import ConfigFile, DataFolder, guarded


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(demo)


def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(metavar="H", help="The address to listen on; this machine only by default.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="P", help="The port, 8080 by default; 0 is any that is free.")
    ] = None,
    data: DataFolder = None,
) -> None:
    """Start a broker. SIGTERM and Ctrl-C stop it; its sessions go on, and the next start finds them."""

    def work() -> int:
        from execbroker.cli.serving import serve_until_stopped
        from execbroker.config import load

        serve_until_stopped(load(config, host=host, port=port, folder=data and data.absolute()))
        return 0

    raise typer.Exit(guarded(work))


def demo(data: DataFolder = None) -> None:
    """See it work: a broker of its own, a small astronomical notebook asked for, run and fetched."""

    def work() -> int:
        from execbroker.demo.steps import show_demo

        return show_demo(data and data.absolute())

    raise typer.Exit(guarded(work))
