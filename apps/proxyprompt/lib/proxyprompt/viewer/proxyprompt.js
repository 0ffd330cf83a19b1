/* What the MONAI Label panel of OHIF does in this app. The patched bundle calls these functions; see patches.py.
 *
 * One label map per series, made of one image for each image of the series, whether it is a volume, a picture or a
 * clip. Server and viewer name slices by SOPInstanceUID and frame, so neither depends on the other's order.
 */
window.proxyprompt = (() => {
  const { story, tell } = window.proxyprompt;
  let core; // @cornerstonejs/core
  let tools; // @cornerstonejs/tools
  let names = {}; // of studies, for the drop-downs
  const ids = {}; // structure -> the server's number of it
  let watching = 0; // which look at a training is the latest
  const slices = new Map(); // series -> [[SOPInstanceUID, frame], ...] in the server's order
  const sought = new Map(); // series -> names of the structures that were looked for
  const previous = new Map(); // label map -> its pixels before the last result was drawn

  // All of the panel can be reached in a low window; the figures in its white bars are not white.
  const style = '.monaiLabelPanel { overflow-y: auto } .monaiLabelPanel .w3-container { color: black }';
  document.head.append(Object.assign(document.createElement('style'), { textContent: style }));

  const attach = (cornerstone, cornerstoneTools) => {
    core = cornerstone;
    tools = cornerstoneTools;
  };

  const key = (uid, frame) => `${uid}/${frame}`;
  const keyOf = imageId => key(...imageId.match(/instances\/([\d.]+)\/frames\/(\d+)/).slice(1));
  const service = panel => panel.props.servicesManager.services.segmentationService;

  /* The label map in the active viewport and its images; null where it has none, or one of another series. */
  function current(panel) {
    const { viewport, displaySet } = panel.getActiveViewportInfo();
    const segmentation = service(panel).getActiveSegmentation(viewport.viewportId);
    const own = new Set(displaySet.imageIds.map(keyOf));
    const ids = segmentation?.representationData.Labelmap?.imageIds ?? [];
    const images = ids.map(id => core.cache.getImage(id)).filter(image => own.has(keyOf(image.referencedImageId)));
    return images.length === own.size ? { segmentation, images } : null;
  }

  /* The same, made if there is none, with a segment of each name. */
  async function labelMap(panel, wanted) {
    const { viewport, displaySet } = panel.getActiveViewportInfo();
    const color = label => colorOf(label) ?? panel.segmentColor(label);
    if (!current(panel)) {
      const [first] = wanted;
      const segmentationId = await service(panel).createLabelmapForDisplaySet(displaySet, {
        label: 'Labels',
        segments: { 1: { segmentIndex: 1, label: first, active: true, locked: false } },
      });
      const type = tools.Enums.SegmentationRepresentations.Labelmap;
      await service(panel).addSegmentationRepresentation(viewport.viewportId, { segmentationId, type });
      service(panel).setSegmentColor(viewport.viewportId, segmentationId, 1, color(first));
    }
    const { segmentation } = current(panel);
    const known = new Set(Object.values(segmentation.segments).map(segment => segment.label));
    for (const label of wanted.filter(name => !known.has(name))) {
      service(panel).addSegment(segmentation.segmentationId, { label, color: color(label) });
    }
    return current(panel);
  }

  const indexOf = (segmentation, name) =>
    Object.values(segmentation.segments).find(segment => segment.label === name).segmentIndex;

  /* A structure's colour: the same in every study, and far from those of its neighbours in the list of all. */
  function colorOf(label) {
    if (!ids[label]) {
      return null;
    }
    const hue = (ids[label] * 137.5) % 360; // the golden angle
    const channel = n => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (0.6 - 0.35 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    };
    return [channel(0), channel(8), channel(4), 255];
  }

  const pause = ms => new Promise(done => setTimeout(done, ms));

  /* Until the active viewport shows an image, so that a label map can be made for it; a minute at most. */
  async function ready(panel) {
    const { cornerstoneViewportService } = panel.props.servicesManager.services;
    for (let tries = 0; tries < 300; tries++) {
      try {
        const { viewport } = panel.getActiveViewportInfo();
        if (cornerstoneViewportService.getCornerstoneViewport(viewport.viewportId).getCurrentImageId()) {
          return;
        }
      } catch {
        // not there yet
      }
      await pause(200);
    }
  }

  /* After "connect": names for the drop-downs, and the known structures in the segment list. */
  async function connected(panel, info, labels) {
    names = Object.assign({}, ...Object.values(info.models).map(model => model.names ?? {}));
    Object.assign(ids, ...Object.values(info.models).map(model => model.labels));
    if (labels.length && !current(panel)) {
      await labelMap(panel, labels);
    }
  }

  /* What the server says about itself, once more. */
  async function refresh(panel) {
    const { data } = await panel.client().info();
    if (data) {
      await connected(panel, data, []);
      panel.setState({ info: { ...panel.state.info, data } });
    }
  }

  const nameOf = value => names[value] ?? value;

  /* For the panel's own tables: name -> index and colour. */
  function segments(segmentationService) {
    const info = {};
    const indices = new Set();
    for (const { segmentationId, segments: found } of segmentationService.getSegmentations()) {
      const [shown] = segmentationService.getRepresentationsForSegmentation(segmentationId);
      for (const { segmentIndex, label } of Object.values(found)) {
        const color =
          shown && segmentationService.getSegmentColor(shown.viewportId, segmentationId, segmentIndex);
        info[label] = { segmentIndex, color: color ?? [0, 0, 0, 255] };
        indices.add(segmentIndex);
      }
    }
    return { info, indices };
  }

  /* Shows an answer of the server. */
  async function show(panel, response) {
    try {
      await draw(panel, response);
    } catch (error) {
      console.error(error);
      panel.notification.show({ title: 'MONAI Label', message: `Not shown: ${error.message}`, type: 'error' });
    }
  }

  /* Only the structures that the answer speaks of are drawn anew. */
  async function draw(panel, response) {
    const headers = { 'Content-Type': response.headers['content-type'] };
    const form = await new Response(response.data, { headers }).formData();
    const answer = JSON.parse(form.get('params'));
    const voxels = rawVoxels(new Uint8Array(await form.get('image').arrayBuffer()));
    const { displaySet } = panel.getActiveViewportInfo();
    const series = displaySet.SeriesInstanceUID;
    const own = new Set(displaySet.imageIds.map(keyOf));
    if (answer.instances) {
      if (!answer.instances.every(instance => own.has(key(...instance)))) {
        throw new Error('the result is of another series than that of the active viewport; select it and run again');
      }
      slices.set(series, answer.instances);
    }
    const wanted = Object.keys(answer.label_names);
    sought.set(series, new Set([...(sought.get(series) ?? []), ...wanted]));
    Object.assign(ids, answer.label_names);
    const { segmentation, images } = await labelMap(panel, wanted);
    const { segmentationId } = segmentation;
    previous.set(segmentationId, copies(images));
    const drawn = new Uint8Array(256);
    for (const [name, id] of Object.entries(answer.label_names)) {
      drawn[id] = indexOf(segmentation, name);
    }
    const replaced = new Set(drawn.filter(index => index));
    const size = voxels.length / images.length;
    const image = new Map(images.map(one => [keyOf(one.referencedImageId), one]));
    order(displaySet).forEach(([uid, frame], slice) => {
      const pixels = image.get(key(uid, frame)).getPixelData();
      for (let i = 0; i < size; i++) {
        const index = drawn[voxels[slice * size + i]];
        if (index || replaced.has(pixels[i])) {
          pixels[i] = index;
        }
      }
    });
    modified(segmentationId);
    if (!wanted.includes(Object.values(segmentation.segments).find(segment => segment.active)?.label)) {
      service(panel).setActiveSegment(segmentationId, indexOf(segmentation, wanted[0])); // what the brush paints
    }
    tell(answer, images.length, nameOf);
  }

  const copies = images => images.map(image => image.getPixelData().slice());
  const modified = segmentationId =>
    core.triggerEvent(core.eventTarget, tools.Enums.Events.SEGMENTATION_DATA_MODIFIED, { segmentationId });

  /* Takes back the last result, and what was painted after it; once more brings both back. */
  function undo(panel) {
    const map = current(panel);
    const kept = map && previous.get(map.segmentation.segmentationId);
    if (!kept) {
      panel.notification.show({ title: 'MONAI Label', message: 'No result to take back', type: 'error' });
      return;
    }
    const { segmentationId } = map.segmentation;
    previous.set(segmentationId, copies(map.images));
    map.images.forEach((image, n) => image.getPixelData().set(kept[n]));
    modified(segmentationId);
  }

  /* The voxels of a raw NRRD: all that follows its first empty line. */
  function rawVoxels(nrrd) {
    let end = 1;
    while (nrrd[end - 1] !== 10 || nrrd[end] !== 10) {
      end++;
    }
    return nrrd.subarray(end + 1);
  }

  /* The slices of a series in the server's order; as long as it has not told, along the patient, or as numbered. */
  function order(displaySet) {
    const told = slices.get(displaySet.SeriesInstanceUID);
    if (told) {
      return told;
    }
    const place = imageId => {
      const plane = core.metaData.get('imagePlaneModule', imageId);
      const { rowCosines: r, columnCosines: c, imagePositionPatient: p } = plane ?? {};
      const normal = r && c && [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
      return normal && p ? normal[0] * p[0] + normal[1] * p[1] + normal[2] * p[2] : 0;
    };
    const along = displaySet.imageIds.map((imageId, n) => [place(imageId), n, imageId]);
    return along.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , imageId]) => keyOf(imageId).split('/'));
  }

  /* A click as [column, row, slice] of the server's grid. */
  function voxelOf(panel, annotation) {
    const { displaySet } = panel.getActiveViewportInfo();
    const imageId = annotation.metadata.referencedImageId;
    const [column, row] = core.utilities.worldToImageCoords(imageId, annotation.data.handles.points[0]);
    const slice = order(displaySet).findIndex(([uid, frame]) => key(uid, frame) === keyOf(imageId));
    return [Math.floor(column), Math.floor(row), slice];
  }

  /* Stores what is drawn as the final label: every structure with a voxel, or that was looked for. */
  async function submit(panel) {
    const say = (type, message) => panel.notification.show({ title: 'MONAI Label', message, type, duration: 8000 });
    const map = current(panel);
    if (!map) {
      say('error', 'Nothing to submit: this series has no segmentation yet');
      return;
    }
    const { displaySet } = panel.getActiveViewportInfo();
    const planes = copies(map.images);
    const seen = new Set();
    planes.forEach(plane => plane.forEach(index => seen.add(index)));
    const looked = sought.get(displaySet.SeriesInstanceUID) ?? new Set();
    const declared = Object.values(map.segmentation.segments).filter(
      segment => seen.has(segment.segmentIndex) || looked.has(segment.label)
    );
    const params = {
      label_info: declared.map(segment => ({ name: segment.label, idx: segment.segmentIndex })),
      instances: map.images.map(image => keyOf(image.referencedImageId).split('/')),
    };
    const url = new URL('datastore/label', panel.client().server_url);
    url.search = new URLSearchParams({ image: displaySet.SeriesInstanceUID, tag: 'final' });
    const form = new FormData();
    form.append('params', JSON.stringify(params));
    form.append('label', new Blob(planes.map(plane => Uint8Array.from(plane))), 'label.bin');
    const response = await fetch(url, { method: 'PUT', body: form });
    if (!response.ok) {
      say('error', `Not submitted: ${(await response.json().catch(() => ({}))).detail ?? response.statusText}`);
      return;
    }
    say('success', `Submitted: ${declared.map(segment => segment.label).join(', ')}`);
    await refresh(panel);
  }

  /* From the press of "Update Model" to its end: how far it is, in the panel, then what became of it. */
  async function watch(panel) {
    const tab = panel.actions.activelearning.current;
    const turn = ++watching;
    await refresh(panel);
    while (tab.state.training && turn === watching) {
      await pause(3000);
      const answer = await fetch(new URL('train/', panel.client().server_url)).catch(() => null);
      const task = answer && (await answer.json());
      await refresh(panel);
      if (task && turn === watching && !['SUBMITTED', 'RUNNING'].includes(task.status)) {
        const failed = task.status === 'ERROR' && task.details.at(-1);
        const message = failed || story(panel.state.info.data, false)[0];
        panel.notification.show({ title: 'Training', message, type: failed ? 'error' : 'info', duration: 60000 });
        tab.setState({ training: false });
        return;
      }
    }
  }

  return { ...window.proxyprompt, attach, connected, nameOf, ready, segments, show, submit, undo, voxelOf, watch };
})();
