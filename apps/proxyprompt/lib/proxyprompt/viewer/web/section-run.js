/* What to look for, Auto-segment, and its result. */
import { action } from './controls.js';
import { css, h } from './dom.js';
import * as maps from './labelmaps.js';
import { options, remember } from './memory.js';
import { confidence, percent, supportsOf } from './report.js';
import { state } from './state.js';
import * as work from './work.js';

export const RUN = {
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

export const RESULT = {
  of: () => [work.current()?.answer, state.series?.SeriesInstanceUID, state.unsure, state.names],
  draw() {
    const answer = work.current()?.answer;
    if (!answer) {
      return [];
    }
    const several = Object.values(answer.structures ?? {}).some(found => found.slices_searched > 1);
    const rows = Object.entries(answer.structures ?? {}).map(([name, found]) =>
      h(`tr.pp-${answer.supports_fit === false ? 'low' : confidence(found)}`, {},
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
