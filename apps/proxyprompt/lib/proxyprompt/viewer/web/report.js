/* What a result and a training say, in words. Nothing here touches the page or the server. */

export const LOW = 0.5;

export const percent = value => (value === null || value === undefined ? '–' : `${Math.round(100 * value)} %`);

/* How far one structure of an answer can be relied on: 'good', 'low' or 'none' (nothing was drawn). */
export function confidence(found) {
  if (!found.voxels) {
    return 'none';
  }
  const weakest = Math.min(found.presence_max ?? 1, found.agreement ?? 1);
  return weakest < LOW ? 'low' : 'good';
}

/* { kind, text }: what is said of a whole answer, in one line. */
export function verdict(answer) {
  const structures = Object.entries(answer.structures ?? {});
  const of = kind => structures.filter(([, found]) => confidence(found) === kind).map(([name]) => name);
  const [low, none, good] = [of('low'), of('none'), of('good')];
  const most = Math.max(...supportsOf(answer).map(one => one.similarity));
  const unlike = answer.supports_fit === false ? `The supports hardly look like this image (${percent(most)}), check it. ` : '';
  if (!good.length && !low.length) {
    return { kind: 'warn', text: `${unlike}Nothing was found of ${none.join(', ') || 'any structure'}. Choose another support, or paint it` };
  }
  if (low.length) {
    const worst = low.map(name => {
      const { agreement, presence_max } = answer.structures[name];
      const unsure = (agreement ?? 1) < LOW ? `supports agree ${percent(agreement)}` : `object score ${percent(presence_max)}`;
      return `${name}: ${unsure}`;
    });
    return { kind: 'warn', text: `${unlike}Low confidence, check it. ${worst.join('; ')}` };
  }
  const missing = none.length ? `; not found: ${none.join(', ')}` : '';
  return { kind: none.length || unlike ? 'warn' : 'good', text: `${unlike}Segmented: ${good.join(', ')}${missing}` };
}

const UID = /\d+(?:\.\d+){4,}/g;
const MOMENT = /\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)/g;

const clock = time => time.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

/* What the server says, for people: UIDs of series by their names, moments by the clock of this browser. */
export const readable = (text, names) =>
  text.replace(UID, uid => names[uid] ?? uid).replace(MOMENT, moment => clock(new Date(moment)));

/* The supports that an answer rests on, one entry a study: { id, slices, similarity }. */
export function supportsOf(answer) {
  const used = answer?.supports ?? [];
  return [...new Set(used.map(one => one.id))].map(id => {
    const own = used.filter(one => one.id === id);
    return {
      id,
      slices: own.map(one => one.slice + 1).sort((a, b) => a - b),
      similarity: Math.max(...own.map(one => one.similarity ?? 0)),
    };
  });
}

/* { running, text, done, total, warnings }: how a training stands. task: of the server's queue; stats: of the trainer. */
export function story(task, stats) {
  const running = ['SUBMITTED', 'RUNNING'].includes(task?.status);
  if (running) {
    if (stats?.status === 'running') {
      const { epoch = 0, total_epochs: total = 0, message = 'training' } = stats;
      return { running, text: `${message}, epoch ${epoch} of ${total}`, done: epoch, total, warnings: [] };
    }
    return { running, text: 'Starting: the training’s own process loads the model and reads the labelled studies', warnings: [] };
  }
  if (task?.status === 'ERROR') {
    return { running, failed: true, text: task.details?.at(-1) ?? 'The training failed; the server’s log says why', warnings: [] };
  }
  const fate = { published: 'is used from now on', refused: 'is not used', unproven: 'is not used yet' };
  const text = stats?.version ? `${stats.version} ${fate[stats.status] ?? stats.status}: ${stats.message}` : (stats?.message ?? '');
  return { running, text, warnings: stats?.warnings ?? [] };
}

/* 'by X, 30 Nov 2026, 21:03' of a stored label. */
export function signature(label) {
  const when = label.time ? new Date(label.time) : null;
  const shown = when && !Number.isNaN(when.getTime()) ? clock(when) : '';
  return [label.by ? `by ${label.by}` : 'by an unknown author', shown].filter(Boolean).join(', ');
}

/* The options of a request for a segmentation, as the server takes them. */
export function request(options, { structures = null, picked = [], adapter = '', corrected = [] } = {}) {
  const params = { agreement: options.agreement, everywhere: options.everywhere };
  if (options.supports) {
    params.supports = String(options.supports);
  }
  if (adapter || options.adapter) {
    params.adapter = adapter || options.adapter;
  }
  if (picked.length) {
    params.support = picked;
  }
  if (corrected.length) {
    params.corrected = corrected;
  }
  if (structures?.length) {
    params.structure = structures;
  }
  return params;
}

/* Points and boxes by structure, as the server takes them: { head: { foreground: [[x, y, z]], background: [], boxes: [] } }. */
export function pointsOf(points) {
  const said = {};
  for (const { name, inside, voxel, box } of points) {
    said[name] ??= { foreground: [], background: [], boxes: [] };
    const kind = box ? 'boxes' : inside ? 'foreground' : 'background';
    said[name][kind].push(box ?? voxel);
  }
  return said;
}
