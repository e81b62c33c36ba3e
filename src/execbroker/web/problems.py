from dataclasses import asdict
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from execbroker.codecs import CODECS
from execbroker.errors import BrokerError, Fault, Invalid, MethodNotAllowed, NotAcceptable, NotFound
from execbroker.web.methods import methods_at
from execbroker.web.negotiate import reply, reply_codec

log = structlog.get_logger()


def add_problems(app: FastAPI) -> None:
    """Answer every error with a problem document (RFC 9457) in the media type of the client."""
    app.add_exception_handler(BrokerError, _broker_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(Exception, _bug)


def problem(error: BrokerError) -> dict[str, Any]:
    """The members of a problem document: what, why, and every fault by its path."""
    document: dict[str, Any] = {"type": "about:blank", "title": error.title, "status": error.status, "detail": error.detail}
    if error.faults:
        document["errors"] = [asdict(fault) for fault in error.faults]
    return document | error.extra


async def _broker_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerError)
    try:
        codec = await reply_codec(request)
    except NotAcceptable:
        codec = CODECS[0]
    return reply(codec, problem(error), error.status, **error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known: dict[int, type[BrokerError]] = {404: NotFound, 405: MethodNotAllowed}
    found = known.get(error.status_code, BrokerError)(f"{request.method} {request.url.path}: {error.detail}")
    response = await _broker_error(request, found)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(methods_at(request.app, request.scope["path"]))
    return response


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(
        Fault(".".join(map(str, one["loc"])), one["type"], one["msg"], str(one["input"])[:100]) for one in error.errors()
    )
    if all(one["loc"][0] == "path" for one in error.errors()):
        return await _broker_error(request, NotFound(f"There is no {request.url.path}: {faults[0].message}"))
    return await _broker_error(request, Invalid("A parameter is not what is needed", faults))


async def _bug(request: Request, error: Exception) -> Response:
    log.error("web.bug", path=request.url.path, exc_info=error)
    return await _broker_error(request, BrokerError("Something unexpected happened; the broker's log says what"))
