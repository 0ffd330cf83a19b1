"""A real server that asks for tokens, and a realm that makes them."""

import time

import pytest
import requests
from realm import PASSWORD, new_key, running_realm
from squares import write_squares
from tiny_atto import weights

from proxyprompt.benchmark.server import running_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def realm():
    with running_realm() as realm:
        yield realm


@pytest.fixture(scope="module")
def server(tmp_path_factory, realm):
    folder = tmp_path_factory.mktemp("e2e")
    write_squares(folder / "studies")
    environment = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.url}
    conf = weights(folder)
    with running_server(folder / "studies", log=folder / "server.log", conf=conf, environment=environment) as running:
        yield running


def ask(server, token, method="GET", path="/info/", **options):
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return requests.request(method, f"{server.url}{path}", headers=headers, timeout=120, **options)


def test_who_may_look(server, realm):
    assert ask(server, realm.token("monailabel-user")).status_code == 200
    assert ask(server, realm.token("monailabel-user"), path="/proxyprompt/report").status_code == 200
    assert ask(server, realm.token()).status_code == 403
    assert ask(server, realm.token("monailabel-annotator")).status_code == 403


def test_who_may_not(server, realm):
    user = "monailabel-user"
    refused = {
        "no token": None,
        "nonsense": "nonsense",
        "expired": realm.token(user, exp=int(time.time()) - 60),
        "for another client": realm.token(user, aud="another", azp="another"),
        "of another realm": realm.token(user, iss="http://127.0.0.1/realms/other"),
        "signed by somebody else": realm.token(user, key=new_key()),
        "changed": realm.token(user)[:-8] + "AAAAAAAA",
    }
    for path in ("/info/", "/datastore/", "/proxyprompt/report", "/session/none", "/logs/"):
        answers = {what: ask(server, token, path=path).status_code for what, token in refused.items()}
        assert answers == dict.fromkeys(refused, 401), path


def test_roles_decide_what_may_be_done(server, realm):
    label = (server.studies / "labels" / "final" / "s0.png").read_bytes()
    where = {"image": "s2", "tag": "final"}

    def submit(token):
        files = {"label": ("s2.png", label)}
        return ask(server, token, "PUT", "/datastore/label", params=where, files=files).status_code

    assert submit(realm.token("monailabel-user")) == 403
    assert not (server.studies / "labels" / "final" / "s2.png").exists()
    assert submit(realm.token("monailabel-annotator")) == 200
    assert (server.studies / "labels" / "final" / "s2.png").read_bytes() == label
    remove = {"id": "s2", "tag": "final"}
    assert (
        ask(server, realm.token("monailabel-annotator"), "DELETE", "/datastore/label", params=remove).status_code == 403
    )
    assert ask(server, realm.token("monailabel-admin"), "DELETE", "/datastore/label", params=remove).status_code == 200


def test_logging_in_at_the_server_gives_a_token(server):
    form = {"username": "ann", "password": PASSWORD}
    token = requests.post(f"{server.url}/auth/token", data=form, timeout=60).json()["access_token"]
    assert ask(server, token).status_code == 200
    assert ask(server, token, path="/auth/token/valid").json()["username"] == "ann"
    form["password"] = "wrong"
    assert requests.post(f"{server.url}/auth/token", data=form, timeout=60).status_code == 401


def test_a_new_key_of_the_realm_counts(server, realm):
    """Last, since the server asks for keys again only half a minute after it did."""
    realm.keys["second"] = new_key()
    token = realm.token("monailabel-user", kid="second")
    end = time.monotonic() + 60
    while ask(server, token).status_code != 200 and time.monotonic() < end:
        time.sleep(2)
    assert ask(server, token).status_code == 200
