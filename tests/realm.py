"""A small OpenID Connect realm on loopback, with real keys: what Keycloak says, as far as this app listens."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT = "monailabel-app"
PASSWORD = "right"


def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Realm:
    """url: the realm's address. keys: key id -> private key; what is in here is published."""

    def __init__(self, url):
        self.url, self.keys, self.extra_keys = url, {"first": new_key()}, []

    def jwks(self):
        published = []
        for name, key in self.keys.items():
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            published.append({**jwk, "kid": name, "use": "sig", "alg": "RS256"})
        return {"keys": [*published, *self.extra_keys]}

    def claims(self, *roles, **changes):
        """Those of a good token; a change to None leaves the claim out."""
        now = int(time.time())
        good = {
            "iss": self.url,
            "exp": now + 300,
            "iat": now,
            "aud": "account",
            "azp": CLIENT,
            "preferred_username": "ann",
            "name": "Ann",
            "email": "ann@example.org",
            "realm_access": {"roles": list(roles)},
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, *roles, kid="first", key=None, algorithm="RS256", **changes):
        key = key or self.keys[kid]
        return jwt.encode(self.claims(*roles, **changes), key, algorithm=algorithm, headers={"kid": kid})

    def public_pem(self, kid="first"):
        encoding, layout = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[kid].public_key().public_bytes(encoding, layout)


@contextmanager
def running_realm():
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            known = {
                "/realms/test/.well-known/openid-configuration": lambda: {
                    "issuer": realm.url,
                    "jwks_uri": f"{realm.url}/certs",
                    "token_endpoint": f"{realm.url}/token",
                },
                "/realms/test/certs": realm.jwks,
            }
            found = known.get(self.path)
            self.answer(200, found()) if found else self.answer(404, {"error": "not found"})

        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if form["password"] != [PASSWORD]:
                self.answer(401, {"error": "invalid_grant"})
                return
            token = realm.token("monailabel-user", preferred_username=form["username"][0])
            self.answer(200, {"access_token": token, "token_type": "Bearer"})

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    realm = Realm(f"http://127.0.0.1:{server.server_port}/realms/test")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield realm
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
