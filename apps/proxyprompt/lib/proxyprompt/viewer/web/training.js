/* A training: started, followed, stopped. */
import * as api from './api.js';
import * as memory from './memory.js';
import { story } from './report.js';
import { failed, refresh, say, state, update } from './state.js';

export async function updateModel() {
  state.training = { running: true, text: 'Asking the server to train…', warnings: [] };
  update();
  try {
    const minutes = Number(memory.options.minutes);
    await api.train({ model: 'proxyprompt', ...(minutes ? { max_minutes: minutes } : {}) });
    followTraining(true);
  } catch (error) {
    state.training = { failed: true, text: error.message, warnings: [] };
    update();
  }
}

export const stopTraining = () => api.stopTraining().then(() => say('info', 'The training was stopped')).catch(failed);

let turn = 0;

export async function followTraining(started) {
  const mine = ++turn;
  for (let first = true; mine === turn; first = false) {
    try {
      const info = await api.info();
      const [stats] = Object.values(info.train_stats ?? {});
      if (!started && stats?.status !== 'running') {
        return; // no training has left word that it runs
      }
      const task = await api.training();
      const known = story(task, stats);
      if (!first || started || known.running) {
        state.training = known;
        update();
      }
      if (!known.running) {
        if (!first) {
          await refresh();
        }
        return;
      }
    } catch (error) {
      state.training = { ...state.training, text: error.message };
      update();
    }
    await new Promise(done => setTimeout(done, 2000));
  }
}
