"""What is refused before any handler sees it.

Addresses that climb out of their folder, also where the path only travels on to a DICOMweb server; what no viewer needs
and a stranger should not have (replacing weights, rebuilding the app in the running server); and, unless the operator
chose an address to listen on, every machine but this one: MONAI Label's own default is to serve the whole network.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
from collections.abc import Sequence
from urllib.parse import unquote

from monailabel.config import settings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)


class Gate:
    """ASGI middleware that refuses what is not allowed from where it comes.

    Args:
        app: what comes behind it.
        model_upload: whether versions may come and go over the network.
        only_here: whether all machines but this one are refused.
    """

    def __init__(self, app: ASGIApp, *, model_upload: bool = False, only_here: bool = False) -> None:
        self._app, self._model_upload, self._only_here = app, model_upload, only_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            status, detail = refusal
            logger.warning("%s %r -> %d: %s", scope["method"], scope["path"], status, detail)
            await JSONResponse({"detail": detail}, status_code=status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and message, or None for what may pass."""
        method, path, route = scope["method"], scope["path"], route_of(scope)
        if self._only_here and not is_this_machine(scope):
            return 403, "this server was started without --host, for this machine only; start it with --host ADDRESS"
        if climbs(path):
            return 400, f"the path {path!r} leads out of its folder: give plain names"
        if route.rstrip("/") == "/reload":
            return 403, "this app is not reloaded in the running server: it sees new studies, labels and weights itself"
        if route.startswith("/model/") and method in ("PUT", "DELETE") and not self._model_upload:
            return 403, "versions come and go over the network only on a server started with --conf model_upload true"
        return None


def route_of(scope: Scope) -> str:
    """The path as MONAI Label's routes name it: without a proxy's prefix, and without that of MONAI_LABEL_API_STR."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removeprefix(settings.MONAI_LABEL_API_STR)


def climbs(path: str) -> bool:
    """Whether a decoded path has a step upwards, however often that was encoded; backslashes and NULs count too."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return "\\" in path or "\0" in path or ".." in path.split("/")


def is_this_machine(scope: Scope) -> bool:
    """Whether the client is this machine; one without an address has come by a Unix socket."""
    client = scope.get("client")
    if client is None:
        return True
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def started_without_host(arguments: Sequence[str]) -> bool:
    """Whether ``monailabel start_server`` runs with these arguments, none of which says where to listen."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-i", "--host")
    return "start_server" in arguments and parser.parse_known_args(list(arguments))[0].host is None
