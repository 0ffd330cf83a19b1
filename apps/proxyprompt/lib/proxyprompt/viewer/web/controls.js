/* Buttons of the panel: what they do may fail, which is said. */
import { h } from './dom.js';
import { failed } from './state.js';

export const action = (label, act, more = {}) =>
  h(`button.pp-button${more.main ? '.pp-main' : ''}`, { onclick: () => Promise.resolve(act()).catch(failed), ...more.set }, label);
