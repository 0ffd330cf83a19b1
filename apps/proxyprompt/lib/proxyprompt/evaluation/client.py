"""A running MONAI Label server with this app, asked over HTTP as viewers ask it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import requests
from requests_toolbelt import MultipartDecoder

TASK = "proxyprompt"


class ServerError(RuntimeError):
    """The server does not answer, or refuses; with its own words.

    status: of the HTTP answer; None where there was none, or where it was not what was asked for.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """url: such as http://127.0.0.1:8000. timeout: seconds to wait for an answer."""

    def __init__(self, url: str, *, timeout: float = 600) -> None:
        self.url, self._timeout = url.rstrip("/"), timeout

    def info(self) -> dict[str, Any]:
        """What the server offers; ServerError when it lacks the task."""
        try:
            info = self._ask("GET", "/info/").json()
            models = info["models"]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self.url} does not answer like a MONAI Label server: {error!r}") from error
        if TASK not in models:
            raise ServerError(f"{self.url} has no task {TASK!r}; it offers {', '.join(models) or 'none'}")
        return info

    def versions(self) -> list[str]:
        """The versions of the weights on offer, the one that serves first."""
        return self.info()["models"][TASK]["config"]["adapter"]

    def add_image(self, path: Path, *, id: str = "", patient: str = "") -> str:
        """Uploads an image.

        Args:
            path: the file.
            id: "" for the one that the server makes of the file's name.
            patient: or case; images of one are never on both sides of a split. "" where nobody knows.

        Returns:
            The image's id.
        """
        with path.open("rb") as file:
            reply = self._ask(
                "PUT",
                "/datastore/image",
                params={"image": id},
                files={"file": (path.name, file)},
                data={"params": json.dumps({"PatientID": patient} if patient else {})},
            )
        return reply.json()["image"]

    def image_info(self, id: str) -> dict[str, Any]:
        """What the server has noted of an image."""
        return self._ask("GET", "/datastore/image/info", params={"image": id}).json()

    def remove_image(self, id: str) -> None:
        """Takes a study away, with all its labels."""
        self._ask("DELETE", "/datastore/image", params={"id": id})

    def submit(
        self, id: str, path: Path, structures: Mapping[str, Collection[int]] | None = None, *, tag: str = "final"
    ) -> None:
        """A label, as a viewer sends it.

        Args:
            id: of the image.
            path: the label's file.
            structures: name -> its values in the file; None leaves the names to the server.
            tag: "final" for what a person drew.
        """
        names = [{"name": name, "idx": int(v)} for name, values in (structures or {}).items() for v in values]
        with path.open("rb") as file:
            self._ask(
                "PUT",
                "/datastore/label",
                params={"image": id, "tag": tag},
                files={"label": (path.name, file)},
                data={"params": json.dumps({"label_info": names} if names else {})},
            )

    def segment(self, id: str, **options: Any) -> tuple[bytes, str, dict[str, Any]]:
        """The label file's bytes and suffix, and the answer's JSON."""
        reply = self._ask(
            "POST", f"/infer/{TASK}", params={"image": id, "output": "all"}, data={"params": json.dumps(options)}
        )
        parameters, content, suffix = None, None, ""
        for part in MultipartDecoder.from_response(reply).parts:
            header = part.headers[b"Content-Disposition"].decode()
            if 'name="params"' in header:
                parameters = json.loads(part.text)
            elif found := re.search(r'filename="([^"]+)"', header):
                content, suffix = part.content, ".nii.gz" if found[1].endswith(".nii.gz") else Path(found[1]).suffix
        if parameters is None or content is None:
            raise ServerError(f"{id}: the answer lacks {'its JSON part' if parameters is None else 'the label file'}")
        return content, suffix, parameters

    def train(self, **options: Any) -> None:
        """Starts a training and returns at once."""
        self._ask("POST", f"/train/{TASK}", json=options)

    def training(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last training as the server tells it: its status, and the statistics."""
        return self._ask("GET", "/train/").json(), self.info()["train_stats"][TASK]

    def kill_training(self) -> None:
        self._ask("DELETE", "/train/")

    def _ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            reply = requests.request(method, f"{self.url}{path}", timeout=self._timeout, **arguments)
        except requests.RequestException as error:
            raise ServerError(f"{self.url} does not answer: {error}; is it running?") from error
        if reply.status_code != 200:
            raise ServerError(
                f"{method} {path}: status {reply.status_code}: {reply.text[:500]}", status=reply.status_code
            )
        return reply
