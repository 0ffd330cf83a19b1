/* The panel beside the image. Each section gives what it depends on, and is drawn anew when that has changed. */
import { h } from './dom.js';
import { host } from './host.js';
import { enterGuard, leaveGuard } from './guard.js';
import { enterKeys, leaveKeys } from './keys.js';
import { enterPoints, leavePoints } from './points.js';
import { enterRepairs, leaveRepairs } from './repairs.js';
import { PAINT } from './section-correct.js';
import { SUPPORTS } from './section-examples.js';
import { RESULT, RUN } from './section-run.js';
import { MESSAGE, STORED } from './section-status.js';
import { OPTIONS, STORE, TRAIN } from './section-store.js';
import * as work from './work.js';

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
    } else if (depends !== part.depends) {
      part.section.touch?.(part.node);
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
