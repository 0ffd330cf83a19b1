/* Structures, and the tools that paint them. */
import { askText } from './dom.js';
import { core, run } from './host.js';
import * as maps from './labelmaps.js';
import * as memory from './memory.js';
import { current, currentMap, knownNames, state, update } from './state.js';

/* The structure that is painted; asked for where there is none. */
export async function paintable() {
  await current().opening; // a stored label that is on its way has the structures
  const activated = maps.activeName(currentMap());
  if (activated) {
    return activated;
  }
  const names = knownNames();
  const name = names.length === 1 ? names[0] : await askText('Which structure do you want to draw?', names);
  return name ? addStructure(name) : null;
}

export async function addStructure(given) {
  const name = given ?? (await askText('Name of the structure', knownNames()));
  if (!name || !state.series) {
    return null;
  }
  const map = await maps.ensureLabelMap(state.series, name, state.numbers[name]);
  maps.indexOf(map, name, state.numbers[name]);
  maps.activate(map, name);
  update();
  return name;
}

export async function selectStructure(name) {
  const map = await maps.ensureLabelMap(state.series, name, state.numbers[name]);
  maps.indexOf(map, name, state.numbers[name]);
  maps.activate(map, name);
  update();
}

export function setTool(toolName) {
  run('setToolActiveToolbar', { toolName, toolGroupIds: ['default', 'mpr'] });
}

export async function useTool(tool) {
  if (!state.series) {
    return;
  }
  const chosen = state.tool === tool ? '' : tool;
  if (chosen && !(await paintable())) {
    return;
  }
  state.tool = chosen;
  setTool({ brush: 'CircularBrush', eraser: 'CircularEraser' }[chosen] ?? 'WindowLevel');
  update();
}

/* A brush of a thirtieth of the image, unless the user chose another size for images like this. */
export function fitBrush() {
  const { imageIds } = state.series;
  const plane = core().metaData.get('imagePlaneModule', imageIds[0]) ?? {};
  const pixels = core().metaData.get('imagePixelModule', imageIds[0]) ?? {};
  const rows = (plane.rows ?? pixels.rows ?? 256) * (plane.rowPixelSpacing ?? 1);
  const columns = (plane.columns ?? pixels.columns ?? 256) * (plane.columnPixelSpacing ?? 1);
  state.field = Math.min(rows, columns);
  resizeBrush(1, true);
}

export function resizeBrush(factor, fit = false) {
  const share = fit ? memory.options.brush || 1 / 30 : Math.min(0.25, Math.max(0.004, state.brush * factor));
  state.brush = share;
  run('setBrushSize', { value: share * (state.field ?? 100) });
  if (!fit) {
    memory.remember({ brush: share });
  }
  update();
}

export const undo = () => run('undo');
export const redo = () => run('redo');
