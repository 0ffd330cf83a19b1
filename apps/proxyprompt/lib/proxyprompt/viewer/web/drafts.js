/* Unsaved work: what the user changed, kept in the browser as a draft. */
import { isChanged, lookAtPainted, painted, settle } from './corrections.js';
import { keyOf } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { current, isQuiet, of, state, uidOf, update } from './state.js';

let saving;

/* A label map changed: by the user, unless it says otherwise. */
export function touched(segmentationId) {
  if (isQuiet() || !maps.isOurs(segmentationId)) {
    return;
  }
  const displaySet = maps.seriesOf(segmentationId);
  const map = displaySet && maps.labelMap(displaySet);
  if (!map || !(of(displaySet).dirty || isChanged(of(displaySet), map))) {
    return; // the viewer says so, too, when it makes a volume or a surface of a label map
  }
  of(displaySet).dirty = true;
  clearTimeout(saving);
  saving = setTimeout(() => {
    keepDraft(displaySet);
    lookAtPainted(of(displaySet));
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
    painted: [...painted(of(displaySet), map)],
    segments: maps.segmentsOf(map).map(segment => [segment.segmentIndex, segment.label]),
    planes: map.images.map(image => ({ key: keyOf(image.referencedImageId), runs: memory.packed(image.getPixelData()) })),
  });
}

export async function continueDraft() {
  const one = current();
  const { segments, planes, base, painted: before = [] } = one.draft;
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
  settle(one, maps.copies(map), new Set(before));
  lookAtPainted(one);
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
