/* What is being worked on, and what runs: every other module looks here. */
import * as api from './api.js';
import * as maps from './labelmaps.js';
import { nameOf } from './host.js';
import * as memory from './memory.js';
import * as report from './report.js';

export const state = {
  info: null,
  supports: [],
  names: {}, // of labelled studies, by id
  numbers: {},
  series: null,
  structures: null, // names to look for; null for all that suit
  busy: null,
  message: null,
  training: null,
  tool: '',
  turnable: false, // whether surfaces are shown in the place of slices
  unsure: false, // whether the overlay of uncertainty is on
  proposal: null,
};

export const series = new Map();
const listeners = new Set();

export const onChange = listener => listeners.add(listener);
export const update = () => listeners.forEach(listener => listener());

export const uidOf = displaySet => displaySet.SeriesInstanceUID;

/* All that is known of a series. */
export function of(displaySet) {
  const uid = uidOf(displaySet);
  if (!series.has(uid)) {
    const answer = memory.report(uid) ?? null;
    const looked = new Set(Object.keys(answer?.label_names ?? {}));
    series.set(uid, { displaySet, stored: null, base: '', started: '', dirty: false, answer, looked, points: [], instances: null, other: null, draft: null, result: null, kept: new Set() });
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

/* What the server says, with the names of series that are labelled or open here. */
export function readable(text) {
  const open = [...series].map(([uid, { displaySet }]) => [uid, nameOf(displaySet)]);
  return report.readable(text, { ...Object.fromEntries(open), ...state.names });
}

export const failed = error => {
  if (error.name !== 'AbortError') {
    console.error(error);
    say('bad', readable(error.message));
  }
};

/* Names, colours, options and supports, as the server has them now. */
export async function refresh() {
  const [info, supports] = await Promise.all([api.info(), api.supports()]);
  state.info = info;
  state.supports = supports.supports;
  state.names = supports.names;
  state.numbers = supports.numbers;
  maps.setColors(supports.colors);
  const there = new Set(state.supports.map(support => support.id));
  memory.remember({ picked: memory.options.picked.filter(id => there.has(id)) });
  update();
}

/* Flags, versions and the stored label of a series as they are now: others work here, too. */
export async function lookAgain(displaySet) {
  const [{ label, earlier }] = await Promise.all([api.label(uidOf(displaySet)), refresh()]);
  Object.assign(of(displaySet), { stored: label, earlier: earlier ?? 0 });
  update();
}

export const model = () => state.info?.models?.proxyprompt;
export const versions = () => model()?.config?.adapter ?? [];
export const knownNames = () => Object.keys(state.numbers);

let quiet = 0;
export const isQuiet = () => quiet > 0;

/* Changes to label maps within `work` are not the user's. */
export async function silently(work) {
  quiet++;
  try {
    return await work();
  } finally {
    quiet--;
  }
}

/* Runs one request: says how far it is, can be cancelled, and is the only one. */
export async function busy(what, work) {
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
