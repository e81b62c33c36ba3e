"""The command line: a visitor of the API, but for `serve` and `demo`, which bring a broker of their own."""

import sys
from io import TextIOWrapper

import typer

from execbroker.cli import auditing, brokers, events, login, moving, offers, platforms, registering, sessions, standing

EXIT_CODES = """Exit codes: 0 done · 1 the answer is NO, the session that was followed did not complete, or the audit found
something · 2 wrong usage or configuration · 3 the broker cannot be reached · 4 the broker refused · 130 interrupted"""

app = typer.Typer(
    name="execbroker",
    help="An IVOA ExecutionBroker: where, how and when can I run this?",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (offers, sessions, events, platforms, standing, brokers, login, auditing, moving, registering):
    part.add_to(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding is no reason to fail
    app()
