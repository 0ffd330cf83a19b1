"""Many clients at one server: is every answer the one that a single client gets, and does nobody wait for the others?

First each request is asked once, by one client alone; its answer is what all later ones must equal, bit for bit. Then
the clients ask all of it, mixed and as fast as they can: the panel's information, inferences of different studies, the
list of studies, the next sample, and labels that are submitted while others use them as supports (the same label as
before, so that no answer may change).
"""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import requests
from requests_toolbelt import MultipartDecoder

MODEL = "proxyprompt"
SHARES = {"info": 6, "infer": 6, "list": 2, "submit": 2, "next": 2}
"""How often each kind of request is drawn, against the others."""
Answered = tuple[Any, Sequence[float] | None]
"""What must be equal, and when the computation ran."""
Ask = Callable[[requests.Session], Answered]
_TIMEOUT = 600.0
_PASSING = ("latencies", "busy")  # of an inference's answer: when it ran, not what it found


class LoadError(RuntimeError):
    """The server does not answer as the load test needs."""


@dataclass(frozen=True)
class LoadCase:
    """One request and the answer that it must get."""

    kind: str
    ask: Ask
    expected: Any


@dataclass
class Load:
    """What was measured. seconds: by kind of request. busy: (start, end) of each inference on the server."""

    clients: int
    duration: float
    memory_mb: list[float] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    busy: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def percentile(self, kind: str, percent: float) -> float:
        """Seconds; NaN where no such request was made."""
        return float(np.percentile(self.seconds[kind], percent)) if self.seconds.get(kind) else float("nan")

    @property
    def gained_mb(self) -> float:
        """Memory that the server gained for each thousand requests."""
        return 1000 * (self.memory_mb[-1] - self.memory_mb[0]) / max(1000, sum(map(len, self.seconds.values())))

    @property
    def most_at_once(self) -> int:
        """Inferences that were computed at the same time."""
        edges = sorted([(start, 1) for start, _ in self.busy] + [(end, -1) for _, end in self.busy])
        return int(max(np.cumsum([step for _, step in edges]), default=0))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        kinds = {
            kind: {"requests": len(taken), **{f"p{p}": round(self.percentile(kind, p), 4) for p in (50, 95, 100)}}
            for kind, taken in sorted(self.seconds.items())
        }
        return {
            "clients": self.clients,
            "duration": round(self.duration, 1),
            "kinds": kinds,
            "memory_mb": [round(mb) for mb in self.memory_mb],
            "gained_mb": round(self.gained_mb, 1),
            "inferences_at_once": self.most_at_once,
            "wrong": self.wrong,
        }


def run_load(url: str, *, clients: int = 20, seconds: float = 60.0, seed: int = 0) -> Load:
    """Ask ``url`` with so many clients for so long. LoadError when it has no studies to ask for."""
    cases = _cases(url.rstrip("/"))
    by_kind = {kind: [case for case in cases if case.kind == kind] for kind in SHARES}
    load, noting = Load(clients, seconds), threading.Lock()
    load.memory_mb.append(_resident_mb(url))  # every kind of request was answered once by now
    start = time.monotonic()

    def client(number: int) -> None:
        drawn = random.Random(seed * 1000 + number)
        with requests.Session() as session:
            while time.monotonic() - start < seconds:
                kind = drawn.choices(list(SHARES), list(SHARES.values()))[0]
                case = drawn.choice(by_kind[kind])
                asked = time.perf_counter()
                try:
                    answer, busy = case.ask(session)
                    problem = None if answer == case.expected else "is not the answer that one client alone gets"
                except (LoadError, requests.RequestException) as error:
                    problem, busy = str(error), None
                taken = time.perf_counter() - asked
                with noting:
                    load.seconds.setdefault(kind, []).append(taken)
                    if busy:
                        load.busy.append(tuple(busy))
                    if problem:
                        load.wrong.append(f"{kind}: {problem}"[:300])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for tenth in range(1, 10):
        time.sleep(max(0.0, start + seconds * tenth / 10 - time.monotonic()))
        load.memory_mb.append(_resident_mb(url))
    for thread in threads:
        thread.join()
    load.duration = time.monotonic() - start
    load.memory_mb.append(_resident_mb(url))
    return load


@contextmanager
def training_beside(url: str) -> Iterator[None]:
    """A training that runs for as long as the block lasts; it is stopped before it can publish anything.

    Args:
        url: of the server.

    Yields:
        When it has begun.

    Raises:
        LoadError: when it does not begin.
    """
    asked = {"max_epochs": 1000, "max_minutes": "no limit", "learning_rate": 1.0}  # what it makes is refused
    _checked(requests.post(f"{url}/train/{MODEL}", json=asked, timeout=_TIMEOUT))
    try:
        end = time.monotonic() + _TIMEOUT
        while not requests.get(f"{url}/info/", timeout=_TIMEOUT).json()["train_stats"].get(MODEL, {}).get("epoch"):
            if time.monotonic() > end:
                raise LoadError(f"{url}: no training began within {_TIMEOUT:.0f} s")
            time.sleep(1)
        yield
    finally:
        requests.delete(f"{url}/train/", timeout=_TIMEOUT)


def _resident_mb(url: str) -> float:
    """Memory of a server, as its figures tell; 0 where it has none."""
    text = requests.get(f"{url.rstrip('/')}/metrics", timeout=_TIMEOUT).text
    found = [line.split()[1] for line in text.splitlines() if line.startswith("process_resident_memory_bytes ")]
    return float(found[0]) / 1e6 if found else 0.0


def _cases(url: str) -> list[LoadCase]:
    with requests.Session() as session:
        studies = _checked(session.get(f"{url}/datastore/", params={"output": "all"}, timeout=_TIMEOUT)).json()
        labelled = {name: s for name, s in studies["objects"].items() if "final" in s["labels"]}
        waiting = sorted(set(studies["objects"]) - set(labelled))
        if not labelled or not waiting:
            raise LoadError(f"{url} needs labelled and unlabelled studies, e.g. those of scripts/make_samples.py")
        asks = [("info", _info(url)), ("list", _list(url)), ("next", _next(url))]
        asks += [("submit", _submit(url, session, name, labelled[name])) for name in sorted(labelled)[::3]]
        for image in waiting:
            (_, answer), _ = _infer(url, image, {})(session)
            first = json.loads(answer)["supports"][0]["id"]
            asks += [("infer", _infer(url, image, {})), ("infer", _infer(url, image, {"support": first}))]
        return [LoadCase(kind, ask, ask(session)[0]) for kind, ask in asks]


def _checked(response: requests.Response) -> requests.Response:
    if response.status_code != 200:
        raise LoadError(f"{response.request.method} {response.url} -> {response.status_code}: {response.text[:200]}")
    return response


def _info(url: str) -> Ask:
    def ask(session: requests.Session) -> Answered:
        info = _checked(session.get(f"{url}/info/", timeout=_TIMEOUT)).json()
        return (info["models"], info["datastore"]), None

    return ask


def _list(url: str) -> Ask:
    def ask(session: requests.Session) -> Answered:
        found = _checked(session.get(f"{url}/datastore/", params={"output": "all"}, timeout=_TIMEOUT)).json()
        return {name: sorted(study["labels"]) for name, study in found["objects"].items()}, None

    return ask


def _next(url: str) -> Ask:
    def ask(session: requests.Session) -> Answered:
        return _checked(session.post(f"{url}/activelearning/first", json={}, timeout=_TIMEOUT)).json()["id"], None

    return ask


def _submit(url: str, session: requests.Session, name: str, study: dict[str, Any]) -> Ask:
    where = {"tag": "final"}
    label = _checked(session.get(f"{url}/datastore/label", params={"label": name, **where}, timeout=_TIMEOUT)).content
    info = study["labels"]["final"]["info"]
    file = name + study["labels"]["final"]["ext"]

    def ask(session: requests.Session) -> Answered:
        files = {"label": (file, label)}
        data = {"params": json.dumps(info)}
        address, query = f"{url}/datastore/label", {"image": name, **where}
        _checked(session.put(address, params=query, files=files, data=data, timeout=_TIMEOUT))
        query = {"label": name, **where}
        return _checked(session.get(f"{url}/datastore/label", params=query, timeout=_TIMEOUT)).content, None

    return ask


def _infer(url: str, image: str, options: dict[str, Any]) -> Ask:
    def ask(session: requests.Session) -> Answered:
        response = _checked(
            session.post(
                f"{url}/infer/{MODEL}",
                params={"image": image, "output": "all"},
                files={"params": (None, json.dumps(options))},
                timeout=_TIMEOUT,
            )
        )
        parts = {}
        for part in MultipartDecoder.from_response(response).parts:
            parts[part.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0]] = part.content
        answer, label = json.loads(parts[b"params"]), parts[b"image"]
        busy = answer["busy"]
        lasting = {key: value for key, value in answer.items() if key not in _PASSING}
        voxels = gzip.decompress(label) if label[:2] == b"\x1f\x8b" else label
        return (voxels, json.dumps(lasting, sort_keys=True)), busy

    return ask


def summary(load: Load) -> str:
    """Lines for the screen."""
    lines = [f"{load.clients} clients, {load.duration:.0f} s, {len(load.wrong)} wrong answers"]
    lines.append(f"{'request':<8} {'number':>7} {'p50 s':>8} {'p95 s':>8} {'most s':>8}")
    for kind in SHARES:
        times = " ".join(f"{load.percentile(kind, p):8.3f}" for p in (50, 95, 100))
        lines.append(f"{kind:<8} {len(load.seconds.get(kind, [])):7d} {times}")
    lines.append(f"inferences computed at the same time: up to {load.most_at_once}")
    lines.append(f"memory of the server in MB: {' '.join(f'{mb:.0f}' for mb in load.memory_mb)}")
    lines += [f"wrong ({n} times): {what}" for what, n in Counter(load.wrong).most_common(10)]
    return "\n".join(lines)
