"""OHIF in a real Chromium, as a radiologist works with it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 240_000  # ms: software rendering on a busy machine
TRAINING = 1_500_000  # ms
WINDOW = {"width": 1500, "height": 850}
FLAGS = [
    *("--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--ignore-gpu-blocklist",
]


def missing() -> str | None:
    """What is not installed, and how to get it; None where everything is."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright==1.65.2"
    if _chromium() is None:
        return "Chromium is not installed: apt-get install --no-install-recommends chromium"
    return None


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Viewer:
    """One window of OHIF on the server at ``url``. Screenshots go to ``screenshots``, numbered."""

    def __init__(self, page, url: str, screenshots: Path):
        self.page, self.url, self.screenshots = page, url, screenshots
        self.said: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text[:400]}"))
        page.on("pageerror", lambda error: self.said.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: dialog.accept())

    def shot(self, name: str) -> Path:
        self.screenshots.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(1000)  # notices and panels slide in
        path = self.screenshots / f"{len(list(self.screenshots.iterdir())):02d}_{name}.png"
        self.page.screenshot(path=path)
        return path

    def open(self, study: str) -> None:
        """Until the image is there and the panel has connected."""
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self.page.wait_for_selector(".cornerstone-canvas")
        self.page.wait_for_function(_LIT)
        notice = self.page.locator('[data-cy="confirm-and-hide-button"]')
        if notice.is_visible():
            notice.click()
        self.page.wait_for_selector("#proxyprompt-submit")
        self.page.wait_for_timeout(2000)  # the label map is being made

    def choose(self, section: str = "infer", /, **options: str) -> None:
        """In the dialog of options: each one's entry by its value, or its text where there is nothing to choose."""
        self.page.get_by_text("Options / Configurations").first.click()
        self.page.locator("select[name=selectSection]").select_option(section)
        for name, value in options.items():
            field = self.page.locator(f"#{section}proxyprompt{name}")
            if field.evaluate("field => field.tagName") == "SELECT":
                field.select_option(value)
            else:
                field.fill(value)
        self.page.get_by_text("Confirm", exact=True).click()

    def offered(self, option: str) -> dict[str, str]:
        """value -> text of a drop-down in the dialog of options."""
        self.page.get_by_text("Options / Configurations").first.click()
        entries = self.page.locator(f"#inferproxyprompt{option} option")
        entries.first.wait_for(state="attached")
        found = dict(entries.evaluate_all("all => all.map(one => [one.value, one.text])"))
        self.page.get_by_text("Cancel", exact=True).click()
        return found

    def segment(self) -> str:
        """Runs Auto-Segmentation; the text that tells what the answer rests on."""
        assert self._run("Run", "/infer/") == 200
        self.page.locator("#proxyprompt-answer table").first.wait_for()
        self.page.wait_for_timeout(1500)  # the overlay is being drawn
        return self.page.locator("#proxyprompt-answer").inner_text()

    def segment_refused(self) -> str:
        """Runs Auto-Segmentation, which must fail; what the viewer says about it."""
        assert self._run("Run", "/infer/") >= 400
        said = self.page.locator("[data-sonner-toast][data-type=error]").first
        said.wait_for()
        return said.inner_text()

    def click_prompt(self, label: str, place: tuple[float, float]) -> dict:
        """One click inside a structure, as a point prompt; the answer's JSON."""
        self.page.locator("label[for=tab-3]").click()
        self.page.locator(".clickable-row", has_text=re.compile(f"^{label}$")).click()
        x, y = self._at(place)
        self.page.mouse.click(x, y)
        self.page.wait_for_timeout(500)
        with self.page.expect_response(lambda r: "/infer/" in r.url) as answered:
            self.page.get_by_text("Run", exact=True).nth(1).click()
        assert answered.value.status == 200, answered.value.text()
        self.page.wait_for_timeout(1500)
        body = answered.value.body().decode("latin-1")
        return json.JSONDecoder().raw_decode(body[body.index("{") :])[0]

    def activate(self, segment: str) -> None:
        """Makes a segment of the list the one that is painted with."""
        self.page.locator('[data-cy="data-row"]', has_text=segment).first.click()

    def select_viewport(self, series: str) -> None:
        """Makes the viewport that shows the series of this description the active one."""
        self.page.locator('[data-cy="viewport-pane"]', has_text=series).first.click()

    def _open_active_learning(self) -> None:
        if not self.page.locator("#tab-1").is_checked():
            self.page.locator("label[for=tab-1]").click()

    def _run(self, button: str, address: str) -> int:
        with self.page.expect_response(lambda r: address in r.url and r.request.method != "GET") as answered:
            self.page.get_by_text(button, exact=True).first.click()
        return answered.value.status

    def _at(self, place: tuple[float, float]) -> tuple[float, float]:
        box = self.page.locator(".cornerstone-canvas").first.bounding_box()
        return box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]

    def brush(self, *strokes: tuple[float, float]) -> None:
        """Paints with the active segment from one place to the next; places as fractions of the viewport."""
        self.page.locator('[data-cy="Brush"]').first.click()
        points = [self._at(place) for place in strokes]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=8)
        self.page.mouse.up()
        self.page.wait_for_timeout(1000)

    def undo(self) -> None:
        self.page.locator("#proxyprompt-undo").click()

    def painted(self) -> dict[str, int]:
        """name -> pixels that have it, of the first label map."""
        return self.page.evaluate(_PAINTED)

    def submit(self) -> None:
        with self.page.expect_response(lambda r: "/datastore/label" in r.url) as answered:
            self.page.locator("#proxyprompt-submit").click()
        assert answered.value.status == 200, answered.value.text()
        self.page.get_by_text(re.compile("Submitted:")).first.wait_for()

    def next_sample(self, strategy: str) -> tuple[str, dict]:
        """Asks for the next sample and goes there; the address that was asked, and its answer."""
        self._open_active_learning()
        self.page.locator("select.actionInput").select_option(strategy)
        with self.page.expect_response(lambda r: "/activelearning/" in r.url) as answered:
            self.page.get_by_text("Next Sample", exact=True).click()
        assert answered.value.status == 200, answered.value.text()
        self.page.locator(".nextSampleForm").first.wait_for()
        self.shot("next_sample")
        sample = answered.value.json()
        self.page.get_by_text("OK", exact=True).click()
        self.page.wait_for_url(f"**{sample['StudyInstanceUID']}")
        return answered.value.url, sample

    def update_model(self, button: str) -> int:
        """Presses "Update Model" or "Stop Training"; the status of the answer."""
        self._open_active_learning()
        return self._run(button, "/train/")

    def wait_for_training(self) -> str:
        """Until the panel offers to train again; what it says then about the training that has ended."""
        self.page.get_by_text("Stop Training", exact=True).wait_for()
        self.page.get_by_text("Update Model", exact=True).wait_for(timeout=TRAINING)
        said = self.page.locator("#proxyprompt-training p").first.inner_text()
        self.page.locator("[data-sonner-toast]", has_text=said).wait_for()
        return said


_LIT = """() => [...document.querySelectorAll('.cornerstone-canvas')].some(canvas => {
  const small = document.createElement('canvas');
  small.width = small.height = 32;
  const context = small.getContext('2d');
  context.drawImage(canvas, 0, 0, 32, 32);
  return context.getImageData(0, 0, 32, 32).data.some((value, n) => n % 4 < 3 && value > 40);
})"""

_PAINTED = """() => {
  const [{ segments, representationData }] = window.services.segmentationService.getSegmentations();
  const names = new Map(Object.values(segments).map(segment => [segment.segmentIndex, segment.label]));
  const pixels = {};
  for (const id of representationData.Labelmap.imageIds) {
    for (const index of window.cornerstone.cache.getImage(id).getPixelData().filter(index => index)) {
      pixels[names.get(index)] = (pixels[names.get(index)] ?? 0) + 1;
    }
  }
  return pixels;
}"""


@contextmanager
def viewer(url: str, screenshots: Path) -> Iterator[Viewer]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_chromium(), headless=True, args=FLAGS)
        try:
            yield Viewer(browser.new_page(viewport=WINDOW), url, screenshots)
        finally:
            browser.close()
