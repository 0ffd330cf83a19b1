"""Who is asking: the tokens of an OpenID Connect realm, e.g. of Keycloak.

MONAI Label's own check hands PyJWT a key but no algorithms, which every PyJWT of today refuses, and so with it every
token. This one takes its place (:func:`install_auth`); MONAI Label's settings ``MONAI_LABEL_AUTH_*`` and its roles
stay what they are. A token counts when the realm signed it with one of the keys that it publishes, by the key's own
algorithm, when it is still valid, and when it was made by this realm for this client.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, NamedTuple

import jwt
import requests
from fastapi import HTTPException
from jwt import PyJWKClient
from jwt.exceptions import (
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidTokenError,
    PyJWKClientConnectionError,
    PyJWKClientError,
    PyJWKError,
)
from monailabel.config import settings
from monailabel.endpoints.user import auth
from monailabel.endpoints.user.auth import DEFAULT_USER, User

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Public-key ones only: with a shared secret, or none, anybody could sign."""
_CLOCKS = 10.0  # seconds by which two clocks may differ


class Realm(NamedTuple):
    """What a realm says of itself."""

    issuer: str
    keys: PyJWKClient


def install_auth() -> None:
    """Put our check in the place of MONAI Label's, where the operator has switched authentication on."""
    if settings.MONAI_LABEL_AUTH_ENABLE:
        auth.from_token = user_of
        auth.open_id_configuration = discovery
        logger.info("tokens of %s are asked for", settings.MONAI_LABEL_AUTH_REALM_URI)


def user_of(token: str) -> User:
    """The user that a token speaks for, with the realm's roles.

    Raises InvalidTokenError (401) for a token that does not count, HTTPException 503 when the realm cannot be asked.
    """
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return DEFAULT_USER
    claims = _claims(token, _realm(settings.MONAI_LABEL_AUTH_REALM_URI))
    name = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str):
        raise InvalidTokenError(f"the token has no {settings.MONAI_LABEL_AUTH_TOKEN_USERNAME}")
    return User(
        username=name,
        email=claims.get(settings.MONAI_LABEL_AUTH_TOKEN_EMAIL),
        name=claims.get(settings.MONAI_LABEL_AUTH_TOKEN_NAME),
        roles=_roles(claims),
    )


@lru_cache
def discovery(realm_uri: str) -> dict[str, Any]:
    """The realm's OpenID configuration. HTTPException 503 when it cannot be had; asked again the next time."""
    try:
        response = requests.get(
            f"{realm_uri}/.well-known/openid-configuration", timeout=settings.MONAI_LABEL_AUTH_TIMEOUT
        )
        response.raise_for_status()
        found = response.json()
        return {**found, "issuer": found["issuer"], "jwks_uri": found["jwks_uri"]}
    except (requests.RequestException, KeyError, TypeError) as error:
        raise _unreachable(error) from error


@lru_cache
def _realm(realm_uri: str) -> Realm:
    found = discovery(realm_uri)
    return Realm(found["issuer"], PyJWKClient(found["jwks_uri"], timeout=settings.MONAI_LABEL_AUTH_TIMEOUT))


def _claims(token: str, realm: Realm) -> dict[str, Any]:
    try:
        key = realm.keys.get_signing_key_from_jwt(token)
    except PyJWKClientConnectionError as error:
        raise _unreachable(error) from error
    except (PyJWKClientError, PyJWKError) as error:
        raise InvalidTokenError(f"no key of the realm fits: {error}") from error
    if key.algorithm_name not in ALGORITHMS:
        raise InvalidAlgorithmError(f"the realm's key is for {key.algorithm_name}; accepted: {', '.join(ALGORITHMS)}")
    claims = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        issuer=realm.issuer,
        leeway=_CLOCKS,
        options={"require": ["exp", "iss"], "verify_aud": False},
    )
    # Keycloak names the client that a token was made for in "azp", and in "aud" only where the realm is told to.
    audience = claims.get("aud") or []
    meant_for = [audience] if isinstance(audience, str) else list(audience)
    if settings.MONAI_LABEL_AUTH_CLIENT_ID not in (*meant_for, claims.get("azp")):
        raise InvalidAudienceError(f"the token is not for {settings.MONAI_LABEL_AUTH_CLIENT_ID}")
    return claims


def _roles(claims: dict[str, Any]) -> list[str]:
    """The list at the place that MONAI_LABEL_AUTH_TOKEN_ROLES names, e.g. ``realm_access#roles``; empty without one."""
    found: Any = claims
    for step in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(step) if isinstance(found, dict) else None
    return [role for role in found if isinstance(role, str)] if isinstance(found, list) else []


def _unreachable(error: Exception) -> HTTPException:
    uri = settings.MONAI_LABEL_AUTH_REALM_URI
    logger.error("the realm %s cannot be asked: %s", uri, error)
    return HTTPException(503, f"the realm {uri} cannot be asked who you are; try again, or tell the operator")
