/* Points, boxes and lassos on the image, while their tool is on; drawn so that they are seen anywhere. */
import { core, keyOf } from './host.js';
import { boundsOf } from './shapes.js';
import { addBox, addLasso, addPoints } from './prompts.js';
import { current, onChange, state } from './state.js';
import { uncertain } from './uncertainty.js';

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

const LASSO_STEP = 3;
const SMALL = 4; // image pixels: a box or lasso below is a slip of the hand

const pointing = () => ['foreground', 'background', 'box', 'lasso'].includes(state.tool);

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
  if (!next) {
    return;
  }
  if (state.tool === 'box') {
    stroke.places = [stroke.places[0], next];
  } else if (Math.hypot(next.column - last.column, next.row - last.row) >= (state.tool === 'lasso' ? LASSO_STEP : STROKE_STEP)) {
    stroke.places.push(next);
  }
  drawAll();
}

function release(event) {
  if (!stroke) {
    return;
  }
  event.stopPropagation();
  const { places } = stroke;
  stroke = null;
  if (state.tool === 'foreground' || state.tool === 'background') {
    addPoints(places, state.tool === 'foreground');
    return;
  }
  drawAll();
  const [low, high] = boundsOf(places);
  if (high.column - low.column >= SMALL && high.row - low.row >= SMALL) {
    (state.tool === 'box' ? addBox(low, high) : addLasso(places));
  }
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
  const drawing = stroke?.where.element === element && ['box', 'lasso'].includes(state.tool) ? stroke.places : [];
  const unsure = uncertain(imageId);
  let svg = overlays.get(element);
  if (!svg?.isConnected) {
    if (!mine.length && !drawing.length && !unsure) {
      return;
    }
    svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('class', 'pp-points');
    element.append(svg);
    overlays.set(element, svg);
  }
  const at = ({ column, row }) => viewport.worldToCanvas(core().utilities.imageToWorldCoords(imageId, [column, row]));
  const outline = places => made('polygon', { class: 'pp-outline', points: places.map(at).join(' ') });
  svg.replaceChildren(
    ...(unsure ? [laid(unsure, at)] : []),
    ...mine.filter(({ corners }) => corners).map(({ corners }) => outline(rectangle(corners))),
    ...mine.filter(({ corners }) => !corners).map(point => mark(point, at(point))),
    ...(drawing.length > 1 ? [outline(state.tool === 'box' ? rectangle(drawing) : drawing)] : [])
  );
}

function made(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
}

const rectangle = ([a, b]) => [a, { ...a, column: b.column }, b, { ...a, row: b.row }];

function mark({ inside }, [x, y]) {
  const found = made('g', { transform: `translate(${x} ${y})`, class: inside ? 'pp-inside' : 'pp-outside' });
  found.innerHTML = `<circle r="7"/><path d="${inside ? 'M-4 0H4M0 -4V4' : 'M-4 0H4'}"/>`;
  return found;
}

/* A picture over the whole image, wherever it lies in the viewport. */
function laid({ href, columns, rows }, at) {
  const [x, y] = at({ column: 0, row: 0 });
  const [right, down] = [at({ column: columns, row: 0 }), at({ column: 0, row: rows })];
  const matrix = [(right[0] - x) / columns, (right[1] - y) / columns, (down[0] - x) / rows, (down[1] - y) / rows, x, y];
  const attributes = { href, width: columns, height: rows, class: 'pp-uncertain', transform: `matrix(${matrix.join(' ')})` };
  return made('image', { ...attributes, preserveAspectRatio: 'none' });
}
