/* The segments of a volume as surfaces that can be turned, and the way back. */
import { core, cornerstoneViewport, run, tools, viewportsOf } from './host.js';
import * as maps from './labelmaps.js';
import { busy, currentMap, say, silently, state } from './state.js';

const TURNABLE = 'only3D'; // hanging protocols of OHIF
const FLAT = '@ohif/mnGrid';
const PATIENCE = 600; // times a fifth of a second
const LATE = 1000; // ms after which the viewer has told of all that it changed

export const canTurn = () => !!state.series?.isReconstructable && !!currentMap();
const isTurnable = viewport => viewport.type === core().Enums.ViewportType.VOLUME_3D;
const isSurface = actor => /surface/i.test(actor.representationUID ?? actor.uid);

/* Not a change of the label map, though the viewer says so when it makes a volume of it. */
export const toggleSurface = () =>
  busy(state.turnable ? 'Slices' : '3-D', ({ abort }) => silently(() => (state.turnable ? flat(abort.signal) : turnable(abort.signal))));

async function turnable(signal) {
  const map = currentMap();
  run('setHangingProtocol', { protocolId: TURNABLE });
  state.turnable = true;
  const id = await viewportOf(map.displaySet, viewport => isTurnable(viewport) && viewport.getActors().length, signal);
  maps.takeOut(map, id);
  await maps.representIn(map, id, tools().Enums.SegmentationRepresentations.Surface);
  await viewportOf(map.displaySet, viewport => viewport.getActors().some(isSurface), signal);
  const viewport = cornerstoneViewport(id);
  viewport.getActors().forEach(one => one.actor.setVisibility(isSurface(one))); // without the body around them
  viewport.resetCamera();
  viewport.render();
  say('info', 'Drag to turn it; “Slices” goes back');
  await new Promise(done => setTimeout(done, LATE));
}

async function flat(signal) {
  const { displaySet } = currentMap();
  viewportsOf(displaySet).forEach(id => maps.takeOut(currentMap(), id));
  run('setHangingProtocol', { protocolId: FLAT });
  state.turnable = false;
  const id = await viewportOf(displaySet, viewport => !isTurnable(viewport) && viewport.getCurrentImageId?.(), signal);
  maps.takeOut(currentMap(), id);
  await maps.ensureLabelMap(displaySet);
  await new Promise(done => setTimeout(done, LATE));
}

/* The viewport of a series, as soon as it is as it should be. */
async function viewportOf(displaySet, ready, signal) {
  for (let tries = 0; tries < PATIENCE && !signal.aborted; tries++) {
    await new Promise(done => setTimeout(done, 200));
    const found = viewportsOf(displaySet).find(id => cornerstoneViewport(id) && ready(cornerstoneViewport(id)));
    if (found) {
      return found;
    }
  }
  throw new Error('The viewer did not show this series in three dimensions. Press it again, or reload the page: a draft is kept');
}
