"""How much, how fast and how often one client may send, before anything of the server is held for it.

A request takes one of the server's threads only when it is there as a whole: until then it costs a connection and, for
an upload, a temporary file. So clients that open and wait, send a byte a minute or hang up hold nobody up.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxyprompt.io.files import FULL
from proxyprompt.requests.record import note_request

from .gate import route_of

logger = logging.getLogger(__name__)

_IN_MEMORY = 1 << 20
_PIECE = 1 << 20
_CLIENTS = 10_000  # whose rate is remembered
_READ_SECONDS = 120.0
_BODIES = ("POST", "PUT", "PATCH")
NOT_COUNTED = ("/health", "/metrics")


@dataclass(frozen=True)
class RequestBounds:
    """What one request, and one client, may take.

    Attributes:
        upload_bytes: of a request's body.
        upload_seconds: in which it must have arrived.
        per_minute: requests of one address; 0 for any number.
    """

    upload_bytes: int
    upload_seconds: float
    per_minute: int = 0


class Limits:
    """ASGI middleware that takes requests in, or refuses them: 413, 408, 429, 507.

    Args:
        app: what comes behind it.
        bounds: what is allowed.
        read_seconds: for which a client may leave a part of an answer unread.
    """

    def __init__(self, app: ASGIApp, *, bounds: RequestBounds, read_seconds: float = _READ_SECONDS) -> None:
        self._app, self._bounds, self._read_seconds = app, bounds, read_seconds
        self._rates = Rates(bounds.per_minute) if bounds.per_minute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the request in, then hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bounded_send = self._bounded(send)
        if self._rates is not None and not route_of(scope).startswith(NOT_COUNTED):
            wait = self._rates.wait(_address(scope))
            if wait:
                detail = f"more than {self._bounds.per_minute} requests a minute came from here; wait {wait} s"
                await _refuse(429, detail, {"Retry-After": str(wait)})(scope, receive, bounded_send)
                return
        if scope["method"] not in _BODIES:
            await self._app(scope, receive, bounded_send)
            return
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as body:
            refusal = await self._take_in(scope, receive, body)
            if refusal is not None:
                if refusal.status_code != _GONE:
                    await refusal(scope, receive, bounded_send)
                return
            body.seek(0)
            await self._app(scope, _from(body, receive), bounded_send)

    async def _take_in(self, scope: Scope, receive: Receive, body: IO[bytes]) -> JSONResponse | None:
        """Writes the request's body; what there is to answer when that was not possible."""
        most = self._bounds.upload_bytes
        too_much = _refuse(413, f"the request is larger than the {most >> 20} MB that this server takes (upload_mb)")
        if (announced := _announced(scope)) is not None and announced > most:
            return too_much
        end, size = time.monotonic() + self._bounds.upload_seconds, 0
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                seconds = self._bounds.upload_seconds
                return _refuse(408, f"the request did not arrive within {seconds:g} s (upload_seconds); send it again")
            if message["type"] == "http.disconnect":
                note_request(outcome="hung up")
                return JSONResponse(None, _GONE)
            size += len(message.get("body", b""))
            if size > most:
                return too_much
            try:
                body.write(message.get("body", b""))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return _refuse(507, "the server's disk is full: nothing was stored; tell the operator")
            if not message.get("more_body"):
                note_request(bytes_in=size)
                return None

    def _bounded(self, send: Send) -> Send:
        async def call(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), self._read_seconds)
            except TimeoutError:
                note_request(outcome="hung up")
                raise ConnectionError(f"the client has read nothing for {self._read_seconds:g} s") from None

        return call


class Rates:
    """How many requests each client has left: a bucket that fills evenly.

    Args:
        per_minute: requests that one may send in a minute, and at once after a minute of silence.
    """

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """Count a request.

        Args:
            client: its address.

        Returns:
            Seconds to wait before the next one; 0 when this one may pass.
        """
        now = time.monotonic()
        left, then = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._most / 60)
        passes = left >= 1
        self._left[client] = (left - 1 if passes else left), now
        while len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if passes else max(1, round((1 - left) * 60 / self._most))


_GONE = 499
"""Of a client that hung up: there is nobody to answer."""


def _from(body: IO[bytes], receive: Receive) -> Receive:
    """What was taken in, as the server hands it on; then whatever still comes, which tells that the client is gone."""
    ended = False

    async def call() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        piece = body.read(_PIECE)
        ended = len(piece) < _PIECE
        return {"type": "http.request", "body": piece, "more_body": not ended}

    return call


def _announced(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


def _refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {"Connection": "close", **(headers or {})})
