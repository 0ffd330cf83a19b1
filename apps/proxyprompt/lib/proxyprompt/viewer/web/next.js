/* The next sample. */
import * as api from './api.js';
import { keepDraft } from './drafts.js';
import { ask } from './dom.js';
import * as memory from './memory.js';
import { busy, say, series, unsaved } from './state.js';
import { submit } from './stored.js';

export async function nextSample() {
  if (unsaved().length) {
    const answer = await ask('What you drew is not submitted. It is kept in this browser as a draft.', [
      ['Submit first', 'submit'],
      ['Go on without', 'go'],
      ['Stay', null],
    ]);
    if (answer === 'submit') {
      await submit();
    }
    if (!answer || unsaved().length * (answer === 'submit')) {
      return;
    }
  }
  await busy('Next sample', async () => {
    const sample = await api.next(memory.options.strategy || 'random', memory.options.name);
    if (!sample.id || !sample.StudyInstanceUID) {
      say('good', 'Every study has a label: nothing is left to propose');
      return;
    }
    const reason = sample.reason ?? '';
    sessionStorage.setItem('proxyprompt.proposal', JSON.stringify({ study: sample.StudyInstanceUID, reason }));
    await Promise.all(unsaved().map(one => keepDraft(one.displaySet)));
    series.forEach(one => (one.dirty = false));
    location.assign(`/ohif/proxyprompt?StudyInstanceUIDs=${sample.StudyInstanceUID}`);
  });
}
