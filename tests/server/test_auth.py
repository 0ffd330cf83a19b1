"""Tokens of a realm: which count, and which do not."""

import base64
import json
import time

import jwt
import pytest
from fastapi import HTTPException
from jwt import InvalidTokenError
from monailabel.config import settings
from realm import new_key, running_realm

from proxyprompt.server.auth import user_of


@pytest.fixture(scope="module")
def realm():
    with running_realm() as realm:
        yield realm


@pytest.fixture(autouse=True)
def switched_on(realm, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", realm.url)


def test_a_good_token_names_its_user_and_roles(realm):
    user = user_of(realm.token("monailabel-user", "monailabel-admin"))
    assert (user.username, user.name, user.email) == ("ann", "Ann", "ann@example.org")
    assert user.roles == ["monailabel-user", "monailabel-admin"]


@pytest.mark.parametrize("audience", ["monailabel-app", ["account", "monailabel-app"]])
def test_the_client_may_stand_in_the_audience(realm, audience):
    assert user_of(realm.token(aud=audience, azp=None)).username == "ann"


@pytest.mark.parametrize("roles", [None, {}, {"roles": None}, {"roles": "monailabel-admin"}, "monailabel-admin"])
def test_roles_that_are_no_list_are_none(realm, roles):
    assert user_of(realm.token(realm_access=roles)).roles == []


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"nbf": int(time.time()) + 3600},
        {"aud": "another", "azp": "another"},
        {"aud": None, "azp": None},
        {"iss": "http://127.0.0.1/realms/other"},
        {"iss": None},
        {"preferred_username": None},
    ],
)
def test_expired_misdirected_or_nameless(realm, changes):
    with pytest.raises(InvalidTokenError):
        user_of(realm.token("monailabel-user", **changes))


def forged(realm, header, signature=b""):
    parts = [json.dumps(part).encode() for part in (header, realm.claims("monailabel-admin"))]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, signature)).decode()


def test_signed_by_nobody_or_by_somebody_else(realm):
    good = realm.token("monailabel-user")
    for token in (
        forged(realm, {"alg": "none", "typ": "JWT", "kid": "first"}),
        forged(realm, {"alg": "none", "typ": "JWT"}),
        realm.token("monailabel-admin", key=new_key()),
        realm.token("monailabel-admin", key=new_key(), kid="unknown"),
        realm.token("monailabel-admin", algorithm="RS512"),
        good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB"),
        *("", "nonsense", "a.b.c", good.rpartition(".")[0]),
    ):
        with pytest.raises(InvalidTokenError):
            user_of(token)


def test_the_public_key_is_no_shared_secret(realm):
    """The old trick: sign with HMAC and the public key, which everybody knows."""
    import hashlib
    import hmac

    unsigned = forged(realm, {"alg": "HS256", "typ": "JWT", "kid": "first"}).rpartition(".")[0]
    signature = hmac.digest(realm.public_pem(), unsigned.encode(), hashlib.sha256)
    token = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(InvalidTokenError):
        user_of(token)


def test_a_shared_secret_counts_not_even_where_the_realm_publishes_it(realm):
    secret = b"0123456789abcdef0123456789abcdef"
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    realm.extra_keys.append({"kty": "oct", "k": encoded, "kid": "shared", "use": "sig", "alg": "HS256"})
    token = jwt.encode(realm.claims("monailabel-admin"), secret, algorithm="HS256", headers={"kid": "shared"})
    with pytest.raises(InvalidTokenError):
        user_of(token)


def test_a_realm_that_is_away_is_no_fault_of_the_token(realm, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", "http://127.0.0.1:9/realms/away")
    with pytest.raises(HTTPException) as caught:
        user_of(realm.token("monailabel-user"))
    assert caught.value.status_code == 503


def test_switched_off_everybody_is_admin(monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", False)
    assert "monailabel-admin" in user_of("").roles
