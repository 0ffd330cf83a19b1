/* Where the supports disagree, each by itself: an overlay that is asked for slice by slice, as they come into view. */
import * as api from './api.js';
import { core, key, keyOf } from './host.js';
import * as memory from './memory.js';
import { request, supportsOf } from './report.js';
import { current, failed, say, state, uidOf, update } from './state.js';

const COLOR = [255, 60, 230];
const STRONGEST = 190; // of 255, so that the image is seen beneath

/* Only an answer of two support slices and more has something to show. */
export const canCompare = answer => (answer?.supports ?? []).length > 1;

export function toggleUncertainty() {
  state.unsure = !state.unsure;
  if (state.unsure) {
    say('info', 'Pink: where the supports, each by itself, draw different things');
  }
  update();
}

/* The picture for an image { href, columns, rows }; null as long as there is none, while it is being fetched. */
export function uncertain(imageId) {
  const one = current();
  const answer = one?.answer;
  if (!state.unsure || !canCompare(answer) || !one.instances) {
    return null;
  }
  if (one.unsure?.answer !== answer) {
    one.unsure = { answer, pictures: new Map() };
  }
  const { pictures } = one.unsure;
  const name = keyOf(imageId);
  if (!pictures.has(name)) {
    pictures.set(name, null);
    fetchPicture(one, answer, imageId).then(
      picture => {
        pictures.set(name, picture);
        update();
      },
      error => {
        state.unsure = false;
        failed(error);
      }
    );
  }
  return pictures.get(name);
}

async function fetchPicture(one, answer, imageId) {
  const slice = one.instances.findIndex(([uid, frame]) => key(uid, frame) === keyOf(imageId));
  const { columns, rows } = core().metaData.get('imagePixelModule', imageId);
  const asked = { structures: Object.keys(answer.structures), picked: supportsOf(answer).map(({ id }) => id), adapter: answer.adapter };
  const values = await api.disagreement(uidOf(one.displaySet), slice, request(memory.options, asked));
  return { href: picture(values, columns, rows), columns, rows };
}

function picture(values, columns, rows) {
  const canvas = Object.assign(document.createElement('canvas'), { width: columns, height: rows });
  const context = canvas.getContext('2d');
  const image = context.createImageData(columns, rows);
  values.forEach((value, i) => image.data.set([...COLOR, (value * STRONGEST) / 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
