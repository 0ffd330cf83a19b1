/* Points on the image: set by clicks, or along a stroke, while a point tool is on; drawn so that they are seen anywhere. */
import { core, keyOf } from './host.js';
import { addPoints, current, onChange, state } from './work.js';

const SVG = 'http://www.w3.org/2000/svg';
const STROKE_STEP = 14; // image pixels between the points of a stroke
const overlays = new Map(); // element of a viewport -> our SVG in it
let stroke = null;
let stops = [];

export function enterPoints() {
  const listen = (target, name, handle, options) => {
    target.addEventListener(name, handle, options);
    stops.push(() => target.removeEventListener(name, handle, options));
  };
  listen(document, 'mousedown', press, true);
  listen(document, 'mousemove', move, true);
  listen(document, 'mouseup', release, true);
  const { Events } = core().Enums;
  for (const name of [Events.IMAGE_RENDERED, Events.CAMERA_MODIFIED]) {
    listen(core().eventTarget, name, drawAll);
    listen(document, name, drawAll, true);
  }
  onChange(drawAll);
}

export function leavePoints() {
  stops.forEach(stop => stop());
  stops = [];
  overlays.clear();
}

const pointing = () => state.tool === 'foreground' || state.tool === 'background';

/* The viewport under the mouse, with its image; null where there is none. */
function under(event) {
  const element = event.target?.closest?.('.cornerstone-viewport-element, [data-viewport-uid]');
  const enabled = element && core().getEnabledElement(element);
  return enabled?.viewport?.getCurrentImageId?.() ? { element, viewport: enabled.viewport } : null;
}

function place({ element, viewport }, event) {
  const box = element.getBoundingClientRect();
  const world = viewport.canvasToWorld([event.clientX - box.left, event.clientY - box.top]);
  const imageId = viewport.getCurrentImageId();
  const found = core().utilities.worldToImageCoords(imageId, world);
  const { rows, columns } = core().metaData.get('imagePixelModule', imageId) ?? {};
  if (!found || found[0] < 0 || found[1] < 0 || found[0] >= columns || found[1] >= rows) {
    return null;
  }
  return { imageId, column: found[0], row: found[1] };
}

function press(event) {
  const where = pointing() && event.button === 0 ? under(event) : null;
  if (!where || state.busy) {
    return;
  }
  event.stopPropagation();
  event.preventDefault();
  const first = place(where, event);
  stroke = first && { where, places: [first] };
}

function move(event) {
  if (!stroke) {
    return;
  }
  event.stopPropagation();
  const next = place(stroke.where, event);
  const last = stroke.places.at(-1);
  if (next && Math.hypot(next.column - last.column, next.row - last.row) >= STROKE_STEP) {
    stroke.places.push(next);
  }
}

function release(event) {
  if (!stroke) {
    return;
  }
  event.stopPropagation();
  const { places } = stroke;
  stroke = null;
  addPoints(places, state.tool === 'foreground');
}

function drawAll() {
  for (const element of document.querySelectorAll('.cornerstone-viewport-element')) {
    const enabled = core()?.getEnabledElement?.(element);
    if (enabled?.viewport?.getCurrentImageId) {
      draw(element, enabled.viewport);
    }
  }
}

function draw(element, viewport) {
  const imageId = viewport.getCurrentImageId();
  const mine = imageId && current() ? current().points.filter(point => keyOf(point.imageId) === keyOf(imageId)) : [];
  let svg = overlays.get(element);
  if (!svg?.isConnected) {
    if (!mine.length) {
      return;
    }
    svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('class', 'pp-points');
    element.append(svg);
    overlays.set(element, svg);
  }
  svg.replaceChildren(
    ...mine.map(({ inside, column, row }) => {
      const [x, y] = viewport.worldToCanvas(core().utilities.imageToWorldCoords(imageId, [column, row]));
      const mark = document.createElementNS(SVG, 'g');
      mark.setAttribute('transform', `translate(${x} ${y})`);
      mark.setAttribute('class', inside ? 'pp-inside' : 'pp-outside');
      const path = inside ? 'M-4 0H4M0 -4V4' : 'M-4 0H4';
      mark.innerHTML = `<circle r="7"/><path d="${path}"/>`;
      return mark;
    })
  );
}
