import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Send

from execbroker.engine.feed import News
from execbroker.errors import BrokerError
from execbroker.web.identity import is_known_still
from execbroker.web.routes import Desk, Who

RETRY = 1000  # milliseconds after which clients come again
AGAIN = 10  # seconds after which it is looked whether who follows would be let in still
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""By which nothing between us and the client keeps events back."""
MOST = (1 << 63) - 1

streams = APIRouter()
After = Annotated[int | None, Query(ge=0, le=MOST, description="Only what comes after the event of this number.")]
LastEventId = Annotated[int | None, Header(ge=0, le=MOST, description="The same, and before it, as browsers say it.")]


class EventStream(StreamingResponse):
    """Server-Sent Events (HTML, 9.2): who does not read them is waited for, and who has gone is forgotten at once."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, news: AsyncGenerator[News, None]) -> None:
        self._blocks = _blocks(_while_known(request, news))
        self._head = bool(getattr(request.state, "head", False))
        super().__init__(self._blocks, headers=HEADERS)

    async def stream_response(self, send: Send) -> None:
        if self._head:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        async with aclosing(self._blocks):
            await super().stream_response(send)


@streams.get("/events", operation_id="EventStream")
async def events(request: Request, broker: Desk, who: Who, after: After = None, last_event_id: LastEventId = None) -> Response:
    """What happens to all that is the caller's, from now on, or from a number on."""
    return EventStream(request, broker.events(who, after if last_event_id is None else last_event_id))


@streams.get("/sessions/{uuid}/events", operation_id="SessionEventStream")
async def session_events(
    request: Request, uuid: UUID, broker: Desk, who: Who, after: After = None, last_event_id: LastEventId = None
) -> Response:
    """What has happened and happens to one session, until it is over; 204 where nothing comes after that number any more."""
    news = await broker.session_events(uuid, who, after if last_event_id is None else last_event_id)
    return EventStream(request, news) if news else Response(status_code=204)


async def _while_known(request: Request, news: AsyncGenerator[News, None]) -> AsyncGenerator[News, None]:
    """Who follows for long has to be let in still, as whoever comes again."""
    clock = request.app.state.parts.clock
    looked = clock.monotonic()
    async with aclosing(news):
        async for one in news:
            if clock.monotonic() >= looked + AGAIN:
                if not await is_known_still(request):
                    yield News((), one.position, end="renew")
                    return
                looked = clock.monotonic()
            yield one


async def _blocks(news: AsyncGenerator[News, None]) -> AsyncGenerator[str, None]:
    yield f"retry: {RETRY}\n"
    async with aclosing(news):
        try:
            async for one in news:
                yield _block(one)
        except BrokerError as error:  # the client comes again, and goes on where it was
            yield _event("end", {"reason": "interrupted", "detail": error.detail})


def _block(news: News) -> str:
    """Nothing new is a comment, and a number from which to go on."""
    if news.events:
        return "".join(f"id: {one.seq}\nevent: {one.sort}\ndata: {one.data}\n\n" for one in news.events)
    if news.end:
        return _event("end", {"reason": news.end})
    gap = "" if news.gap is None else _event("gap", {"until": news.gap})
    return f"{gap}:\nid: {news.position}\n\n"


def _event(sort: str, data: dict[str, object]) -> str:
    return f"event: {sort}\ndata: {json.dumps(data)}\n\n"
