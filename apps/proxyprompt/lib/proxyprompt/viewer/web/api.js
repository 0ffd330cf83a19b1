/* What the server is asked. Every function throws an Error whose message is meant for people. */

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === 'AbortError') {
      throw error;
    }
    throw new Refused('The server does not answer. What you drew is kept in this browser; try again in a moment', 0);
  }
  if (!response.ok) {
    const text = await response.text().catch(() => '');
    throw new Refused(reasonIn(text) || `The server answered ${response.status} ${response.statusText}`, response.status);
  }
  return response;
}

/* The server's own words in the body of an answer; '' where there are none. */
export function reasonIn(text) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === 'string' ? detail : '';
  } catch {
    return '';
  }
}

const json = async (address, options) => (await ask(address, options)).json();
const of = (address, query) => `${address}?${new URLSearchParams(query)}`;

export const info = () => json('/info/');
export const supports = () => json('/proxyprompt/supports');
export const label = image => json(of('/proxyprompt/label', { image }));
export const labelHistory = image => json(of('/proxyprompt/label/history', { image }));
export const slices = image => json(of('/proxyprompt/slices', { image }));
export const thumbnail = (image, slice, size, version = '') =>
  of('/proxyprompt/image', { image, slice, size, v: version });

export async function labelVoxels(image) {
  return new Uint8Array(await (await ask(of('/proxyprompt/label/voxels', { image }))).arrayBuffer());
}

/* Segments an image; { answer, voxels }. */
export async function infer(model, image, params, signal) {
  const form = new FormData();
  const raw = { result_extension: '.nrrd', result_dtype: 'uint8', result_compress: false };
  form.append('params', JSON.stringify({ ...params, ...raw }));
  const address = of(`/infer/${model}`, { image, output: 'all' });
  const parts = await (await ask(address, { method: 'POST', body: form, signal })).formData();
  const file = parts.get('file') ?? parts.get('image');
  const voxels = rawVoxels(new Uint8Array(await file.arrayBuffer()));
  return { answer: JSON.parse(parts.get('params')), voxels };
}

/* The voxels of a raw NRRD: all that follows its first empty line. */
export function rawVoxels(nrrd) {
  let end = 1;
  while (end < nrrd.length && (nrrd[end - 1] !== 10 || nrrd[end] !== 10)) {
    end++;
  }
  return nrrd.subarray(end + 1);
}

/* Where on a slice the supports of a request disagree: one byte a pixel. */
export async function disagreement(image, slice, params) {
  const address = of('/proxyprompt/disagreement', { image, slice });
  return new Uint8Array(await (await ask(address, body(params))).arrayBuffer());
}

export const progress = id => json(`/proxyprompt/progress/${id}`).catch(() => null);

/* Ends a request on the server, which may take a moment to begin with it. */
export async function cancel(id) {
  for (let tries = 0; tries < 10; tries++) {
    const told = await json(`/proxyprompt/progress/${id}`, { method: 'DELETE' }).catch(() => null);
    if (!told || told.cancelled) {
      return;
    }
    await new Promise(done => setTimeout(done, 500));
  }
}

/* Stores planes of pixels as a label. base: the version that was opened; replace: although it is another one. */
export function submit(image, planes, params, signal, tag = 'final') {
  const form = new FormData();
  form.append('params', JSON.stringify(params));
  form.append('label', new Blob(planes), 'label.bin');
  return json(of('/datastore/label', { image, tag }), { method: 'PUT', body: form, signal });
}

export const restore = (image, version, client_id) =>
  json(of('/proxyprompt/label/restore', { image, version, client_id }), { method: 'POST' });

/* What a person decides about a flagged label. */
export const decide = (image, leave_out, client_id) =>
  json(of('/proxyprompt/flags', { image, leave_out, client_id }), { method: 'POST' });

const body = value => ({
  method: 'POST',
  body: JSON.stringify(value),
  headers: { 'Content-Type': 'application/json' },
});

export const next = (strategy, client_id) => json(`/activelearning/${strategy}`, body({ client_id }));
export const train = options => json('/train/proxyprompt', body(options));
export const training = () => json('/train/').catch(error => (error.status === 404 ? null : Promise.reject(error)));
export const stopTraining = () => json('/train/', { method: 'DELETE' });
