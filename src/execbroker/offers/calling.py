"""Who is to be told of what happens to the sessions of a request: what is wrong with it, and the rows it becomes."""

import base64
import secrets
from collections.abc import Iterable, Iterator
from uuid import UUID, uuid4

from execbroker.config import CallbackSettings
from execbroker.ledger.rows import CallbackRow
from execbroker.model.messages import MessageItem, reason
from execbroker.model.phases import Phase
from execbroker.model.sessions import Callback, RegisteredCallback
from execbroker.staging.base import Forbidden
from execbroker.staging.guard import Guard, read_url, shown

MOST = 10
LONGEST = 2000  # characters of a URL
SORTS = (*(phase.value for phase in Phase), "schedule", "message")
SECRET = "whsec_"  # noqa: S105 -- what every one begins with (Standard Webhooks)


def reasons_against(callbacks: list[Callback], settings: CallbackSettings, guard: Guard) -> Iterator[MessageItem]:
    """All that forbids them, as far as can be said without asking anyone."""
    if callbacks and not settings.allow:
        yield reason("no-callbacks", "callbacks", "This broker tells nobody of events: {path} must be left out")
    elif len(callbacks) > MOST:
        yield reason("too-many", "callbacks", "More than {most} in {path}", most=MOST)
    else:
        for index, callback in enumerate(callbacks):
            yield from _reasons(f"callbacks[{index}]", callback, settings, guard)


def _reasons(path: str, callback: Callback, settings: CallbackSettings, guard: Guard) -> Iterator[MessageItem]:
    url = callback.url or ""
    try:
        if len(url) > LONGEST:
            raise Forbidden(f"it is longer than {LONGEST} characters")
        read = read_url(url)
        guard.check(read)
        if read.scheme != "https" and not settings.allow_http:
            raise Forbidden("only https: is allowed here")
    except Forbidden as error:
        text = "{url} in {path} cannot be told of events: {why}"
        yield reason("forbidden-callback", f"{path}.url", text, url=shown(url)[:LONGEST], why=error)
    for number, event in enumerate(callback.events or []):
        if event not in SORTS:
            text, at = "{event} in {path} is no event; those there are: {known}", f"{path}.events[{number}]"
            yield reason("unknown-event", at, text, event=event[:100], known=", ".join(SORTS))


def rows_of(callbacks: Iterable[Callback], offerset: UUID) -> Iterator[CallbackRow]:
    """Each with a secret of its own, so that nobody who is told can speak in the broker's name to another."""
    for callback in callbacks:
        secret = SECRET + base64.b64encode(secrets.token_bytes(32)).decode()
        wanted = None if callback.events is None else tuple(dict.fromkeys(callback.events))
        yield CallbackRow(uuid4(), offerset, callback.url or "", wanted, secret)


def registered(rows: Iterable[CallbackRow]) -> list[RegisteredCallback] | None:
    """As their owner sees them; None where there are none."""
    return [
        RegisteredCallback(
            url=row.url,
            events=None if row.events is None else list(row.events),
            secret=row.secret,
            status=row.ended or "OPEN",
            tries=row.tries or None,
            failure=row.failure,
        )
        for row in rows
    ] or None
