/* What the viewer gets wrong, set right without a change to its files. */
import { core } from './host.js';

const ASKED_FIRST = 100_000;
let asking = false;

/* OHIF knows a VOI LUT function as a text, of which its image loader takes the first letter: no image comes up. */
function voiLutModule(type, imageId) {
  if (type !== 'voiLutModule' || asking) {
    return undefined;
  }
  asking = true;
  try {
    const found = core().metaData.get(type, imageId);
    return typeof found?.voiLUTFunction === 'string' ? { ...found, voiLUTFunction: known(found.voiLUTFunction) } : found;
  } finally {
    asking = false;
  }
}

const known = name => (Object.values(core().Enums.VOILUTFunctionType).includes(name) ? [name] : undefined);

export const enterRepairs = () => core().metaData.addProvider(voiLutModule, ASKED_FIRST);
export const leaveRepairs = () => core().metaData.removeProvider(voiLutModule);
