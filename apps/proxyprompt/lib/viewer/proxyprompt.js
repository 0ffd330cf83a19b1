/* What the MONAI Label panel of OHIF does in this app. The patched bundle calls these functions; see patches.py.
 *
 * One label map per series, made of one image for each image of the series, whether it is a volume, a picture or a
 * clip. Server and viewer name slices by SOPInstanceUID and frame, so neither depends on the other's order.
 */
window.proxyprompt = (() => {
  let core; // @cornerstonejs/core
  let tools; // @cornerstonejs/tools
  let names = {}; // of studies, for the drop-downs
  const slices = new Map(); // series -> [[SOPInstanceUID, frame], ...] in the server's order
  const sought = new Map(); // series -> names of the structures that were looked for

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
    const color = label => panel.segmentColor(label);
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

  /* After "connect": names for the drop-downs, and the known structures in the segment list. */
  async function connected(panel, info, labels) {
    names = Object.assign({}, ...Object.values(info.models).map(model => model.names ?? {}));
    if (labels.length && !current(panel)) {
      await labelMap(panel, labels);
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
    const { segmentation, images } = await labelMap(panel, wanted);
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
    const { segmentationId } = segmentation;
    core.triggerEvent(core.eventTarget, tools.Enums.Events.SEGMENTATION_DATA_MODIFIED, { segmentationId });
    tell(answer);
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
    const planes = map.images.map(image => image.getPixelData());
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
    const { data } = await panel.client().info();
    await connected(panel, data, []);
    panel.setState({ info: { ...panel.state.info, data } });
  }

  /* Why a request failed, in the server's words. */
  function reason(error) {
    try {
      return JSON.parse(new TextDecoder().decode(error.response.data)).detail;
    } catch {
      return `The server did not answer as expected: ${error.message ?? error.status}`;
    }
  }

  /* What the result rests on, under the panel's buttons. */
  function tell(answer) {
    const percent = value => (value === null || value === undefined ? '–' : `${Math.round(100 * value)} %`);
    const row = (tag, cells) => {
      const made = document.createElement('tr');
      made.append(...cells.map(text => Object.assign(document.createElement(tag), { textContent: text })));
      return made;
    };
    const table = (head, rows) => {
      const made = document.createElement('table');
      made.append(row('th', head), ...rows.map(cells => row('td', cells)));
      made.style.cssText = 'width: 100%; text-align: left; margin-top: 6px';
      return made;
    };
    const structures = Object.entries(answer.structures ?? {}).map(([name, found]) => [
      name,
      percent(found.presence_max),
      percent(found.agreement),
    ]);
    const used = answer.supports ?? [];
    const supports = [...new Set(used.map(one => one.id))].map(id => {
      const own = used.filter(one => one.id === id);
      const which = own.map(one => one.slice + 1).sort((a, b) => a - b);
      const similarity = Math.max(...own.map(one => one.similarity));
      return [`${nameOf(id)}, slice ${which.join(', ')}`, percent(similarity)];
    });
    const lines = [...(answer.warnings ?? []), `${answer.adapter ?? ''} · ${answer.disclaimer ?? ''}`].map(text =>
      Object.assign(document.createElement('p'), { textContent: text }));
    document
      .getElementById('proxyprompt-answer')
      .replaceChildren(
        table(['Structure', 'Present', 'Supports agree'], structures),
        table(['Support', 'Similarity'], supports),
        ...lines
      );
  }

  return { attach, connected, nameOf, reason, segments, show, submit, voxelOf };
})();
