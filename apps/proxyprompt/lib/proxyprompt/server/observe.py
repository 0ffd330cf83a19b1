"""What operators look at: whether the server lives and is ready, its figures, and a line for each request."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxyprompt.requests.record import recording

from .gate import is_this_machine, route_of
from .metrics import Metrics
from .request_log import RequestLog

logger = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
OWN = ("/health/live", "/health/ready", "/health", "/metrics")
Check = Callable[[], str | None]
"""Why the server cannot work, in words; None when it can."""


class Observe:
    """ASGI middleware around everything.

    It answers ``/health/live`` (this process answers), ``/health/ready`` and ``/health`` (200, or 503 with what is
    wrong) and ``/metrics`` itself, whatever else the server is at.

    Args:
        app: what comes behind it.
        metrics: the figures.
        log: of requests.
        checks: what readiness depends on, by name; they run beside the server.
        only_here: whether these addresses are for this machine alone; the gate refuses others.
        check_seconds: in which they must have answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        log: RequestLog,
        checks: Mapping[str, Check],
        only_here: bool = False,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._app, self._metrics, self._log, self._checks = app, metrics, log, checks
        self._only_here, self._check_seconds = only_here, check_seconds
        self._pool = ThreadPoolExecutor(max(1, len(checks)), "health")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on and note."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = route_of(scope).rstrip("/")
        own = scope["method"] in ("GET", "HEAD") and path in OWN
        if own and (not self._only_here or is_this_machine(scope)):
            await (await self._own(path))(scope, receive, send)
            return
        await self._noted(scope, receive, send)

    async def _own(self, path: str) -> Response:
        if path == "/health/live":
            return JSONResponse({"live": True})
        if path == "/metrics":
            return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
        wrong = await self._wrong()
        return JSONResponse({"live": True, "ready": not wrong, "wrong": wrong}, 503 if wrong else 200)

    async def _wrong(self) -> dict[str, str]:
        """Name of a check -> what is wrong."""
        loop = asyncio.get_running_loop()
        asked = {name: loop.run_in_executor(self._pool, _safely, check) for name, check in self._checks.items()}
        await asyncio.wait(asked.values(), timeout=self._check_seconds)
        late = f"does not answer within {self._check_seconds:g} s"
        found = {name: answer.result() if answer.done() else late for name, answer in asked.items()}
        return {name: why for name, why in found.items() if why}

    async def _noted(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, number = time.perf_counter(), secrets.token_hex(6)
        status = size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", number.encode())]
            size += len(message.get("body", b""))
            await send(message)

        with recording() as record, self._metrics.running.track_inprogress():
            try:
                await self._app(scope, receive, counted)
            except ConnectionError as error:
                record["outcome"] = "hung up"
                logger.info("request %s: %s", number, error)
            finally:
                seconds = time.perf_counter() - started
                self._note(scope, record, status, seconds, {"request": number, "bytes_out": size})

    def _note(
        self, scope: Scope, record: Mapping[str, Any], status: int, seconds: float, facts: Mapping[str, Any]
    ) -> None:
        route = getattr(scope.get("route"), "path", "")
        stages = record.get("seconds_of") or {}
        shown = {
            "client": str((scope.get("client") or ("",))[0]),
            "method": scope["method"],
            "route": route,
            "status": status or _GONE,
            "outcome": _outcome(status),
            "seconds": round(seconds, 4),
        }
        self._metrics.observe(
            method=scope["method"], route=route or "other", status=status or _GONE, seconds=seconds, stages=stages
        )
        self._log.write({**facts, **shown, **record})


_GONE = 499
"""The status that stands for a client that hung up before it had its answer."""


def _outcome(status: int) -> str:
    if not status:
        return "hung up"
    return "ok" if status < 400 else "refused" if status < 500 else "failed"


def _safely(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
