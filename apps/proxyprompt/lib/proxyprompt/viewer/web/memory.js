/* What outlives a page: options and reports in the browser's small store, drafts of label maps in its database. */

const PREFIX = 'proxyprompt.';
const REPORTS = 20;

export const DEFAULTS = {
  name: '',
  supports: '',
  agreement: true,
  everywhere: false,
  strategy: '',
  adapter: '',
  brush: 0,
  picked: [],
  minutes: '',
};

function read(name, otherwise) {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(PREFIX + name)) };
  } catch {
    return { ...otherwise };
  }
}

function write(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // a browser that keeps nothing: the options hold for this page
  }
}

export const options = read('options', DEFAULTS);

export function remember(changes) {
  Object.assign(options, changes);
  write('options', options);
}

/* The last reports, by series. */
export const report = series => read('reports', {})[series];

export function keepReport(series, answer) {
  const { [series]: _, ...others } = read('reports', {});
  write('reports', Object.fromEntries([...Object.entries(others).slice(1 - REPORTS), [series, answer]]));
}

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('proxyprompt', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('drafts');
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function drafts(way, use) {
  const store = (await database()).transaction('drafts', way).objectStore('drafts');
  return new Promise((resolve, reject) => {
    const request = use(store);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/* { time, base, segments: [[index, name]], planes: [{ key, runs }] } of a series; undefined where there is none. */
export const draft = series => drafts('readonly', store => store.get(series)).catch(() => undefined);
export const keepDraft = (series, value) => drafts('readwrite', store => store.put(value, series)).catch(() => undefined);
export const dropDraft = series => drafts('readwrite', store => store.delete(series)).catch(() => undefined);

/* Pixels as [value, how many, value, how many, ...]. */
export function packed(pixels) {
  const runs = [];
  for (let i = 0; i < pixels.length; ) {
    let end = i + 1;
    while (end < pixels.length && pixels[end] === pixels[i]) {
      end++;
    }
    runs.push(pixels[i], end - i);
    i = end;
  }
  return runs;
}

export function unpacked(runs, size) {
  const pixels = new Uint8Array(size);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    pixels.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  return pixels;
}
