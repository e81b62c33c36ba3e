import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execbroker.cli.visit import DONE, NO, ConfigFile, DataFolder, guarded

if TYPE_CHECKING:
    from execbroker.model.messages import MessageItem


def add_to(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    config: ConfigFile = None,
    data: DataFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is found as JSON, and nothing else.")] = False,
) -> None:
    """Look for what must never be: more held than there is, held for nobody, promised but not held.

    Reads the broker's database, broker or no broker, and changes nothing.
    """

    def work() -> int:
        from execbroker.app import audit_ledger
        from execbroker.config import load
        from execbroker.model.times import Clock

        findings = asyncio.run(audit_ledger(load(config, folder=data and data.absolute()), Clock()))
        if as_json:
            typer.echo(json.dumps(_document(findings), ensure_ascii=False, indent=2))
        else:
            _print(findings)
        return NO if findings.errors else DONE

    raise typer.Exit(guarded(work))


def _document(findings: Any) -> dict[str, Any]:
    def plain(items: "tuple[MessageItem, ...]") -> list[dict[str, Any]]:
        return [item.model_dump(mode="json", exclude_none=True) for item in items]

    return {"holds": findings.holds, "errors": plain(findings.errors), "notes": plain(findings.notes)}


def _print(findings: Any) -> None:
    from execbroker.cli.tables import console, print_messages

    out = console()
    holds = f"{findings.holds:,} {'hold' if findings.holds == 1 else 'holds'} looked at"
    wrong = f"{len(findings.errors):,} {'thing is' if len(findings.errors) == 1 else 'things are'} wrong"
    out.print(f"{holds}, {wrong}:" if findings.errors else f"{holds}: nothing is wrong")
    print_messages(out, (*findings.errors, *findings.notes))
