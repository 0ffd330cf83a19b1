#!/usr/bin/env python3
"""The whole loop by MONAI Label's own Python client: next sample, segment, correct by a click, submit, and the rest.

    scripts/serve.sh                                              # in another terminal
    python scripts/client_example.py --server http://127.0.0.1:8000

Proposes a study, segments it, clicks once on it, submits the result as its final label, and segments all studies that
are still unlabelled with it among the supports. With --rounds N, N studies are labelled in this way. The click is a
stand-in for a reader's: the middle of the image is said to belong to the first structure. Try it on sample studies, not
on those that you need.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelUtils

MODEL, EDIT = "proxyprompt", "proxyprompt_edit"


def label_next(client: MONAILabelClient) -> str | None:
    """Label the study that the server proposes; its id, or None where all are labelled."""
    sample = client.next_sample("random", {})  # whatever the operator chose: --conf next_sample
    if not sample:
        return None
    image = sample["id"]
    _, answer = client.infer(MODEL, image, {})
    used = ", ".join(f"{s['id']} ({s['similarity']:.2f})" for s in answer["supports"])
    print(f"{image}: {', '.join(answer['label_names'])} as in {used}")

    structure = next(iter(answer["label_names"]))
    edited = {"structure": list(answer["label_names"]), structure: [middle(client, sample)]}
    mask, answer = client.infer(EDIT, image, edited)
    print(f"  one click on {structure}: {answer['latencies']['click']:.2f} s of {answer['latencies']['total']:.2f} s")

    names = [{"name": name, "idx": id} for name, id in answer["label_names"].items()]
    client.save_label(image, mask, tag="final", params={"label_info": names})
    return image


def middle(client: MONAILabelClient, sample: Mapping[str, str]) -> list[int]:
    """The voxel (x, y, z) in the middle of an image; one that is not on this machine is downloaded, as Slicer does."""
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        path = Path(sample["path"])
        if not path.is_file():
            address = f"{client.get_server_url()}/datastore/image"
            answer = requests.get(address, params={"image": sample["id"]}, timeout=600)
            answer.raise_for_status()
            path = Path(folder) / sample["name"]
            path.write_bytes(answer.content)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return [n // 2 for n in (*reader.GetSize(), 1)[:3]]


def segment_the_rest(client: MONAILabelClient) -> dict[str, object]:
    """Proposals (tag ``original``) for all studies without a final label; the client has no method for it."""
    address = f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true"
    status, answer, _, _ = MONAILabelUtils.http_method("POST", client.get_server_url(), address, {"max_workers": 1})
    if status != 200:
        raise RuntimeError(f"batch inference: {status}: {answer.decode()}")
    return json.loads(answer)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000", metavar="URL")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="studies to label (default 1)")
    options = parser.parse_args(arguments)
    # a folder of its own: the client takes the server's file names, and the server removes its files
    with tempfile.TemporaryDirectory(prefix="client-") as folder:
        client = MONAILabelClient(options.server, tmpdir=folder)
        supports = client.info()["models"][MODEL]["config"]["support"]
        print(f"{len(supports) - 1} labelled studies")
        for _ in range(options.rounds):
            image = label_next(client)
            if image is None:
                print("every study is labelled")
                return 0
            assert image in client.info()["models"][MODEL]["config"]["support"]
            print(f"  submitted; {image} is a support now")
        done = segment_the_rest(client)
        print(f"proposals for {len(done)} more: {', '.join(sorted(done))}")
        if done:
            copy = Path(client.download_label(next(iter(done)), "original"))
            print(f"the first one: {copy.stat().st_size} bytes{copy.suffix}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
