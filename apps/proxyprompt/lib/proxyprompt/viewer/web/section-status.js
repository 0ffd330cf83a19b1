/* What the panel says at its top: what runs, and whose label is stored. */
import { action } from './controls.js';
import { h } from './dom.js';
import { nameOf } from './host.js';
import { signature } from './report.js';
import { state } from './state.js';
import * as work from './work.js';

export const MESSAGE = {
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

export const STORED = {
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
