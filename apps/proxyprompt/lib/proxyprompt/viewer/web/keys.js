/* Keys of the panel. They come before OHIF's own, which has some of them for what is rarely wanted here. */
import * as work from './work.js';

export const KEYS = [
  ['r', 'Run: Auto-segment', () => work.autoSegment()],
  ['a', 'Accept: Submit', () => work.submit()],
  ['n', 'Next sample', () => work.nextSample()],
  ['p', 'Paint with the brush', () => work.useTool('brush')],
  ['e', 'Eraser', () => work.useTool('eraser')],
  ['f', 'Foreground: points inside', () => work.useTool('foreground')],
  ['b', 'Background: points outside', () => work.useTool('background')],
  ['x', 'Box around the structure', () => work.useTool('box')],
  ['l', 'Lasso around it', () => work.useTool('lasso')],
  ['[', 'Smaller brush', () => work.resizeBrush(1 / 1.25)],
  [']', 'Larger brush', () => work.resizeBrush(1.25)],
  ['z', 'Undo', () => work.undo()],
  ['y', 'Redo', () => work.redo()],
];

const typing = target => target?.closest?.('input, textarea, select, [contenteditable=true], dialog');

function press(event) {
  const found = KEYS.find(([key]) => key === event.key.toLowerCase());
  if (!found || event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) {
    return;
  }
  event.stopImmediatePropagation();
  event.preventDefault();
  found[2]();
}

export const enterKeys = () => window.addEventListener('keydown', press, true);
export const leaveKeys = () => window.removeEventListener('keydown', press, true);
