/* What points, boxes and lassos ask for: each runs at once. */
import { key, keyOf } from './host.js';
import { paintable } from './painting.js';
import { segment, show } from './segmenting.js';
import { boundsOf, middleOf } from './shapes.js';
import { busy, current, of, say, state, update } from './state.js';

/* Points on the active structure, and a box, which is two corners. */
export async function addPoints(places, inside, box = null) {
  const displaySet = state.series;
  const name = await paintable();
  const one = of(displaySet);
  const before = [...one.points];
  if (!name || !one.instances?.length) {
    say('info', 'Points can be set as soon as the server knows this series');
    return;
  }
  const slice = one.instances.findIndex(([uid, frame]) => key(uid, frame) === keyOf((box ?? places)[0].imageId));
  const voxel = ({ column, row }) => [Math.floor(column), Math.floor(row), slice];
  if (box) {
    one.points = one.points.filter(point => !(point.box && point.name === name && point.voxel[2] === slice));
    one.points.push({ name, imageId: box[0].imageId, corners: box, voxel: voxel(box[0]), box: box.map(voxel) });
  }
  one.points.push(...places.map(place => ({ name, inside, ...place, voxel: voxel(place) })));
  await runPrompts(displaySet, name, before);
}

/* A box says that the structure does not leave it; one for each structure and slice. */
export const addBox = (one, other) => addPoints([], true, [one, other]);

/* A lasso is the box around it and a point in its middle: what every foundation takes. */
export const addLasso = places => addPoints([{ ...places[0], ...middleOf(places) }], true, boundsOf(places));

export async function removeLastPoint() {
  const one = current();
  const before = [...one.points];
  const last = one.points.pop(); // of a lasso the point, then the box
  if (last && one.points.some(point => point.name === last.name)) {
    await runPrompts(state.series, last.name, before);
  } else {
    update();
  }
}

export function clearPoints() {
  current().points = [];
  update();
}

const runPrompts = (displaySet, name, before) =>
  busy(`Points for ${name}`, async ({ id, abort }) => {
    const known = of(displaySet).answer;
    const result = await segment(displaySet, id, abort.signal, { only: name });
    await show(displaySet, result, { before, turn: false });
    if (known) {
      const structures = { ...known.structures, ...result.answer.structures };
      of(displaySet).answer = { ...known, structures, clicks: result.answer.clicks };
    }
    say('info', `${name}: drawn anew with ${count(of(displaySet).points.filter(point => point.name === name))}`);
  });

/* '2 points and 1 box' */
export function count(prompts) {
  const boxes = prompts.filter(point => point.box).length;
  const words = [[prompts.length - boxes, 'point', 'points'], [boxes, 'box', 'boxes']];
  return words.filter(([n]) => n).map(([n, one, many]) => `${n} ${n === 1 ? one : many}`).join(' and ');
}
