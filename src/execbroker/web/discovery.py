"""What the broker tells everybody of itself: an index, what it can do, whether it is there, examples."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

from execbroker import __version__
from execbroker.codecs import CODECS, Codec, plain
from execbroker.config import Config
from execbroker.errors import BrokerError
from execbroker.web import examples, vosi
from execbroker.web.negotiate import choose, reply
from execbroker.web.routes import Draw

discovery = APIRouter()
"""Routes for those who have not said who they are."""
LINKS = {
    "openapi": "/openapi.json",
    "capabilities": "/capabilities",
    "availability": "/availability",
    "examples": "/examples",
    "login": "/login",
    "platforms": "/platforms",
    "me": "/me",
    "requests": "/requests",
    "direct": "/direct",
    "offersets": "/offersets",
    "sessions": "/sessions",
    "events": "/events",
    "health": "/healthz",
}
ASKED = ("requests", "direct")
"""Those that cannot be looked at."""


def _page(index: Any) -> bytes:
    """The index for a browser."""
    shown = {name: url for name, url in index["links"].items() if name not in ASKED}
    links = "".join(f'<li><a href="{escape(url)}">{name}</a></li>' for name, url in shown.items())
    title, about = escape(index["title"]), escape(index.get("description") or "An IVOA ExecutionBroker.")
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}<body><h1>{title}</h1><p>{about}</p><ul>{links}</ul><p>execbroker {__version__}</p></body></html>\n".encode()


def _unread(_: bytes) -> Any:
    raise NotImplementedError("pages are written only")


PAGE = Codec("text/html", _unread, _page)


@discovery.get("/", operation_id="Index")
async def index(request: Request, draw: Draw) -> Response:
    """Where everything is: for programs, and as a page for browsers."""
    codec = choose(request, (*CODECS, PAGE))
    registry = request.app.state.config.registry
    found = {
        "title": registry.title or "execbroker",
        "description": registry.description,
        "identifier": registry.identifier,
        "standard": vosi.BROKER,
        "software": {"name": "execbroker", "version": __version__},
        "links": {name: f"{draw.base}{path}" for name, path in LINKS.items()},
    }
    return reply(codec, {name: value for name, value in plain(found).items() if value is not None})


@discovery.get("/capabilities", operation_id="Capabilities")
async def capabilities(request: Request, draw: Draw) -> Response:
    """What can be done here, and how to log in for it (VOSI)."""
    config: Config = request.app.state.config
    return Response(vosi.capabilities(config.auth, draw.base), media_type="text/xml")


@discovery.get("/availability", operation_id="Availability")
async def availability(request: Request) -> Response:
    """Whether the broker works, and since when (VOSI)."""
    parts, trouble = request.app.state.parts, None
    try:
        await parts.ledger.next_due()
    except BrokerError as error:
        trouble = error.title
    return Response(vosi.availability(parts.since, trouble), media_type="text/xml")


@discovery.get("/examples", operation_id="Examples")
async def shown_examples(request: Request, draw: Draw) -> Response:
    """Requests to try, and how they are answered (DALI)."""
    config: Config = request.app.state.config
    return Response(examples.page(draw.base, config.registry.example), media_type="application/xhtml+xml; charset=utf-8")
