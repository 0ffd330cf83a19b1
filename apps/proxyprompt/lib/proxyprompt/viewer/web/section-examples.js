/* The supports as small images with their masks: chosen, enlarged, left out. */
import * as api from './api.js';
import { action } from './controls.js';
import { css, h } from './dom.js';
import * as maps from './labelmaps.js';
import { options } from './memory.js';
import { percent, supportsOf } from './report.js';
import { state } from './state.js';
import * as work from './work.js';

const SHOWN = 12; // supports before "all"
let shownSupports = SHOWN;
let sought = '';

function thumbnail(support, pickedIds, used, shared) {
  const chosen = pickedIds.includes(support.id);
  const known = used.find(one => one.id === support.id);
  const flagged = support.flagged.length ? h('span.pp-flag', { title: work.readable(support.left_out) || `Its label of ${support.flagged.join(', ')} is flagged as bad: enlarge it to decide` }, '⚑') : null;
  return h(`figure.pp-support${chosen ? '.pp-picked' : ''}${known ? '.pp-used' : ''}`, { 'data-id': support.id, title: `${support.name}\n${support.structures.join(', ')}` },
    h('img', { src: api.thumbnail(support.id, support.slice, 128, support.version), loading: 'lazy', alt: support.name, onclick: () => work.pick(support.id) }),
    h('div.pp-corner', {},
      flagged,
      h('button', { title: 'Enlarge', onclick: () => enlarge(support) }, '⤢'),
      known && used.length > 1 ? h('button.pp-leave', { title: 'Leave this one out of the next result', onclick: () => work.leaveOut(support.id) }, '✕') : null),
    h('figcaption', {}, shared(support), known ? h('span.pp-similar', {}, ` ${percent(known.similarity)}`) : ''));
}

/* A support in large, slice by slice. */
function enlarge(support) {
  const image = h('img', { alt: support.name });
  const show = slice => {
    image.src = api.thumbnail(support.id, slice, 640, support.version);
  };
  show(support.slice);
  const dialog = h('dialog.pp-dialog.pp-large', { onclose: () => dialog.remove() },
    h('p', {}, support.name),
    image,
    support.slices > 1 ? h('input', { type: 'range', min: 0, max: support.slices - 1, value: support.slice, oninput: event => show(event.target.value) }) : null,
    h('p', {}, support.structures.map(name => h('span.pp-chip', {}, h('i', { style: `background:${css(maps.colorOf(name))}` }), name))),
    support.notes.map(note => h('p.pp-quiet', {}, work.readable(note))),
    support.flagged.length ? h('p.pp-warning', {}, work.readable(support.left_out) || `Its label of ${support.flagged.join(', ')} is flagged as bad, and is used until somebody decides. `,
      action(support.left_out ? 'Use it again' : 'Leave it out for everybody', () => (work.decide(support.id, !support.left_out), dialog.close()))) : null,
    h('div.pp-row', {},
      action(options.picked.includes(support.id) ? 'Do not use it' : 'Use it', () => (work.pick(support.id), dialog.close()), { main: true }),
      action('Close', () => dialog.close())));
  document.body.append(dialog);
  dialog.showModal();
}

export const SUPPORTS = {
  of: () => [state.supports, options.picked, supportsOf(work.current()?.answer), state.series?.SeriesInstanceUID, shownSupports, sought],
  draw() {
    const used = supportsOf(work.current()?.answer);
    const own = state.series?.SeriesInstanceUID;
    const rank = support => (options.picked.includes(support.id) ? 0 : 4) + (used.some(one => one.id === support.id) ? 0 : 2) + (support.modality === state.series?.Modality ? 0 : 1);
    const matches = support => `${support.name} ${support.structures.join(' ')}`.toLowerCase().includes(sought.toLowerCase());
    const all = state.supports.filter(support => support.id !== own && matches(support)).sort((a, b) => rank(a) - rank(b));
    const shown = all.slice(0, shownSupports);
    const caption = support => support.name.split(' · ').find(part => part && part !== support.modality) ?? support.name;
    const said = options.picked.length
      ? [h('b', {}, `${options.picked.length} picked`), ' ', action('Choose for me', work.unpickAll, { set: { title: 'Let the server choose what resembles this image' } })]
      : [h('span.pp-quiet', {}, 'The server chooses. Click one to use it instead')];
    return [
      h('h4', { title: 'Labelled studies that show what to segment' }, 'Examples (supports)'),
      h('div.pp-row', {}, said,
        state.supports.length > SHOWN && h('input.pp-field.pp-find', { type: 'search', placeholder: 'find', title: 'Name or structure', value: sought, oninput: event => { sought = event.target.value; work.update(); } })),
      h('div.pp-supports', { id: 'pp-supports' }, shown.map(support => thumbnail(support, options.picked, used, caption))),
      all.length > shown.length ? action(`${all.length - shown.length} more`, () => { shownSupports += 4 * SHOWN; work.update(); }, { set: { id: 'pp-more' } }) : null,
      state.supports.length ? null : h('p.pp-quiet', {}, 'No study is labelled yet: paint the first one and submit it.'),
    ];
  },
};
