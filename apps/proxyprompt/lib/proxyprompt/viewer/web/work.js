/* What is being worked on: the series of the active viewport, its label map, its stored label, requests that run. */
import * as api from './api.js';
import { ask, askText } from './dom.js';
import { active, core, cornerstoneViewport, host, key, keyOf, nameOf, run, tools, viewportsOf } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { pointsOf, request, signature, story, supportsOf, verdict } from './report.js';

export const state = {
  info: null,
  supports: [],
  numbers: {},
  series: null,
  structures: null, // names to look for; null for all that suit
  busy: null,
  message: null,
  training: null,
  tool: '',
  proposal: null,
};

const AGAIN = 10_000; // ms until a series that could not be asked for is asked for again
const series = new Map();
const listeners = new Set();
let quiet = 0;
let subscriptions = [];

export const onChange = listener => listeners.add(listener);
export const update = () => listeners.forEach(listener => listener());

const uidOf = displaySet => displaySet.SeriesInstanceUID;

/* All that is known of a series. */
export function of(displaySet) {
  const uid = uidOf(displaySet);
  if (!series.has(uid)) {
    const answer = memory.report(uid) ?? null;
    const looked = new Set(Object.keys(answer?.label_names ?? {}));
    series.set(uid, { displaySet, stored: null, base: '', started: '', dirty: false, answer, looked, points: [], instances: null, other: null, draft: null });
  }
  const found = series.get(uid);
  found.displaySet = displaySet;
  return found;
}

export const current = () => state.series && of(state.series);
export const currentMap = () => state.series && maps.labelMap(state.series);
export const unsaved = () => [...series.values()].filter(one => one.dirty);

export function say(kind, text, more = {}) {
  state.message = text ? { kind, text, ...more } : null;
  update();
}

export const failed = error => {
  if (error.name !== 'AbortError') {
    console.error(error);
    say('bad', error.message);
  }
};

// entering and following

export function enter() {
  const { viewportGridService: grid } = host.services;
  const events = [grid.EVENTS.ACTIVE_VIEWPORT_ID_CHANGED, grid.EVENTS.GRID_STATE_CHANGED, grid.EVENTS.VIEWPORTS_READY];
  subscriptions = events.map(event => grid.subscribe(event, () => setTimeout(follow)).unsubscribe);
  const modified = event => touched(event.detail.segmentationId);
  const name = tools().Enums.Events.SEGMENTATION_DATA_MODIFIED;
  core().eventTarget.addEventListener(name, modified);
  subscriptions.push(() => core().eventTarget.removeEventListener(name, modified));
  const timer = setInterval(follow, 1000); // a viewport is ready some time after the grid says so
  subscriptions.push(() => clearInterval(timer));
  const proposal = JSON.parse(sessionStorage.getItem('proxyprompt.proposal') ?? 'null');
  state.proposal = proposal && location.search.includes(proposal.study) ? proposal : null;
  refresh().catch(failed);
  followTraining(false);
}

export function leave() {
  subscriptions.forEach(stop => stop());
  subscriptions = [];
  state.series = null;
  state.tool = '';
  series.clear();
}

/* Names, colours, options and supports, as the server has them now. */
export async function refresh() {
  const [info, supports] = await Promise.all([api.info(), api.supports()]);
  state.info = info;
  state.supports = supports.supports;
  state.numbers = supports.numbers;
  maps.setColors(supports.colors);
  const there = new Set(state.supports.map(support => support.id));
  memory.remember({ picked: memory.options.picked.filter(id => there.has(id)) });
  update();
}

export const model = () => state.info?.models?.proxyprompt;
export const versions = () => model()?.config?.adapter ?? [];

/* The series of the active viewport, once it can be drawn on. */
function follow() {
  const found = active();
  if (!found || found.displaySet === state.series) {
    return;
  }
  const viewport = cornerstoneViewport(found.viewportId);
  if (!viewport?.getCurrentImageId?.() && !viewport?.getImageIds?.()?.length) {
    return;
  }
  state.series = found.displaySet;
  fitBrush();
  of(found.displaySet).opening = open(found.displaySet).catch(failed);
  update();
}

/* The first look at a series: its stored label is drawn, a draft is offered. */
async function open(displaySet) {
  const one = of(displaySet);
  if (one.opened) {
    return;
  }
  one.opened = true;
  one.draft = await memory.draft(uidOf(displaySet));
  let label, slices;
  try {
    [label, slices] = await Promise.all([api.label(uidOf(displaySet)), api.slices(uidOf(displaySet))]);
  } catch (error) {
    one.opened = false;
    setTimeout(() => state.series === displaySet && open(displaySet).catch(failed), AGAIN);
    throw error;
  }
  one.instances = slices.instances;
  one.stored = label.label;
  one.earlier = label.earlier ?? 0;
  one.base = label.label?.version ?? '';
  if (one.stored && !one.started && !one.dirty) {
    await startFrom(displaySet);
  }
  one.known = true;
  update();
}

/* Draws the stored label, in the place of all that is drawn. */
export async function startFrom(displaySet = state.series) {
  const one = of(displaySet);
  const [slices, voxels] = await Promise.all([api.slices(uidOf(displaySet)), api.labelVoxels(uidOf(displaySet))]);
  await silently(async () => {
    const [[first, number]] = Object.entries(slices.numbers);
    const map = await maps.ensureLabelMap(displaySet, first, number);
    map.images.forEach(image => image.getPixelData().fill(0));
    const planes = maps.drawn(map, voxels, slices.instances, slices.numbers);
    maps.replacePlanes(map, planes);
    maps.activate(map, first);
  });
  Object.keys(slices.numbers).forEach(name => one.looked.add(name));
  one.started = 'stored';
  one.dirty = false;
  await memory.dropDraft(uidOf(displaySet));
  one.draft = null;
  update();
}

/* An empty label map in the place of the stored label, which stays stored until something is submitted. */
export async function startAfresh() {
  const map = currentMap();
  if (map) {
    maps.replacePlanes(map, maps.emptied(map));
  }
  Object.assign(current(), { started: 'afresh', looked: new Set(), answer: null, points: [] });
  update();
}

/* Changes to label maps within `work` are not the user's. */
async function silently(work) {
  quiet++;
  try {
    return await work();
  } finally {
    quiet--;
  }
}

// unsaved work

let saving;

function touched(segmentationId) {
  if (quiet || !maps.isOurs(segmentationId)) {
    return;
  }
  const displaySet = maps.seriesOf(segmentationId);
  if (!displaySet) {
    return;
  }
  of(displaySet).dirty = true;
  clearTimeout(saving);
  saving = setTimeout(() => {
    keepDraft(displaySet);
    update();
  }, 700);
}

export function keepDraft(displaySet) {
  const map = maps.labelMap(displaySet);
  if (!map) {
    return null;
  }
  return memory.keepDraft(uidOf(displaySet), {
    time: new Date().toISOString(),
    base: of(displaySet).base,
    segments: maps.segmentsOf(map).map(segment => [segment.segmentIndex, segment.label]),
    planes: map.images.map(image => ({ key: keyOf(image.referencedImageId), runs: memory.packed(image.getPixelData()) })),
  });
}

export async function continueDraft() {
  const one = current();
  const { segments, planes, base } = one.draft;
  const map = await maps.ensureLabelMap(state.series, segments[0][1], segments[0][0]);
  const index = new Uint8Array(256);
  for (const [number, name] of segments) {
    index[number] = maps.indexOf(map, name, number);
    one.looked.add(name);
  }
  const kept = new Map(planes.map(plane => [plane.key, plane.runs]));
  maps.replacePlanes(
    map,
    map.images.map(image => {
      const runs = kept.get(keyOf(image.referencedImageId)) ?? [];
      const size = image.getPixelData().length;
      return memory.unpacked(runs, size).map(value => index[value]);
    })
  );
  one.base = base; // so that a label that came in meanwhile is not replaced unseen
  one.draft = null;
  one.started ||= 'draft';
  update();
}

export async function discardDraft() {
  await memory.dropDraft(uidOf(state.series));
  current().draft = null;
  update();
}

// segmenting

/* Runs one request: says how far it is, can be cancelled, and is the only one. */
async function busy(what, work) {
  if (state.busy) {
    say('info', `${state.busy.what} is still running: cancel it first, or wait`);
    return;
  }
  const id = Array.from(crypto.getRandomValues(new Uint32Array(3)), n => n.toString(36)).join('');
  state.busy = { what, id, started: Date.now(), abort: new AbortController(), done: 0, total: 0 };
  state.message = null;
  update();
  const timer = setInterval(async () => {
    const found = await api.progress(id);
    if (state.busy?.id === id && !state.busy.settling) {
      Object.assign(state.busy, found ?? {});
      update();
    }
  }, 1000);
  try {
    await work(state.busy);
  } catch (error) {
    failed(error);
  } finally {
    clearInterval(timer);
    state.busy = null;
    update();
  }
}

export function cancel() {
  if (state.busy) {
    api.cancel(state.busy.id);
    state.busy.abort.abort();
    const stored = state.busy.what === 'Submit' ? 'open the study again to see whether it was stored' : 'nothing was changed';
    say('info', `${state.busy.what} was cancelled: ${stored}`);
  }
}

async function segment(displaySet, id, signal, more = {}) {
  const one = of(displaySet);
  const params = { ...request(memory.options, { structures: state.structures, picked: memory.options.picked, ...more }), request_id: id };
  const clicked = pointsOf(one.points);
  if (more.only) {
    Object.assign(params, { label: more.only, agreement: false, ...clicked });
    delete params.structure;
  }
  const name = more.only ? 'proxyprompt_edit' : 'proxyprompt';
  return api.infer(name, uidOf(displaySet), params, signal);
}

async function show(displaySet, { answer, voxels }, before = null) {
  const one = of(displaySet);
  const after = [...one.points];
  const [[first, number]] = Object.entries(answer.label_names);
  const map = await maps.ensureLabelMap(displaySet, first, number);
  const planes = maps.drawn(map, voxels, answer.instances ?? one.instances, answer.label_names);
  maps.replacePlanes(map, planes, undone => {
    one.points = undone ? (before ?? after) : after;
    update();
  });
  const names = Object.keys(answer.label_names);
  if (!names.includes(maps.activeName(map)) && names.length) {
    maps.activate(map, names[0]);
  }
  names.forEach(found => one.looked.add(found));
  one.answer = answer;
  one.instances ??= answer.instances;
  if (!before) {
    turnTo(displaySet, planes);
  }
  memory.keepReport(uidOf(displaySet), answer);
  return planes;
}

/* Turns to the slice that shows most, where the one in view shows nothing. */
function turnTo(displaySet, planes) {
  const areas = planes.map(plane => plane.reduce((sum, value) => sum + (value ? 1 : 0), 0));
  const most = areas.indexOf(Math.max(...areas));
  for (const viewportId of viewportsOf(displaySet)) {
    const viewport = cornerstoneViewport(viewportId);
    if (areas[most] && !areas[viewport?.getCurrentImageIdIndex?.()]) {
      viewport.setImageIdIndex?.(most);
    }
  }
}

export const autoSegment = () => {
  const displaySet = state.series;
  return displaySet
    ? busy('Auto-segment', async ({ id, abort }) => {
        Object.assign(of(displaySet), { other: null, points: [] });
        const result = await segment(displaySet, id, abort.signal);
        await show(displaySet, result);
        const said = verdict(result.answer);
        say(said.kind, said.text);
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
  });
};

export function toggleCompared() {
  const one = current();
  const map = currentMap();
  [one.shown, one.other] = [one.other, { ...one.shown, planes: maps.copies(map) }];
  maps.replacePlanes(map, one.shown.planes);
  one.answer = one.shown.answer;
  say('info', `This is ${one.shown.name}. Toggle shows ${one.other.name}`);
}

// supports

export function pick(id) {
  const { picked } = memory.options;
  memory.remember({ picked: picked.includes(id) ? picked.filter(one => one !== id) : [...picked, id] });
  update();
}

export function unpickAll() {
  memory.remember({ picked: [] });
  update();
}

/* The next result rests on the supports of the last one without this one. */
export function leaveOut(id) {
  const before = memory.options.picked.length ? memory.options.picked : supportsOf(current()?.answer).map(one => one.id);
  memory.remember({ picked: before.filter(one => one !== id) });
  update();
}

/* A person's word on a flagged label: it is left out of what the server chooses, or not. */
export async function decide(id, leaveItOut) {
  try {
    await api.decide(id, leaveItOut, memory.options.name);
    await refresh();
  } catch (error) {
    failed(error);
  }
}

// structures and painting

export const knownNames = () => Object.keys(state.numbers);

/* The structure that is painted; asked for where there is none. */
async function paintable() {
  await current().opening; // a stored label that is on its way has the structures
  const activated = maps.activeName(currentMap());
  if (activated) {
    return activated;
  }
  const names = knownNames();
  const name = names.length === 1 ? names[0] : await askText('Which structure do you want to draw?', names);
  return name ? addStructure(name) : null;
}

export async function addStructure(given) {
  const name = given ?? (await askText('Name of the structure', knownNames()));
  if (!name || !state.series) {
    return null;
  }
  const map = await maps.ensureLabelMap(state.series, name, state.numbers[name]);
  maps.indexOf(map, name, state.numbers[name]);
  maps.activate(map, name);
  update();
  return name;
}

export async function selectStructure(name) {
  const map = await maps.ensureLabelMap(state.series, name, state.numbers[name]);
  maps.indexOf(map, name, state.numbers[name]);
  maps.activate(map, name);
  update();
}

export function setTool(toolName) {
  run('setToolActiveToolbar', { toolName, toolGroupIds: ['default', 'mpr'] });
}

export async function useTool(tool) {
  if (!state.series) {
    return;
  }
  const chosen = state.tool === tool ? '' : tool;
  if (chosen && !(await paintable())) {
    return;
  }
  state.tool = chosen;
  setTool({ brush: 'CircularBrush', eraser: 'CircularEraser' }[chosen] ?? 'WindowLevel');
  update();
}

/* A brush of a thirtieth of the image, unless the user chose another size for images like this. */
function fitBrush() {
  const { imageIds } = state.series;
  const plane = core().metaData.get('imagePlaneModule', imageIds[0]) ?? {};
  const pixels = core().metaData.get('imagePixelModule', imageIds[0]) ?? {};
  const rows = (plane.rows ?? pixels.rows ?? 256) * (plane.rowPixelSpacing ?? 1);
  const columns = (plane.columns ?? pixels.columns ?? 256) * (plane.columnPixelSpacing ?? 1);
  state.field = Math.min(rows, columns);
  resizeBrush(1, true);
}

export function resizeBrush(factor, fit = false) {
  const share = fit ? memory.options.brush || 1 / 30 : Math.min(0.25, Math.max(0.004, state.brush * factor));
  state.brush = share;
  run('setBrushSize', { value: share * (state.field ?? 100) });
  if (!fit) {
    memory.remember({ brush: share });
  }
  update();
}

export const undo = () => run('undo');
export const redo = () => run('redo');

// points

export async function addPoints(places, inside) {
  const displaySet = state.series;
  const name = await paintable();
  const one = of(displaySet);
  const before = [...one.points];
  if (!name || !one.instances?.length) {
    say('info', 'Points can be set as soon as the server knows this series');
    return;
  }
  for (const { imageId, column, row } of places) {
    const slice = one.instances.findIndex(([uid, frame]) => key(uid, frame) === keyOf(imageId));
    one.points.push({ name, inside, imageId, column, row, voxel: [Math.floor(column), Math.floor(row), slice] });
  }
  await runPoints(displaySet, name, before);
}

export async function removeLastPoint() {
  const one = current();
  const before = [...one.points];
  const last = one.points.pop();
  if (last && one.points.some(point => point.name === last.name)) {
    await runPoints(state.series, last.name, before);
  } else {
    update();
  }
}

export function clearPoints() {
  current().points = [];
  update();
}

const runPoints = (displaySet, name, before) =>
  busy(`Points on ${name}`, async ({ id, abort }) => {
    const known = of(displaySet).answer;
    const result = await segment(displaySet, id, abort.signal, { only: name });
    await show(displaySet, result, before);
    if (known) {
      const structures = { ...known.structures, ...result.answer.structures };
      of(displaySet).answer = { ...known, structures, clicks: result.answer.clicks };
    }
    say('info', `${name}: drawn anew with ${of(displaySet).points.filter(point => point.name === name).length} points`);
  });

// storing

const UNNAMED = /^Segment \d+$/;

async function named(map) {
  const sizes = maps.sizes(map);
  for (const { label } of maps.segmentsOf(map).filter(segment => UNNAMED.test(segment.label) && sizes[segment.label].pixels)) {
    const name = await askText(`“${label}” is no name. What is it?`, knownNames());
    if (!name) {
      return false;
    }
    maps.rename(map, label, name);
  }
  return true;
}

export async function submit() {
  const displaySet = state.series;
  const map = currentMap();
  if (!map) {
    say('warn', 'Nothing to submit: this series has no segmentation yet');
    return;
  }
  const one = of(displaySet);
  let replace = false;
  if (one.stored && one.started !== 'stored') {
    const text = `This study has a label ${signature(one.stored)}, which you did not start from. It would be replaced (and kept among the earlier ones).`;
    const answer = await ask(text, [['Replace it', 'replace'], ['Show it instead', 'show'], ['Cancel', null]]);
    if (answer === 'show') {
      await startFrom(displaySet).catch(failed);
    }
    if (answer !== 'replace') {
      return;
    }
  }
  if (await named(map)) {
    await busy('Submit', busyWith => store(displaySet, maps.labelMap(displaySet), replace, busyWith));
  }
}

async function store(displaySet, map, replace, { abort, id }) {
  const one = of(displaySet);
  const sizes = maps.sizes(map);
  const declared = maps.segmentsOf(map).filter(({ label }) => sizes[label].pixels || one.looked.has(label));
  const params = {
    label_info: declared.map(segment => ({ name: segment.label, idx: segment.segmentIndex })),
    instances: maps.instancesOf(map),
    base: one.base,
    replace,
    ...(memory.options.name ? { client_id: memory.options.name } : {}),
  };
  let told;
  try {
    told = await api.submit(uidOf(displaySet), maps.copies(map), params, abort.signal);
  } catch (error) {
    if (error.status !== 409 || replace) {
      await keepDraft(displaySet);
      throw error.name === 'AbortError' ? error : new Error(`Not submitted: ${error.message}`);
    }
    const answer = await ask(error.message, [['Replace it (it is kept)', 'replace'], ['Show it instead', 'show'], ['Cancel', null]]);
    if (answer === 'show') {
      one.opened = false;
      one.started = '';
      await open(displaySet);
    }
    if (answer === 'replace') {
      await store(displaySet, map, true, { abort, id });
    }
    return;
  }
  Object.assign(one, { dirty: false, draft: null, points: [] });
  await memory.dropDraft(uidOf(displaySet));
  const names = declared.map(segment => segment.label).join(', ');
  const late = told.handed_over === false;
  say(late ? 'warn' : 'good', late ? told.detail : `Submitted: ${names}, as the label of ${nameOf(displaySet)}`);
  const label = await api.label(uidOf(displaySet)).catch(() => null);
  Object.assign(one, { stored: label?.label ?? one.stored, base: label?.label?.version ?? '', earlier: label?.earlier ?? 0, started: 'stored' });
  refresh().catch(failed);
}

export async function restoreEarlier() {
  const displaySet = state.series;
  const { versions: found } = await api.labelHistory(uidOf(displaySet));
  const earlier = found.filter(one => !one.current).slice(0, 6);
  const answers = earlier.map(one => [`${signature(one)}`, one.version]);
  const version = await ask('Which label shall count again? The one that counts now is kept.', [...answers, ['Cancel', null]]);
  if (version) {
    await api.restore(uidOf(displaySet), version, memory.options.name);
    Object.assign(of(displaySet), { opened: false, started: '' });
    await open(displaySet);
    say('good', 'That label counts again');
  }
}

// going on

export async function nextSample() {
  if (unsaved().length) {
    const answer = await ask('What you drew is not submitted. It is kept in this browser as a draft.', [
      ['Submit first', 'submit'],
      ['Go on without', 'go'],
      ['Stay', null],
    ]);
    if (answer === 'submit') {
      await submit();
    }
    if (!answer || unsaved().length * (answer === 'submit')) {
      return;
    }
  }
  await busy('Next sample', async () => {
    const sample = await api.next(memory.options.strategy || 'random', memory.options.name);
    if (!sample.id || !sample.StudyInstanceUID) {
      say('good', 'Every study has a label: nothing is left to propose');
      return;
    }
    const reason = sample.reason ?? '';
    sessionStorage.setItem('proxyprompt.proposal', JSON.stringify({ study: sample.StudyInstanceUID, reason }));
    await Promise.all(unsaved().map(one => keepDraft(one.displaySet)));
    series.forEach(one => (one.dirty = false));
    location.assign(`/ohif/proxyprompt?StudyInstanceUIDs=${sample.StudyInstanceUID}`);
  });
}

// training

export async function updateModel() {
  state.training = { running: true, text: 'Asking the server to train…', warnings: [] };
  update();
  try {
    const minutes = Number(memory.options.minutes);
    await api.train({ model: 'proxyprompt', ...(minutes ? { max_minutes: minutes } : {}) });
    followTraining(true);
  } catch (error) {
    state.training = { failed: true, text: error.message, warnings: [] };
    update();
  }
}

export const stopTraining = () => api.stopTraining().then(() => say('info', 'The training was stopped')).catch(failed);

let turn = 0;

async function followTraining(started) {
  const mine = ++turn;
  for (let first = true; mine === turn; first = false) {
    try {
      const info = await api.info();
      const [stats] = Object.values(info.train_stats ?? {});
      if (!started && stats?.status !== 'running') {
        return; // no training has left word that it runs
      }
      const task = await api.training();
      const known = story(task, stats);
      if (!first || started || known.running) {
        state.training = known;
        update();
      }
      if (!known.running) {
        if (!first) {
          await refresh();
        }
        return;
      }
    } catch (error) {
      state.training = { ...state.training, text: error.message };
      update();
    }
    await new Promise(done => setTimeout(done, 2000));
  }
}
