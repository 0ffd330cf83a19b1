/* The page at "/docs": what the server's own description (/openapi.json) says, and a form to try what can be read. */
import { h } from './dom.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head'];

/* A schema in a few words: string, integer, [string], {...}. */
export function kind(schema = {}, schemas = {}) {
  if (schema.$ref) {
    return schema.$ref.split('/').at(-1);
  }
  if (schema.anyOf) {
    return schema.anyOf.map(one => kind(one, schemas)).join(' or ');
  }
  if (schema.enum) {
    return schema.enum.map(value => JSON.stringify(value)).join(', ');
  }
  return schema.type === 'array' ? `[${kind(schema.items, schemas)}]` : (schema.format ?? schema.type ?? 'anything');
}

/* All operations of a description, by their first tag. */
export function byTag({ paths }) {
  const found = {};
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS.filter(name => methods[name])) {
      const operation = methods[method];
      (found[operation.tags?.[0] ?? 'Others'] ??= []).push({ path, method, ...operation });
    }
  }
  return found;
}

function parameters({ parameters: given = [], requestBody }) {
  const body = Object.entries(requestBody?.content ?? {}).map(([type, { schema }]) => ({ name: 'body', in: type, schema, required: requestBody.required }));
  const all = [...given, ...body];
  return all.length
    ? h('table', {},
        h('tr', {}, h('th', {}, 'Name'), h('th', {}, 'In'), h('th', {}, 'Kind'), h('th', {}, 'Usually')),
        all.map(one => h('tr', {}, h('td', {}, `${one.name}${one.required ? ' (needed)' : ''}`), h('td', {}, one.in), h('td', {}, kind(one.schema)), h('td', {}, one.schema?.default === undefined ? '' : JSON.stringify(one.schema.default)))))
    : h('p', {}, 'Takes nothing.');
}

/* A form that asks: for reading only, so that nothing is changed by trying. */
function trial({ path, parameters: given = [] }) {
  const answer = h('pre');
  const fields = given.map(one => [one, h('input', { placeholder: one.name, 'aria-label': one.name })]);
  const ask = async () => {
    const query = new URLSearchParams();
    let address = path;
    for (const [one, field] of fields.filter(([, each]) => each.value)) {
      if (one.in === 'path') {
        address = address.replace(`{${one.name}}`, encodeURIComponent(field.value));
      } else {
        query.set(one.name, field.value);
      }
    }
    const response = await fetch(`${address}?${query}`).catch(error => ({ status: 'failed', text: async () => error.message }));
    answer.textContent = `${response.status}\n${(await response.text()).slice(0, 20000)}`;
  };
  return [h('p', {}, fields.map(([, field]) => field), h('button', { onclick: ask }, 'Try')), answer];
}

const show = operation =>
  h('details', {},
    h('summary', {}, h(`b.${operation.method}`, {}, operation.method.toUpperCase()), ' ', h('code', {}, operation.path), ' ', operation.summary ?? ''),
    operation.description ? h('p', {}, operation.description) : null,
    parameters(operation),
    operation.method === 'get' ? trial(operation) : null);

if (globalThis.document) {
  const response = await fetch('/openapi.json').catch(() => null);
  const described = response?.ok ? await response.json() : null;
  document.getElementById('said').textContent = described ? `${described.info.title} ${described.info.version}` : 'The server does not answer.';
  for (const [tag, operations] of Object.entries(described ? byTag(described) : {})) {
    document.getElementById('operations').append(h('h2', {}, tag), ...operations.map(show));
  }
}
