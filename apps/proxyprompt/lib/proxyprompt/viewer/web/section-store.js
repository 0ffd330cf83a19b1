/* Submit, the next sample, training, and the options. */
import { action } from './controls.js';
import { h } from './dom.js';
import { KEYS } from './keys.js';
import { options, remember } from './memory.js';
import { signature } from './report.js';
import { state } from './state.js';
import * as work from './work.js';

export const STORE = {
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

export const TRAIN = {
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

export const OPTIONS = {
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
