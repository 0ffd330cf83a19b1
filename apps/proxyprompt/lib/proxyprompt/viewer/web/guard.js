/* Leaving with unsaved work: the browser asks for a reload, we for OHIF's own arrow; the draft is kept either way. */
import { ask } from './dom.js';
import { keepDraft } from './drafts.js';
import { unsaved } from './state.js';

let allowed = false;

function unload(event) {
  if (unsaved().length) {
    unsaved().forEach(one => keepDraft(one.displaySet));
    event.preventDefault();
    event.returnValue = '';
  }
}

async function click(event) {
  const arrow = event.target?.closest?.('[data-cy="return-to-work-list"]');
  if (!arrow || allowed || !unsaved().length) {
    return;
  }
  event.stopPropagation();
  event.preventDefault();
  await Promise.all(unsaved().map(one => keepDraft(one.displaySet)));
  const answer = await ask('What you drew is not submitted. A draft is kept in this browser and offered when you come back.', [
    ['Stay here', null],
    ['Leave', 'leave'],
  ]);
  if (answer) {
    allowed = true;
    unsaved().forEach(one => (one.dirty = false));
    arrow.click();
    allowed = false;
  }
}

/* The browser's own back button within the viewer: asks before the viewer hears of it. */
async function back(event) {
  if (!here || allowed || !unsaved().length) {
    return;
  }
  event.stopImmediatePropagation();
  history.pushState(history.state, '', here);
  const answer = await ask('What you drew is not submitted. A draft is kept in this browser and offered when you come back.', [
    ['Stay here', null],
    ['Leave', 'leave'],
  ]);
  if (answer) {
    await Promise.all(unsaved().map(one => keepDraft(one.displaySet)));
    unsaved().forEach(one => (one.dirty = false));
    location.assign('/ohif/');
  }
}

let here = ''; // the viewer's address while it is open

// Listeners of the window are called in the order in which they came: the viewer's own comes after this module.
window.addEventListener('popstate', back);

export function enterGuard() {
  here = location.href;
  window.addEventListener('beforeunload', unload);
  document.addEventListener('click', click, true);
}

export function leaveGuard() {
  window.removeEventListener('beforeunload', unload);
  document.removeEventListener('click', click, true);
  here = '';
}
