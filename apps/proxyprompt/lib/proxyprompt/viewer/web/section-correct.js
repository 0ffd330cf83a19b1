/* The structures that are drawn, and the tools that correct them. */
import { action } from './controls.js';
import { css, h } from './dom.js';
import * as maps from './labelmaps.js';
import { state } from './state.js';
import * as work from './work.js';

export const PAINT = {
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
  /* While a field of it has the focus, only this is brought up to date. */
  touch(node) {
    node.querySelector('label .pp-size').textContent = (2 * state.brush * state.field).toFixed(1);
  },
};
