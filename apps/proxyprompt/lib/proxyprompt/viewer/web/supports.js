/* Which labelled studies serve as supports. */
import * as api from './api.js';
import * as memory from './memory.js';
import { supportsOf } from './report.js';
import { current, failed, refresh, update } from './state.js';

export function pick(id) {
  const { picked } = memory.options;
  memory.remember({ picked: picked.includes(id) ? picked.filter(one => one !== id) : [...picked, id] });
  update();
}

export function unpickAll() {
  memory.remember({ picked: [] });
  update();
}

/* The next result rests on the supports of the last one without this one. */
export function leaveOut(id) {
  const before = memory.options.picked.length ? memory.options.picked : supportsOf(current()?.answer).map(one => one.id);
  memory.remember({ picked: before.filter(one => one !== id) });
  update();
}

/* A person's word on a flagged label: it is left out of what the server chooses, or not. */
export async function decide(id, leaveItOut) {
  try {
    await api.decide(id, leaveItOut, memory.options.name);
    await refresh();
  } catch (error) {
    failed(error);
  }
}
