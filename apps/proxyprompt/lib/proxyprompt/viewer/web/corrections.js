/* Slices that the user painted: they stay as they are, and show the model what to draw on the others. */
import * as api from './api.js';
import { keyOf, key } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { uidOf, update } from './state.js';

/* What came from the server is not painted: planes as they are now, or were. */
export function settle(one, planes, kept = new Set()) {
  one.result = planes;
  one.kept = kept;
}

const differs = (now, before) => now.some((value, i) => value !== (before?.[i] ?? 0));

/* Whether the user has changed anything since the last result or stored label. */
export const isChanged = (one, map) => one.kept.size > 0 || map.images.some((image, n) => differs(image.getPixelData(), one.result?.[n]));

/* The numbers of the slices, as the server counts them, that differ from the last result or did before it. */
export function painted(one, map) {
  const numbers = new Map((one.instances ?? []).map(([uid, frame], n) => [key(uid, frame), n]));
  const found = new Set(one.kept);
  map?.images.forEach((image, n) => {
    if (differs(image.getPixelData(), one.result?.[n])) {
      found.add(numbers.get(keyOf(image.referencedImageId)));
    }
  });
  found.delete(undefined);
  return found;
}

/* The same for a request, whose label the server has then; none of a single image, which has no other slices to tell. */
export async function sendPainted(one, signal, more = []) {
  const map = maps.labelMap(one.displaySet);
  if (!map || map.images.length < 2) {
    return [];
  }
  const found = [...new Set([...painted(one, map), ...more])].sort((a, b) => a - b);
  if (found.length) {
    const params = { label_info: declared(one, map), instances: maps.instancesOf(map) };
    Object.assign(params, memory.options.name ? { client_id: memory.options.name } : {});
    await api.submit(uidOf(one.displaySet), maps.copies(map), params, signal, 'corrected');
  }
  return found;
}

/* The structures that a label speaks of: those that are drawn, and those that were looked for. */
export function declared(one, map) {
  const sizes = maps.sizes(map);
  const spoken = maps.segmentsOf(map).filter(({ label }) => sizes[label].pixels || one.looked.has(label));
  return spoken.map(segment => ({ name: segment.label, idx: segment.segmentIndex }));
}

/* Painted slices are drawn like all others from now on. */
export function forgetPainted(one) {
  const map = maps.labelMap(one.displaySet);
  settle(one, map ? maps.copies(map) : null);
  one.painted = [];
  update();
}

/* Looked at once a stroke, for the panel. */
export function lookAtPainted(one) {
  const map = maps.labelMap(one.displaySet);
  one.painted = map && map.images.length > 1 ? [...painted(one, map)].sort((a, b) => a - b) : [];
}
