"""Requests in threads, so that one of them does not stop all the others.

MONAI Label's handlers are ``async`` around synchronous code: on the server's own event loop, one inference, one slow
archive or one file being copied keeps everybody waiting. Here every request runs, from parsing to answer, in a thread
with an event loop of its own; only bytes cross over. Nothing about the handlers changes, neither their signatures nor
their dependencies nor their roles, and those of other apps and of later versions are served alike.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from .gate import route_of

INFERENCES = 2
OTHERS = 64


class RequestThreads:
    """ASGI middleware that gives requests their threads.

    Inferences run at most ``inferences`` at a time, in the order in which they come; beside them ``others`` of all
    other requests, so that looking something up never waits for a free place behind computations.
    """

    def __init__(self, app: ASGIApp, *, inferences: int = INFERENCES, others: int = OTHERS) -> None:
        self._app = app
        self._inferences = ThreadPoolExecutor(inferences, "infer")
        self._others = ThreadPoolExecutor(others, "request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for a place, then hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()

        async def answer() -> None:
            await self._app(scope, _on(loop, receive), _on(loop, send))

        def serve() -> None:
            asyncio.run(answer())

        pool = self._inferences if is_inference(scope) else self._others
        await loop.run_in_executor(pool, contextvars.copy_context().run, serve)


def is_inference(scope: Scope) -> bool:
    """Whether a request is for an inference."""
    return scope["method"] == "POST" and route_of(scope).startswith("/infer/")


def _on(loop: asyncio.AbstractEventLoop, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """``function`` of the event loop ``loop``, to be awaited on another one."""

    async def call(*arguments: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*arguments), loop))

    return call
