"""Why a DICOMweb server did not do its part, in words for people: no names of classes, no addresses twice."""

from __future__ import annotations

from http import HTTPStatus

import requests

_SAID = 200  # characters of what the server itself says


def why_not(error: requests.RequestException) -> str:
    """What went wrong between this server and another one.

    Args:
        error: what the request ended with.

    Returns:
        The end of a sentence that begins with the name of the other server.
    """
    answer = error.response
    if answer is not None:
        return _refused(answer)
    text = str(error).lower()
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "does not answer in time"
    if "refused" in text:
        return "is not running (it refuses the connection)"
    if "resolve" in text or "name or service" in text or "getaddrinfo" in text:
        return "has a name that this machine does not know"
    if isinstance(error, requests.exceptions.SSLError):
        return "has a certificate that this machine does not trust"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "broke off the connection"
    return "cannot be asked: its address is none that can be called"


def is_refusal(error: requests.RequestException) -> bool:
    """Whether the server has understood and said no: asking again changes nothing.

    Args:
        error: what the request ended with.

    Returns:
        False for a server that is away, slow, or out of order.
    """
    answer = error.response
    return answer is not None and 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)


def _refused(answer: requests.Response) -> str:
    if answer.status_code in (401, 403):
        return f"refuses the user and password that it was given ({answer.status_code})"
    try:
        phrase = HTTPStatus(answer.status_code).phrase
    except ValueError:
        phrase = answer.reason or "no reason given"
    kind = answer.headers.get("Content-Type", "")
    said = " ".join(answer.text.split())[:_SAID] if kind.startswith("text/plain") else ""
    return f"answers {answer.status_code} ({phrase})" + (f": {said}" if said else "")
