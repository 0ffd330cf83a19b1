"""What speaks with a DICOMweb server: with the credentials that it wants, and without waiting for anybody for ever."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

import requests
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ReadTimeoutError

TIMEOUT = (5, 60)
"""Seconds to be reached, and of silence: an archive that hangs must not take the server with it."""
_AT_ONCE = 64  # connections that are kept


def open_session(address: str) -> requests.Session:
    """What speaks with a DICOMweb server, with the credentials of MONAI Label's settings.

    Args:
        address: of the server.

    Returns:
        A session, for any number of threads.
    """
    session = requests.Session()
    if "googleapis.com" in address:
        session = create_session_from_gcp_credentials()
    elif settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        session = create_session_from_user_pass(
            settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    again = _Again(
        total=2,
        connect=0,
        status=0,
        allowed_methods={"GET", "HEAD"},
        backoff_factor=0.1,
        respect_retry_after_header=False,  # an answer is an answer
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_AT_ONCE, max_retries=again))
    session.request = partial(session.request, timeout=TIMEOUT)
    return session


class _Again(Retry):
    """A question is put again when the server hangs up on it, but not when it is silent.

    Servers close connections that were idle for a while (Orthanc after a second), now and then just when the next
    question is on its way.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)
