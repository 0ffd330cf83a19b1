/* The stored label of a series: started from, replaced by a Submit, brought back from its history. */
import * as api from './api.js';
import { declared, lookAtPainted, settle } from './corrections.js';
import { keepDraft } from './drafts.js';
import { ask, askText } from './dom.js';
import { nameOf } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { signature } from './report.js';
import { turnTo, turnToMiddle } from './segmenting.js';
import { busy, current, currentMap, failed, knownNames, of, readable, refresh, say, silently, state, uidOf, update } from './state.js';

const AGAIN = 10_000; // ms until a series that could not be asked for is asked for again

/* The first look at a series: its stored label is drawn, a draft is offered. */
export async function open(displaySet) {
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
    turnTo(displaySet, await startFrom(displaySet));
  } else if (!one.dirty) {
    turnToMiddle(one);
  }
  one.known = true;
  update();
}

/* Draws the stored label, in the place of all that is drawn; its planes. */
export async function startFrom(displaySet = state.series) {
  const one = of(displaySet);
  const [slices, voxels] = await Promise.all([api.slices(uidOf(displaySet)), api.labelVoxels(uidOf(displaySet))]);
  const planes = await silently(async () => {
    const [[first, number]] = Object.entries(slices.numbers);
    const map = await maps.ensureLabelMap(displaySet, first, number);
    map.images.forEach(image => image.getPixelData().fill(0));
    const planes = maps.drawn(map, voxels, slices.instances, slices.numbers);
    const before = [one.result, one.kept];
    maps.replacePlanes(map, planes, undone => (undone ? settle(one, ...before) : settle(one, planes)));
    settle(one, planes);
    maps.activate(map, first);
    return planes;
  });
  Object.keys(slices.numbers).forEach(name => one.looked.add(name));
  one.started = 'stored';
  one.base = one.stored.version;
  one.dirty = false;
  await memory.dropDraft(uidOf(displaySet));
  one.draft = null;
  lookAtPainted(one);
  update();
  return planes;
}

/* An empty label map in the place of the stored label, which stays stored until something is submitted. */
export async function startAfresh() {
  const map = currentMap();
  const one = current();
  const before = [one.result, one.kept];
  if (map) {
    maps.replacePlanes(map, maps.emptied(map), undone => settle(one, ...(undone ? before : [null])));
  }
  Object.assign(one, { started: 'afresh', looked: new Set(), answer: null, points: [], painted: [] });
  settle(one, null);
  update();
}

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
  const spoken = declared(one, map);
  const params = {
    label_info: spoken,
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
    const answer = await ask(readable(error.message), [['Replace it (it is kept)', 'replace'], ['Show it instead', 'show'], ['Cancel', null]]);
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
  const names = spoken.map(({ name }) => name).join(', ');
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
