/* The viewer that we are in: its services, its active viewport, and the library that draws. */

export const host = { services: null, commandsManager: null };

export const core = () => window.cornerstone;
export const tools = () => window.cornerstoneTools;

export const key = (instance, frame) => `${instance}/${frame}`;

/* SOPInstanceUID and frame of an image, in one text; the server names slices by them too. */
export const keyOf = imageId => key(...imageId.match(/instances\/([\d.]+)\/frames\/(\d+)/).slice(1));

/* The active viewport and the series that it shows; null where it shows no images. */
export function active() {
  const { viewportGridService, displaySetService } = host.services;
  const { activeViewportId, viewports } = viewportGridService.getState();
  const found = shown(viewports.get(activeViewportId), displaySetService);
  return found ? { viewportId: activeViewportId, displaySet: found } : null;
}

/* The viewports that show a series. */
export function viewportsOf(displaySet) {
  const { viewports } = host.services.viewportGridService.getState();
  return [...viewports].filter(([, one]) => one.displaySetInstanceUIDs?.includes(displaySet.displaySetInstanceUID)).map(([id]) => id);
}

function shown(viewport, displaySetService) {
  const sets = (viewport?.displaySetInstanceUIDs ?? []).map(uid => displaySetService.getDisplaySetByUID(uid));
  return sets.find(set => set?.imageIds?.length && !set.isOverlayDisplaySet && /frames\//.test(set.imageIds[0]));
}

export const cornerstoneViewport = viewportId => host.services.cornerstoneViewportService.getCornerstoneViewport(viewportId);

/* What people call a series. */
export const nameOf = displaySet =>
  [displaySet.Modality, displaySet.SeriesDescription || (displaySet.SeriesNumber && `series ${displaySet.SeriesNumber}`)]
    .filter(Boolean)
    .join(' · ');

export const run = (command, options) => host.commandsManager.runCommand(command, options);

/* mm of a pixel (row step, column step), and between slices; null where the series does not say. */
export function spacing(displaySet) {
  const [first, second] = displaySet.imageIds;
  const plane = core().metaData.get('imagePlaneModule', first);
  const calibrated = core().metaData.get('calibratedPixelSpacing', first);
  const row = calibrated?.rowPixelSpacing ?? plane?.rowPixelSpacing;
  const column = calibrated?.columnPixelSpacing ?? plane?.columnPixelSpacing;
  if (!row || !column || plane?.usingDefaultValues || plane?.isDefaultValueSetForRowSpacing) {
    return null;
  }
  const a = plane.imagePositionPatient;
  const b = second && core().metaData.get('imagePlaneModule', second)?.imagePositionPatient;
  const between = a && b ? Math.hypot(...[0, 1, 2].map(n => a[n] - b[n])) : 0;
  return { row, column, between };
}
