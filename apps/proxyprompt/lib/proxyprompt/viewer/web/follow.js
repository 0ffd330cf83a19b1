/* Follows the active viewport: which series is worked on, what is known of it, and what the user changes in it. */
import { touched } from './drafts.js';
import { active, core, cornerstoneViewport, host, tools } from './host.js';
import { fitBrush } from './painting.js';
import { failed, of, refresh, series, state, update } from './state.js';
import { open } from './stored.js';
import { followTraining } from './training.js';

let subscriptions = [];

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
  Object.assign(state, { tool: '', turnable: false, unsure: false });
  series.clear();
}

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
