/* Requests for a segmentation, and their results on the image. */
import * as api from './api.js';
import { lookAtPainted, sendPainted, settle } from './corrections.js';
import { cornerstoneViewport, viewportsOf } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { pointsOf, request, verdict } from './report.js';
import { busy, current, currentMap, lookAgain, of, say, state, uidOf, update } from './state.js';

/* more.only: a structure that points speak of. prompted: slices that points have made right, to be kept as if painted. */
export async function segment(displaySet, id, signal, more = {}, prompted = []) {
  const one = of(displaySet);
  const corrected = await sendPainted(one, signal, more.only ? [] : prompted);
  const params = { ...request(memory.options, { structures: state.structures, picked: memory.options.picked, corrected, ...more }), request_id: id };
  const clicked = pointsOf(one.points);
  if (more.only) {
    Object.assign(params, { label: more.only, agreement: false, ...clicked });
    delete params.structure;
  }
  const name = more.only ? 'proxyprompt_edit' : 'proxyprompt';
  return { ...(await api.infer(name, uidOf(displaySet), params, signal)), corrected };
}

/* Draws a result. before: the points that undo brings back. turn: to a slice that shows something. */
export async function show(displaySet, { answer, voxels, corrected }, { before = of(displaySet).points, turn = true } = {}) {
  const one = of(displaySet);
  const after = [...one.points];
  const settled = [one.result, one.kept];
  const [[first, number]] = Object.entries(answer.label_names);
  const map = await maps.ensureLabelMap(displaySet, first, number);
  const planes = maps.drawn(map, voxels, answer.instances ?? one.instances, answer.label_names);
  maps.replacePlanes(map, planes, undone => {
    one.points = undone ? before : after;
    settle(one, ...(undone ? settled : [planes, new Set(corrected)]));
    lookAtPainted(one);
    update();
  });
  settle(one, planes, new Set(corrected));
  lookAtPainted(one);
  const names = Object.keys(answer.label_names);
  if (!names.includes(maps.activeName(map)) && names.length) {
    maps.activate(map, names[0]);
  }
  names.forEach(found => one.looked.add(found));
  one.answer = answer;
  one.instances ??= answer.instances;
  if (turn) {
    turnTo(displaySet, planes);
  }
  memory.keepReport(uidOf(displaySet), answer);
  return planes;
}

/* Turns to the slice that shows most, where the one in view shows nothing. */
export function turnTo(displaySet, planes) {
  const areas = planes.map(plane => plane.reduce((sum, value) => sum + (value ? 1 : 0), 0));
  const most = areas.indexOf(Math.max(...areas));
  for (const viewportId of viewportsOf(displaySet)) {
    const viewport = cornerstoneViewport(viewportId);
    if (areas[most] && !areas[viewport?.getCurrentImageIdIndex?.()]) {
      viewport.setImageIdIndex?.(most);
    }
  }
}

/* Turns to the middle of a volume, whose first slices are often empty; a clip begins where it begins. */
export function turnToMiddle({ displaySet, instances }) {
  const files = new Set(instances.map(([uid]) => uid)).size;
  for (const viewportId of files > 1 ? viewportsOf(displaySet) : []) {
    const viewport = cornerstoneViewport(viewportId);
    if (viewport?.getCurrentImageIdIndex?.() === 0) {
      viewport.setImageIdIndex?.(Math.floor(displaySet.imageIds.length / 2));
    }
  }
}

export const autoSegment = () => {
  const displaySet = state.series;
  return displaySet
    ? busy('Auto-segment', async ({ id, abort }) => {
        const one = of(displaySet);
        const before = one.points;
        const result = await segment(displaySet, id, abort.signal, {}, before.map(point => point.voxel[2]));
        Object.assign(one, { other: null, points: [] });
        await show(displaySet, result, { before });
        const said = verdict(result.answer);
        say(said.kind, said.text);
        lookAgain(displaySet).catch(console.warn);
      })
    : say('info', 'Select a viewport with an image first');
};

/* The same request with another version; both results are kept, to be looked at in turn. */
export const compare = version => {
  const displaySet = state.series;
  return busy(`Compare with ${version}`, async ({ id, abort }) => {
    const one = of(displaySet);
    const map = maps.labelMap(displaySet);
    if (!map) {
      throw new Error('There is nothing to compare with yet: run Auto-segment first');
    }
    const before = { name: one.answer?.adapter ?? 'what was there', planes: maps.copies(map), answer: one.answer };
    const result = await segment(displaySet, id, abort.signal, { adapter: version });
    const planes = await show(displaySet, result);
    one.other = { ...before };
    one.shown = { name: result.answer.adapter, planes, answer: result.answer };
    say('info', `This is ${result.answer.adapter}. Toggle shows ${before.name}`);
    lookAgain(displaySet).catch(console.warn);
  });
};

export function toggleCompared() {
  const one = current();
  const map = currentMap();
  [one.shown, one.other] = [one.other, { ...one.shown, planes: maps.copies(map) }];
  maps.replacePlanes(map, one.shown.planes);
  settle(one, one.shown.planes, one.kept);
  one.answer = one.shown.answer;
  say('info', `This is ${one.shown.name}. Toggle shows ${one.other.name}`);
}
