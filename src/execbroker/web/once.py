"""`Idempotency-Key`: a request that is sent again, because its reply was lost, is not done again."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from execbroker.errors import BrokerError, Fault, Invalid, KeyReused, UnderWay
from execbroker.faults import reach
from execbroker.ledger import replies
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.replies import ONCE, Once, Record, Repeated, Reply
from execbroker.web.negotiate import read_body, reply, reply_codec
from execbroker.web.problems import problem
from execbroker.web.trail import tell

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

KEPT = ("content-type", "location", "vary", "retry-after")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
log = structlog.get_logger()


class Again(NamedTuple):
    """What a route makes, as found in what the books answer, and how that is shown where the reply itself was lost."""

    made: Callable[[Any], UUID]
    show: Callable[[Request, UUID], Awaitable[Response]]


def once(made: Callable[[Any], UUID], show: Callable[[Request, UUID], Awaitable[Response]]) -> Callable[[F], F]:
    """Let a route of a `OnceRoute` router take an `Idempotency-Key`."""

    def mark(endpoint: F) -> F:
        endpoint.again = Again(made, show)  # type: ignore[attr-defined]
        return endpoint

    return mark


class OnceRoute(APIRoute):
    """A route that takes an `Idempotency-Key`, where it is marked with `once`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        again: Again | None = getattr(self.endpoint, "again", None)
        if again is None:
            return handle

        async def handle_once(request: Request) -> Response:
            if "idempotency-key" not in request.headers:
                return await handle(request)
            return await _alone(request, again, handle)

        return handle_once


async def _alone(request: Request, again: Again, handle: Handler) -> Response:
    """Raises UnderWay, KeyReused, Invalid."""
    call, under_way = await _call(request, again), request.app.state.under_way
    name = (call.owner, call.key, call.route)
    if name in under_way:
        raise UnderWay("The request of this Idempotency-Key is being answered; ask again for its reply")
    under_way.add(name)
    try:
        return await _answer(request, call, again, handle)
    finally:
        under_way.remove(name)


async def _answer(request: Request, call: Once, again: Again, handle: Handler) -> Response:
    ledger: Ledger = request.app.state.parts.ledger
    record = await replies.find(ledger, call)
    if record is None:
        token = ONCE.set(call)
        try:
            response = await handle(request)
        except Repeated as repeated:
            record = repeated.record
        else:
            reach("once.done")
            if call.written:
                await _settle(ledger, call, response)
            reach("once.settled")
            return response
        finally:
            ONCE.reset(token)
    if record.fingerprint != call.fingerprint:
        raise KeyReused("Something else was sent under this Idempotency-Key before; take a new key for each request")
    return await _replayed(request, again, record)


async def _settle(ledger: Ledger, call: Once, response: Response) -> None:
    """What was asked is done, so that it is answered whatever becomes of this; a repeat shows what was made."""
    try:
        await replies.settle(ledger, call, _kept(response))
    except BrokerError as error:
        log.warning("replies.not_kept", route=call.route, error=error.detail)


async def _replayed(request: Request, again: Again, record: Record) -> Response:
    """The very same reply; or, where the broker ended before it was written, what was made, as it is now."""
    if record.reply:
        response = Response(record.reply.body.encode(), record.reply.status, json.loads(record.reply.headers))
    else:
        assert record.made is not None
        response = await again.show(request, record.made)
    response.headers["Idempotency-Replayed"] = "true"
    tell(request, action="replay", uuid=record.made)
    return response


async def _call(request: Request, again: Again) -> Once:
    """Raises Invalid, and what is wrong with the body."""
    key = request.headers["idempotency-key"]
    if not _KEY.fullmatch(key):
        text = "1 to 255 visible ASCII characters, new ones for each request, are needed"
        raise Invalid(faults=(Fault("header.Idempotency-Key", "key", text, key[:100]),))
    document, codec = await read_body(request), await reply_codec(request)
    plain = json.loads(json.dumps(document))  # YAML has keys that are no strings, and cannot be sorted among those that are
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return Once(
        owner=request.state.identity.owner,
        key=key,
        route=f"{request.method} {request.scope['path']}",
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        made=again.made,
        refused=lambda error: _kept(reply(codec, problem(error), error.status, **error.headers)),
    )


def _kept(response: Response) -> Reply:
    headers = {name: response.headers[name] for name in KEPT if name in response.headers}
    return Reply(response.status_code, json.dumps(headers), bytes(response.body).decode())
