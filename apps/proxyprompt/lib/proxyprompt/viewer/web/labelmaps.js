/* Label maps: one per series, with one image for each image of the series, whether it is a volume, a still or a clip. */
import { core, cornerstoneViewport, host, key, keyOf, spacing, tools, viewportsOf } from './host.js';

const service = () => host.services.segmentationService;
const idOf = displaySet => `proxyprompt-${displaySet.displaySetInstanceUID}`;
let colors = {};

export const setColors = given => {
  colors = given;
};

const SPARE = [
  [255, 176, 0],
  [100, 143, 255],
  [220, 38, 127],
  [120, 220, 120],
];

export const colorOf = (name, index = 0) => colors[name] ?? SPARE[index % SPARE.length];

/* The label map of a series and its images; null where it has none. */
export function labelMap(displaySet) {
  const segmentation = service().getSegmentation(idOf(displaySet));
  const ids = segmentation?.representationData?.Labelmap?.imageIds ?? [];
  const images = ids.map(id => core().cache.getImage(id)).filter(Boolean);
  return images.length && images.length === displaySet.imageIds.length ? { segmentation, images, displaySet } : null;
}

/* The same; made where there is none, with a first structure, and shown in every viewport of the series. */
export async function ensureLabelMap(displaySet, name, number) {
  const segmentationId = idOf(displaySet);
  if (!labelMap(displaySet)) {
    await service().createLabelmapForDisplaySet(displaySet, {
      segmentationId,
      label: `Labels of ${displaySet.SeriesDescription || displaySet.Modality}`,
      // without a structure OHIF would begin with "Segment 1", which is no name
      segments: { [number || 1]: { segmentIndex: number || 1, label: name, active: true, locked: false, cachedStats: {} } },
    });
  }
  const type = tools().Enums.SegmentationRepresentations.Labelmap;
  const map = labelMap(displaySet);
  for (const viewportId of viewportsOf(displaySet)) {
    if (cornerstoneViewport(viewportId)?.type !== core().Enums.ViewportType.VOLUME_3D) {
      await representIn(map, viewportId, type);
    }
  }
  return map;
}

/* Takes a label map, in whatever form, out of a viewport; its surfaces are made anew next time. */
export function takeOut(map, viewportId) {
  const { segmentationId, representationData } = map.segmentation;
  service().removeRepresentationsFromViewport(viewportId, { segmentationId });
  delete representationData.Surface;
}

/* Shows a label map in a viewport, as what it is or as surfaces. */
export async function representIn(map, viewportId, type) {
  const { segmentationId } = map.segmentation;
  if (!service().getSegmentationRepresentations(viewportId, { segmentationId }).length) {
    await service().addSegmentationRepresentation(viewportId, { segmentationId, type });
  }
  for (const { segmentIndex, label } of segmentsOf(map)) {
    service().setSegmentColor(viewportId, segmentationId, segmentIndex, [...colorOf(label, segmentIndex), 255]);
  }
}

export const segmentsOf = map => (map ? Object.values(map.segmentation.segments).filter(segment => segment?.label) : []);
export const segmentOf = (map, name) => segmentsOf(map).find(segment => segment.label === name);
export const activeName = map => segmentsOf(map).find(segment => segment.active)?.label;

/* The index of a structure in the label map; it is added where it is new, under the server's number if that is free. */
export function indexOf(map, name, number) {
  const known = segmentOf(map, name);
  if (known) {
    return known.segmentIndex;
  }
  const taken = new Set(segmentsOf(map).map(segment => segment.segmentIndex));
  const free = number && !taken.has(number) ? number : Math.max(0, ...taken) + 1;
  const { segmentationId } = map.segmentation;
  service().addSegment(segmentationId, { segmentIndex: free, label: name, color: [...colorOf(name, free), 255] });
  map.segmentation = service().getSegmentation(segmentationId);
  return free;
}

export function activate(map, name) {
  const segment = segmentOf(map, name);
  if (segment) {
    service().setActiveSegment(map.segmentation.segmentationId, segment.segmentIndex);
    for (const viewportId of viewportsOf(map.displaySet)) {
      service().setActiveSegmentation(viewportId, map.segmentation.segmentationId);
    }
  }
}

export const rename = (map, from, to) =>
  service().setSegmentLabel(map.segmentation.segmentationId, segmentOf(map, from).segmentIndex, to);

export const isShown = (map, name) =>
  viewportsOf(map.displaySet).every(viewportId => {
    const [shown] = service().getSegmentationRepresentations(viewportId, { segmentationId: map.segmentation.segmentationId });
    return shown?.segments?.[segmentOf(map, name)?.segmentIndex]?.visible !== false;
  });

export function toggle(map, name) {
  const visible = !isShown(map, name);
  for (const viewportId of viewportsOf(map.displaySet)) {
    service().setSegmentVisibility(viewportId, map.segmentation.segmentationId, segmentOf(map, name).segmentIndex, visible);
  }
}

export const copies = map => map.images.map(image => Uint8Array.from(image.getPixelData()));
export const instancesOf = map => map.images.map(image => keyOf(image.referencedImageId).split('/'));

export const changed = map =>
  core().triggerEvent(core().eventTarget, tools().Enums.Events.SEGMENTATION_DATA_MODIFIED, {
    segmentationId: map.segmentation.segmentationId,
  });

export const isOurs = segmentationId => segmentationId?.startsWith('proxyprompt-');
export const seriesOf = segmentationId =>
  host.services.displaySetService.getDisplaySetByUID(segmentationId.replace('proxyprompt-', ''));

/* Puts planes of pixels in the place of those that are there; undo brings those back, and tells so. */
export function replacePlanes(map, planes, restored = () => {}) {
  const before = copies(map);
  const put = pixels => {
    map.images.forEach((image, n) => image.getPixelData().set(pixels[n]));
    changed(map);
  };
  put(planes);
  core().utilities.HistoryMemo.DefaultHistoryMemo.push({
    restoreMemo: undo => {
      put(undo ? before : planes);
      restored(undo);
    },
  });
}

/* The planes that a result gives: structures that it speaks of are drawn anew, all others stay.
 *
 * voxels: the server's numbers, slice by slice in the order of `instances`. numbers: structure -> number.
 */
export function drawn(map, voxels, instances, numbers) {
  const names = Object.keys(numbers);
  const index = new Uint8Array(256);
  for (const name of names) {
    index[numbers[name]] = indexOf(map, name, numbers[name]);
  }
  const replaced = new Set(names.map(name => index[numbers[name]]));
  const planes = new Map(map.images.map(image => [keyOf(image.referencedImageId), Uint8Array.from(image.getPixelData())]));
  const size = voxels.length / map.images.length;
  if (instances.length !== map.images.length || !instances.every(([uid, frame]) => planes.has(key(uid, frame)))) {
    throw new Error('The answer is of another series than that of this viewport. Select the viewport and run again');
  }
  instances.forEach(([uid, frame], slice) => {
    const plane = planes.get(key(uid, frame));
    for (let i = 0; i < size; i++) {
      const value = index[voxels[slice * size + i]];
      if (value || replaced.has(plane[i])) {
        plane[i] = value;
      }
    }
  });
  return [...planes.values()];
}

export const emptied = map => map.images.map(image => new Uint8Array(image.getPixelData().length));

/* name -> { pixels, slices, text }: how large each structure is, in the units that the series knows. */
export function sizes(map) {
  const found = Object.fromEntries(segmentsOf(map).map(segment => [segment.label, { pixels: 0, slices: 0 }]));
  const names = new Map(segmentsOf(map).map(segment => [segment.segmentIndex, segment.label]));
  for (const image of map.images) {
    const counts = new Uint32Array(256);
    for (const value of image.getPixelData()) {
      counts[value]++;
    }
    for (const [index, name] of names) {
      found[name].pixels += counts[index];
      found[name].slices += counts[index] ? 1 : 0;
    }
  }
  const step = spacing(map.displaySet);
  for (const size of Object.values(found)) {
    size.text = measure(size.pixels, step, map.images.length);
  }
  return found;
}

/* Pixels as an area of a still, or a volume of a stack; as pixels where nothing is known of them. */
export function measure(pixels, step, slices) {
  if (!step) {
    return `${pixels} px`;
  }
  const area = pixels * step.row * step.column;
  if (slices > 1 && step.between) {
    return `${((area * step.between) / 1000).toFixed(1)} ml`;
  }
  return area < 1000 ? `${area.toFixed(1)} mm²` : `${(area / 100).toFixed(1)} cm²`;
}
