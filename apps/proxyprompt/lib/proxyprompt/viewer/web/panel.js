/* The panel beside the image. Each section is drawn anew when what it shows has changed. */
import * as api from './api.js';
import { css, h } from './dom.js';
import { host, nameOf } from './host.js';
import { enterKeys, KEYS, leaveKeys } from './keys.js';
import { enterGuard, leaveGuard } from './guard.js';
import * as maps from './labelmaps.js';
import { options, remember } from './memory.js';
import { enterPoints, leavePoints } from './points.js';
import { confidence, percent, signature, supportsOf } from './report.js';
import { enterRepairs, leaveRepairs } from './repairs.js';
import * as work from './work.js';

const { state } = work;
const SHOWN = 12; // supports before "all"
let shownSupports = SHOWN;
let sought = '';

const action = (label, act, more = {}) =>
  h(`button.pp-button${more.main ? '.pp-main' : ''}`, { onclick: () => Promise.resolve(act()).catch(work.failed), ...more.set }, label);

// sections: each gives what it depends on, and its content

const MESSAGE = {
  of: () => [state.message, state.busy && { ...state.busy, abort: 0, now: Math.round(Date.now() / 1000) }, state.proposal],
  draw() {
    const parts = [];
    if (state.proposal) {
      parts.push(
        h('div.pp-message.pp-info', {}, `Proposed next${state.proposal.reason ? `: ${state.proposal.reason}` : ''} `,
          action('Skip', () => work.nextSample(), { set: { id: 'pp-skip', title: 'Go to another one instead' } }))
      );
    }
    if (state.busy) {
      const { what, started, done, total } = state.busy;
      const seconds = Math.round((Date.now() - started) / 1000);
      parts.push(
        h('div.pp-message.pp-info', { id: 'pp-busy', role: 'status' },
          `${what}… ${total ? `${done} of ${total} slices, ` : ''}${seconds} s `,
          h('progress', total ? { max: total, value: done } : {}),
          action('Cancel', work.cancel, { set: { id: 'pp-cancel' } }))
      );
    }
    if (state.message) {
      parts.push(h(`div.pp-message.pp-${state.message.kind}`, { id: 'pp-message', role: 'status' }, state.message.text));
    }
    return parts;
  },
};

const STORED = {
  of: () => {
    const one = work.current();
    return one && [state.series.SeriesInstanceUID, one.stored, one.started, one.draft?.time, one.dirty, one.earlier, one.known];
  },
  draw() {
    const one = work.current();
    if (!one) {
      return [h('p.pp-quiet', {}, 'Waiting for an image…')];
    }
    const parts = [h('div.pp-series', { id: 'pp-series', title: state.series.SeriesInstanceUID, 'data-known': one.known ? 'yes' : 'no' }, nameOf(state.series), one.dirty ? h('span.pp-unsaved', {}, ' · not submitted') : '')];
    if (one.draft) {
      const when = new Date(one.draft.time).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
      parts.push(
        h('div.pp-message.pp-warn', { id: 'pp-draft' }, `What you drew until ${when} was not submitted. `,
          action('Continue it', work.continueDraft), action('Discard it', work.discardDraft))
      );
    }
    if (one.stored) {
      const shown = { stored: one.stored.version === one.base ? 'shown here' : 'newer than what is shown here', afresh: 'you began afresh', draft: 'you continue a draft' }[one.started] ?? '';
      parts.push(
        h('div.pp-stored', { id: 'pp-stored' }, `Labelled ${signature(one.stored)}${shown ? ` (${shown})` : ''}. `,
          one.started === 'stored' && one.stored.version === one.base
            ? action('Start afresh', work.startAfresh, { set: { title: 'Begin with an empty label; the stored one stays until you submit' } })
            : action('Start from it', () => work.startFrom(), { set: { title: 'Show the stored label in the place of what is drawn' } }),
          one.earlier ? action('Earlier labels', work.restoreEarlier, { set: { title: 'Make an earlier label count again' } }) : null)
      );
    }
    return parts;
  },
};

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

const SUPPORTS = {
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

const RUN = {
  of: () => [!!state.busy, state.structures, work.knownNames(), work.versions(), options.adapter, !!work.current()?.other, work.current()?.shown?.name, work.current()?.painted],
  draw() {
    const wanted = state.structures;
    const choose = name => {
      const set = new Set(wanted ?? []);
      if (!set.delete(name)) {
        set.add(name);
      }
      state.structures = set.size ? [...set] : null;
      work.update();
    };
    const [first, ...others] = work.versions();
    const used = options.adapter || first;
    const painted = work.current()?.painted ?? [];
    return [
      h('div.pp-chips', { title: 'What to look for; none chosen: all that the supports show' },
        h(`button.pp-chip${wanted ? '' : '.pp-on'}`, { onclick: () => { state.structures = null; work.update(); } }, 'all that suit'),
        work.knownNames().map(name => h(`button.pp-chip${wanted?.includes(name) ? '.pp-on' : ''}`, { onclick: () => choose(name) }, h('i', { style: `background:${css(maps.colorOf(name))}` }), name))),
      h('div.pp-row', {},
        action('Auto-segment', work.autoSegment, { main: true, set: { id: 'pp-run', title: 'Segment this series as the supports show it (r)', disabled: !!state.busy } }),
        others.length ? h('select.pp-field', { id: 'pp-version', title: 'Version of the model', onchange: event => { remember({ adapter: event.target.value === first ? '' : event.target.value }); work.update(); } },
          work.versions().map(version => h('option', { value: version, selected: version === used }, version))) : h('span.pp-quiet', { title: 'Version of the model' }, first ?? ''),
        others.length ? h('select.pp-field', { id: 'pp-compare', title: 'Segment with another version too, and look at both in turn', onchange: event => event.target.value && work.compare(event.target.value) },
          h('option', { value: '' }, 'compare with…'), work.versions().map(version => h('option', {}, version))) : null,
        work.current()?.other ? action('Toggle', work.toggleCompared, { set: { id: 'pp-toggle' } }) : null),
      painted.length ? h('p.pp-quiet', { id: 'pp-painted' }, `${painted.length === 1 ? 'Slice' : 'Slices'} ${painted.map(n => n + 1).join(', ')}: as you painted, and an example for the others `,
        action('Draw anew', () => work.forgetPainted(work.current()), { set: { title: 'Auto-segment draws these slices, too' } })) : null,
    ];
  },
};

const RESULT = {
  of: () => [work.current()?.answer, state.series?.SeriesInstanceUID, state.unsure, state.names],
  draw() {
    const answer = work.current()?.answer;
    if (!answer) {
      return [];
    }
    const several = Object.values(answer.structures ?? {}).some(found => found.slices_searched > 1);
    const rows = Object.entries(answer.structures ?? {}).map(([name, found]) =>
      h(`tr.pp-${confidence(found)}`, {},
        h('td', {}, h('i.pp-swatch', { style: `background:${css(maps.colorOf(name))}` }), name),
        h('td', {}, found.voxels ? percent(found.presence_max) : 'not found'),
        h('td', {}, percent(found.agreement)),
        several ? h('td', {}, `${found.slices} of ${found.slices_searched}`) : null));
    return [
      h('table', { id: 'pp-result' },
        h('tr', {}, h('th', {}, 'Result'), h('th', { title: 'How sure the model is that the structure is there' }, 'Object score'),
          h('th', { title: 'How far the supports agree, each by itself' }, 'Agreement'), several ? h('th', {}, 'Slices') : null),
        rows),
      h('p.pp-quiet', {}, `${answer.adapter ?? ''}, from ${supportsOf(answer).length === 1 ? 'one study' : `${supportsOf(answer).length} studies`}. ${answer.disclaimer ?? ''}`),
      work.canCompare(answer) ? action('Show where they disagree', work.toggleUncertainty, { set: { id: 'pp-unsure', className: `pp-button${state.unsure ? ' pp-on' : ''}`, title: 'Over the image: where the supports, each by itself, draw different things' } }) : null,
      ...(answer.warnings ?? []).map(text => h('p.pp-warning', {}, work.readable(text))),
    ];
  },
};

const PAINT = {
  of: () => {
    const map = work.currentMap();
    return [state.tool, state.turnable, work.canTurn(), state.brush, state.field, map && maps.sizes(map), maps.activeName(map), work.current()?.points.length, map && maps.segmentsOf(map).map(one => maps.isShown(map, one.label))];
  },
  draw() {
    const map = work.currentMap();
    const sizes = map ? maps.sizes(map) : {};
    const active = maps.activeName(map);
    const tool = (name, label, title) => h(`button.pp-button${state.tool === name ? '.pp-on' : ''}`, { id: `pp-${name}`, title, onclick: () => work.useTool(name) }, label);
    const points = work.count(work.current()?.points ?? []);
    return [
      h('h4', {}, 'Correct'),
      h('div.pp-segments', { id: 'pp-segments' },
        maps.segmentsOf(map).map(({ label, segmentIndex }) =>
          h(`div.pp-segment${label === active ? '.pp-on' : ''}`, { 'data-name': label, onclick: () => work.selectStructure(label) },
            h('button.pp-eye', { title: maps.isShown(map, label) ? 'Hide' : 'Show', onclick: event => { event.stopPropagation(); maps.toggle(map, label); work.update(); } }, maps.isShown(map, label) ? '●' : '○'),
            h('i.pp-swatch', { style: `background:${css(maps.colorOf(label, segmentIndex))}` }),
            h('span', {}, label),
            h('span.pp-size', { title: `${sizes[label].pixels} pixels on ${sizes[label].slices} slices` }, sizes[label].text))),
        action('+ structure', () => work.addStructure(), { set: { id: 'pp-add' } }),
        work.canTurn() ? action(state.turnable ? 'Slices' : '3-D', work.toggleSurface, { set: { id: 'pp-3d', title: state.turnable ? 'Back to the slices' : 'The structures as surfaces that can be turned' } }) : null),
      h('div.pp-row', {},
        tool('brush', 'Brush', 'Paint the chosen structure (p)'),
        tool('eraser', 'Eraser', 'Erase the chosen structure (e)'),
        tool('foreground', '+ point', 'Click, or drag along, what belongs to the chosen structure: each one runs (f)'),
        tool('background', '− point', 'Click, or drag along, what does not belong to it: each one runs (b)'),
        tool('box', 'Box', 'Drag a box around the chosen structure, which does not leave it then: it runs (x)'),
        tool('lasso', 'Lasso', 'Draw roughly around the chosen structure: it runs (l)'),
        action('Undo', work.undo, { set: { id: 'pp-undo', title: 'Take the last step back (z)' } }),
        action('Redo', work.redo, { set: { id: 'pp-redo', title: 'Bring it back (y)' } })),
      h('label.pp-row', { title: 'Size of the brush ([ and ])' }, 'Brush',
        h('input', { id: 'pp-brush-size', type: 'range', min: 0.4, max: 25, step: 0.1, value: 100 * (state.brush ?? 1 / 30), oninput: event => work.resizeBrush(event.target.value / 100 / (state.brush ?? 1 / 30)) }),
        h('span.pp-size', {}, `${(2 * (state.brush ?? 1 / 30) * (state.field ?? 100)).toFixed(1)}`)),
      points ? h('div.pp-row', {}, h('span.pp-quiet', {}, points), action('Remove last', work.removeLastPoint), action('Clear', work.clearPoints)) : null,
    ];
  },
};

const STORE = {
  of: () => [!!state.busy, work.current()?.stored, work.current()?.started, options.strategy, state.info?.strategies && Object.keys(state.info.strategies)],
  draw() {
    const one = work.current();
    const replaces = one?.stored && one.started === 'stored' ? `Replaces the label ${signature(one.stored)}, which is kept (a)` : 'Store what is drawn as the label of this series (a)';
    return [
      h('div.pp-row', {},
        action('Submit', () => work.submit(), { main: true, set: { id: 'pp-submit', title: replaces, disabled: !!state.busy } }),
        action('Next sample', () => work.nextSample(), { set: { id: 'pp-next', title: 'Go to the study to label next (n)', disabled: !!state.busy } })),
    ];
  },
};

const TRAIN = {
  of: () => [state.training],
  draw() {
    const { training } = state;
    const running = training?.running;
    return [
      h('div.pp-row', {},
        running ? action('Stop training', work.stopTraining, { set: { id: 'pp-stop' } })
          : action('Update model', work.updateModel, { set: { id: 'pp-train', title: 'Train on all labelled studies; the new version serves only if it is not worse' } }),
        running ? h('progress', training.total ? { max: training.total, value: training.done } : {}) : null),
      training ? h(`div.pp-message.pp-${training.failed ? 'bad' : 'info'}`, { id: 'pp-training', role: 'status' }, h('p', {}, work.readable(training.text)), training.warnings.map(text => h('p.pp-warning', {}, work.readable(text)))) : null,
    ];
  },
};

const OPTIONS = {
  of: () => [state.info && work.model()?.config?.supports, Object.keys(state.info?.strategies ?? {}), options],
  draw() {
    const set = changes => { remember(changes); work.update(); };
    const check = (name, label, title) => h('label.pp-row', { title }, h('input', { id: `pp-option-${name}`, type: 'checkbox', checked: options[name], onchange: event => set({ [name]: event.target.checked }) }), label);
    const choose = (name, label, title, values, words = value => value) =>
      h('label.pp-row', { title }, label, h('select.pp-field', { id: `pp-option-${name}`, onchange: event => set({ [name]: event.target.value }) }, values.map(value => h('option', { value, selected: String(options[name]) === value }, words(value)))));
    const text = (name, label, title, type = 'text') => h('label.pp-row', { title }, label, h('input.pp-field', { id: `pp-option-${name}`, type, value: options[name], onchange: event => set({ [name]: event.target.value.trim() }) }));
    const counts = work.model()?.config?.supports ?? ['4'];
    const strategies = Object.entries(state.info?.strategies ?? {});
    return [
      h('details', { id: 'pp-options', open: OPTIONS.open, ontoggle: event => { OPTIONS.open = event.target.open; } },
        h('summary', {}, 'Options and keys'),
        text('name', 'Your name', 'Stands with the labels that you submit'),
        choose('supports', 'Supports', 'How many examples each structure gets when the server chooses', ['', ...counts.slice(1)], value => value || `${counts[0]} (usual)`),
        check('agreement', 'Compare the supports', 'Segment with each support alone too, to see how far they agree (takes longer)'),
        check('everywhere', 'All slices', 'Draw also on slices where the supports’ volumes do not show the structure'),
        choose('strategy', 'Next sample', 'How the next study is chosen', ['', ...strategies.map(([name]) => name).filter(name => name !== 'random')], value => value ? (state.info.strategies[value].description ?? value) : 'as the server is set'),
        text('minutes', 'Training, minutes', 'At most so long; empty: as the server is set', 'number'),
        h('table.pp-keys', {}, KEYS.map(([key, meaning]) => h('tr', {}, h('td', {}, h('kbd', {}, key)), h('td', {}, meaning))))),
      h('p.pp-quiet', {}, 'Research use only, not a medical device. ', h('a', { href: '/', target: '_blank' }, 'Work list')),
    ];
  },
};

const SECTIONS = [MESSAGE, STORED, SUPPORTS, RUN, RESULT, PAINT, STORE, TRAIN, OPTIONS];

const panels = new Set();
let asked = false;

/* Many changes at once are drawn once. */
function schedule() {
  if (!asked) {
    asked = true;
    setTimeout(() => {
      asked = false;
      panels.forEach(draw);
    }, 20);
  }
}

function draw(panel) {
  if (!panel.node.isConnected) {
    panels.delete(panel);
    return;
  }
  for (const part of panel.parts) {
    const depends = JSON.stringify(part.section.of() ?? null);
    const focused = part.node.contains(document.activeElement) && document.activeElement.matches('input:not([type=checkbox])');
    if (depends !== part.depends && !(focused && document.activeElement.type !== 'range')) {
      part.depends = depends;
      part.node.replaceChildren(...part.section.draw().flat().filter(Boolean));
    } else if (depends !== part.depends && part.section === PAINT) {
      part.node.querySelector('label .pp-size').textContent = (2 * state.brush * state.field).toFixed(1);
    }
  }
}

/* Fills the panel's element, which OHIF makes anew whenever its tab comes up. */
export function mount(node) {
  if (!node || node.dataset.filled) {
    return;
  }
  node.dataset.filled = 'yes';
  const panel = { node, parts: SECTIONS.map(section => ({ section, depends: undefined, node: h('section.pp-section') })) };
  node.append(...panel.parts.map(part => part.node));
  panels.add(panel);
  schedule();
}

let styled = false;

export function enter(given) {
  Object.assign(host, given);
  if (!styled) {
    document.head.append(h('link', { rel: 'stylesheet', href: new URL('panel.css', import.meta.url).href }));
    work.onChange(schedule);
    styled = true;
  }
  enterRepairs();
  work.enter();
  enterPoints();
  enterKeys();
  enterGuard();
}

export function leave() {
  leaveGuard();
  leaveKeys();
  leavePoints();
  work.leave();
  leaveRepairs();
}
