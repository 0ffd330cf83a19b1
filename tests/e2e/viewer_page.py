"""OHIF in a real Chromium, as a radiologist works with it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 240_000  # ms: software rendering on a busy machine
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
    """One window of OHIF on the server at ``url``. Screenshots go to ``pictures``, numbered."""

    def __init__(self, page, url: str, pictures: Path):
        self.page, self.url, self.pictures = page, url, pictures
        self.said: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text[:400]}"))
        page.on("pageerror", lambda error: self.said.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: dialog.accept())

    def shot(self, name: str) -> Path:
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{len(list(self.pictures.iterdir())):02d}_{name}.png"
        self.page.screenshot(path=path)
        return path

    def open(self, study: str) -> None:
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self.wait_for_image()

    def wait_for_image(self) -> None:
        """Until the panel stands and an image has been drawn."""
        self.page.wait_for_selector("#monailabelServerURL")
        self.page.wait_for_selector(".cornerstone-canvas")
        self.page.wait_for_function(_LIT)

    def connect(self) -> None:
        with self.page.expect_response(lambda r: r.url.endswith("/info/") and r.request.method == "GET"):
            self.page.locator(".settingsTable button.actionButton").click()
        self.page.wait_for_selector("#proxyprompt-submit")
        self.page.wait_for_timeout(2000)  # the label map is being made

    def choose(self, **options: str) -> None:
        """In the dialog of options: each one's entry by its value."""
        self.page.get_by_text("Options / Configurations").first.click()
        for name, value in options.items():
            self.page.locator(f"#inferproxyprompt{name}").select_option(value)
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
        with self.page.expect_response(lambda r: "/infer/proxyprompt" in r.url) as answered:
            self.page.get_by_text("Run", exact=True).first.click()
        assert answered.value.status == 200, answered.value.text()
        told = self.page.locator("#proxyprompt-answer table").first
        told.wait_for()
        self.page.wait_for_timeout(1500)  # the overlay is being drawn
        return self.page.locator("#proxyprompt-answer").inner_text()

    def brush(self, *strokes: tuple[float, float]) -> None:
        """Paints with the active segment from one place to the next; places as fractions of the viewport."""
        self.page.locator('[data-cy="Brush"]').first.click()
        box = self.page.locator(".cornerstone-canvas").first.bounding_box()
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in strokes]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=8)
        self.page.mouse.up()
        self.page.wait_for_timeout(1000)

    def submit(self) -> None:
        with self.page.expect_response(lambda r: "/datastore/label" in r.url) as answered:
            self.page.locator("#proxyprompt-submit").click()
        assert answered.value.status == 200, answered.value.text()
        self.page.get_by_text(re.compile("Submitted:")).first.wait_for()

    def next_sample(self, strategy: str) -> str:
        """Asks for the next sample and goes there; the address that was asked."""
        self.page.locator("label[for=tab-1]").click()
        self.page.locator("select.actionInput").select_option(strategy)
        with self.page.expect_response(lambda r: "/activelearning/" in r.url) as answered:
            self.page.get_by_text("Next Sample", exact=True).click()
        assert answered.value.status == 200, answered.value.text()
        self.page.locator(".nextSampleForm").first.wait_for()
        self.shot("next_sample")
        self.page.get_by_text("OK", exact=True).click()
        self.page.wait_for_load_state("domcontentloaded")
        return answered.value.url


_LIT = """() => [...document.querySelectorAll('.cornerstone-canvas')].some(canvas => {
  const small = document.createElement('canvas');
  small.width = small.height = 32;
  const context = small.getContext('2d');
  context.drawImage(canvas, 0, 0, 32, 32);
  return context.getImageData(0, 0, 32, 32).data.some((value, n) => n % 4 < 3 && value > 40);
})"""


@contextmanager
def viewer(url: str, pictures: Path) -> Iterator[Viewer]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_chromium(), headless=True, args=FLAGS)
        try:
            yield Viewer(browser.new_page(viewport=WINDOW), url, pictures)
        finally:
            browser.close()
