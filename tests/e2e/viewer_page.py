"""OHIF with our panel in a real Chromium, as a radiologist works with it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxyprompt.viewer.package import NAME, VERSION, viewer_folder

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
    if not viewer_folder().is_dir():
        return f"{NAME} {VERSION} is not here: python -m proxyprompt.viewer.package"
    return None


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Viewer:
    """One window of OHIF on the server at ``url``. Screenshots go to ``folder``, numbered.

    asked: addresses of all requests. errors: of the page. dialogs: kinds of the browser's own questions, which are
    accepted. clicks: since :meth:`count`.
    """

    def __init__(self, page, url: str, folder: Path):
        self.page, self.url, self.folder = page, url, folder
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.clicks = 0
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._accept)

    def _accept(self, dialog) -> None:
        self.dialogs.append(dialog.type)
        dialog.accept()

    def shot(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(1000)  # notices and panels slide in
        path = self.folder / f"{len(list(self.folder.iterdir())):02d}_{name}.png"
        self.page.screenshot(path=path)
        return path

    def count(self) -> None:
        """Clicks are counted from here."""
        self.clicks = 0

    def press(self, selector: str) -> None:
        """One click on a part of the panel."""
        self.page.locator(selector).first.click()
        self.clicks += 1

    # where we are

    def open(self, study: str) -> None:
        """Until the image is there and the panel knows the series."""
        self.page.goto(f"{self.url}/ohif/proxyprompt?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector(".cornerstone-canvas")
        self.page.wait_for_function(_LIT)
        self.page.wait_for_selector("#pp-supports img")
        self.known()

    def known(self) -> None:
        """Until the panel knows the series, and has drawn its stored label."""
        self.page.locator('#pp-series[data-known="yes"]').wait_for()
        self.page.wait_for_timeout(500)

    def select_viewport(self, series: str) -> None:
        """Makes the viewport that shows the series of this description the active one."""
        self.page.locator('[data-cy="viewport-pane"]', has_text=series).first.click()
        self.page.locator("#pp-series", has_text=series).wait_for()
        self.known()

    # supports and results

    def supports(self) -> dict[str, str]:
        """id -> name of all of them."""
        more = self.page.locator("#pp-more")
        while more.is_visible():
            more.click()
            self.page.wait_for_timeout(300)
        shown = self.page.locator("#pp-supports figure")
        return dict(shown.evaluate_all("all => all.map(one => [one.dataset.id, one.title.split('\\n')[0]])"))

    def pick(self, support: str) -> None:
        self.press(f'#pp-supports figure[data-id="{support}"] img')
        self.page.locator(f'.pp-picked[data-id="{support}"]').wait_for()

    def let_choose(self) -> None:
        """No support is picked any more."""
        button = self.page.get_by_text("Choose for me")
        if button.is_visible():
            button.click()

    def want(self, structure: str) -> None:
        self.page.locator(".pp-chips .pp-chip", has_text=re.compile(f"^{structure}$")).click()

    def segment(self) -> dict:
        """Runs Auto-segment; the answer's JSON."""
        with self.page.expect_response(lambda r: "/infer/" in r.url) as answered:
            self.press("#pp-run")
        assert answered.value.status == 200, answered.value.text()
        answer = _answer(answered.value.body())
        self.page.locator("#pp-result").wait_for()
        self.settled()
        return answer

    def compare(self, version: str) -> dict:
        """Segments with another version too; its answer's JSON."""
        with self.page.expect_response(lambda r: "/infer/" in r.url) as answered:
            self.page.locator("#pp-compare").select_option(version)
        assert answered.value.status == 200, answered.value.text()
        self.settled()
        return _answer(answered.value.body())

    def settled(self) -> str:
        """Until nothing is running; what the panel says then."""
        self.page.locator("#pp-busy").wait_for(state="detached")
        self.page.locator("#pp-message").wait_for()
        self.page.wait_for_timeout(1500)  # the overlay is being drawn
        return self.said()

    def said(self) -> str:
        return self.page.locator("#pp-message").inner_text()

    def kind(self) -> str:
        """good, warn, bad or info."""
        return re.search(r"pp-(good|warn|bad|info)", self.page.locator("#pp-message").get_attribute("class"))[1]

    # drawing

    def painted(self) -> dict[str, int]:
        """name -> pixels that have it, of the label map of the active series; without those of none."""
        return self.page.evaluate(_PAINTED, self.page.locator("#pp-series").get_attribute("title"))

    def pixels(self) -> list[bytes]:
        """The label map of the active series, an item a slice, in the viewer's order."""
        found = self.page.evaluate(_PIXELS, self.page.locator("#pp-series").get_attribute("title"))
        return [bytes(pixels) for pixels in found]

    def activate(self, structure: str) -> None:
        self.press(f'.pp-segment[data-name="{structure}"]')

    def brush(self, *strokes: tuple[float, float]) -> None:
        """Paints with the active structure from one place to the next; places as fractions of the viewport."""
        if "pp-on" not in (self.page.locator("#pp-brush").get_attribute("class") or ""):
            self.press("#pp-brush")
            self.page.locator("#pp-brush.pp-on").wait_for()
        self.drag(*strokes)
        self.page.wait_for_timeout(2000)  # the draft is being kept

    def drag(self, *places: tuple[float, float]) -> None:
        """The left button held from one place to the next."""
        points = [self._at(place) for place in places]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=8)
        self.page.mouse.up()

    def shape(self, tool: str, *places: tuple[float, float]) -> dict:
        """A box or a lasso on the active structure, which runs; the answer's JSON."""
        self.press(f"#pp-{tool}")
        self.page.locator(f"#pp-{tool}.pp-on").wait_for()
        with self.page.expect_response(lambda r: "/infer/" in r.url) as answered:
            self.drag(*places)
        assert answered.value.status == 200, answered.value.text()
        self.settled()
        return _answer(answered.value.body())

    def point(self, place: tuple[float, float], *, inside: bool = True) -> dict:
        """One point on the active structure, which runs; the answer's JSON."""
        tool = "#pp-foreground" if inside else "#pp-background"
        if "pp-on" not in (self.page.locator(tool).get_attribute("class") or ""):
            self.press(tool)
        with self.page.expect_response(lambda r: "/infer/" in r.url) as answered:
            self.page.mouse.click(*self._at(place))
        assert answered.value.status == 200, answered.value.text()
        self.settled()
        return _answer(answered.value.body())

    def _at(self, place: tuple[float, float]) -> tuple[float, float]:
        box = self.page.locator(".cornerstone-canvas").first.bounding_box()
        return box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]

    # storing and going on

    def submit(self) -> str:
        """Submits without a question in between; what the panel says then."""
        with self.page.expect_response(lambda r: "/datastore/label" in r.url) as answered:
            self.press("#pp-submit")
        assert answered.value.status == 200, answered.value.text()
        return self.settled()

    def answer_dialog(self, button: str) -> str:
        """Presses a button of our question; its text."""
        dialog = self.page.locator("dialog.pp-dialog")
        dialog.wait_for()
        text = dialog.locator("p").first.inner_text()
        dialog.get_by_text(button, exact=True).click()
        return text

    def choose_in_dialog(self, number: int) -> str:
        """Presses the button of this number of our question; its text."""
        dialog = self.page.locator("dialog.pp-dialog")
        dialog.wait_for()
        text = dialog.locator("p").first.inner_text()
        dialog.locator("button").nth(number).click()
        return text

    def next_sample(self) -> str:
        """Asks for the next sample, and is there; the SeriesInstanceUID that is shown then."""
        before = self.page.url
        self.press("#pp-next")
        self.page.wait_for_url(lambda address: address != before)
        self.ready()
        return self.page.locator("#pp-series").get_attribute("title")

    def option(self, name: str, value: str | bool) -> None:
        """Sets one of the options, which are opened if they are not."""
        field = self.page.locator(f"#pp-option-{name}")
        if not field.is_visible():
            self.page.locator("#pp-options summary").click()
        if isinstance(value, bool):
            field.set_checked(value)
        elif field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def _answer(body: bytes) -> dict:
    """The JSON among the parts of an answer."""
    text = body.decode("latin-1")
    return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]


_LIT = """() => [...document.querySelectorAll('.cornerstone-canvas')].some(canvas => {
  const small = document.createElement('canvas');
  small.width = small.height = 32;
  const context = small.getContext('2d');
  context.drawImage(canvas, 0, 0, 32, 32);
  return context.getImageData(0, 0, 32, 32).data.some((value, n) => n % 4 < 3 && value > 40);
})"""

_PAINTED = """series => {
  const { segmentationService, displaySetService } = window.services;
  const own = segmentationService.getSegmentations().filter(({ segmentationId }) => {
    const set = displaySetService.getDisplaySetByUID(segmentationId.replace('proxyprompt-', ''));
    return set?.SeriesInstanceUID === series;
  });
  const pixels = {};
  for (const { segments, representationData } of own) {
    const names = new Map(Object.values(segments).map(segment => [segment.segmentIndex, segment.label]));
    for (const id of representationData.Labelmap.imageIds) {
      for (const index of window.cornerstone.cache.getImage(id).getPixelData().filter(index => index)) {
        pixels[names.get(index)] = (pixels[names.get(index)] ?? 0) + 1;
      }
    }
  }
  return pixels;
}"""

_PIXELS = """series => {
  const { segmentationService, displaySetService } = window.services;
  const sets = displaySetService.getActiveDisplaySets();
  const set = sets.find(one => one.SeriesInstanceUID === series && one.imageIds?.length);
  const own = segmentationService.getSegmentation(`proxyprompt-${set.displaySetInstanceUID}`);
  return own.representationData.Labelmap.imageIds.map(id => [...window.cornerstone.cache.getImage(id).getPixelData()]);
}"""


@contextmanager
def viewer(url: str, folder: Path) -> Iterator[Viewer]:
    """Every request to elsewhere fails, as behind a firewall."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_chromium(), headless=True, args=FLAGS)
        try:
            page = browser.new_context(viewport=WINDOW).new_page()
            page.route(lambda address: not address.startswith((url, "data:", "blob:")), lambda route: route.abort())
            yield Viewer(page, url, folder)
        finally:
            browser.close()
