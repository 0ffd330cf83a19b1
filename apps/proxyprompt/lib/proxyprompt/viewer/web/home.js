/* The page at "/": the work list, and ways to the viewer. */
import { h } from './dom.js';
import { signature } from './report.js';

const PAGE = 100;
const by = id => document.getElementById(id);
const said = text => {
  by('said').textContent = text;
};

async function json(address, options) {
  const response = await fetch(address, options).catch(() => null);
  if (!response) {
    throw new Error('The server does not answer.');
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(found.detail ?? `The server answered ${response.status}.`);
  }
  return found;
}

const address = study => `/ohif/proxyprompt?StudyInstanceUIDs=${study}`;

function row({ id, patient, modality, series, date, study, state, label, proposed, flagged }) {
  const shown = [modality, series || (study ? '' : id)].filter(Boolean).join(' · ');
  const words = {
    labelled: label ? `labelled ${signature(label)}` : 'labelled',
    proposed: `proposed: ${proposed?.reason ?? ''}`,
    unlabelled: 'no label',
  };
  const flags = flagged?.length ? ` ⚑ check ${flagged.join(', ')}` : '';
  return h('tr', { 'data-id': id },
    h('td', {}, patient || '–'),
    h('td', {}, study ? h('a', { href: address(study) }, shown || id) : shown),
    h('td', {}, date.replace(/^(\d{4})(\d\d)(\d\d)$/, '$1-$2-$3')),
    h(`td.${state}`, {}, words[state] + flags),
    h('td', {}, (label?.structures ?? []).join(', ')));
}

let asked = 0;

async function list(offset = 0) {
  const mine = ++asked;
  const query = new URLSearchParams({ text: by('text').value, limit: PAGE, offset });
  if (by('state').value) {
    query.set('state', by('state').value);
  }
  try {
    const { total, counts, studies } = await json(`/proxyprompt/studies?${query}`);
    if (mine !== asked) {
      return;
    }
    by('studies').replaceChildren(...(offset ? by('studies').children : []), ...studies.map(row));
    const left = total - offset - studies.length;
    by('more').hidden = left <= 0;
    by('more').textContent = `${left} more`;
    by('more').onclick = () => list(offset + studies.length);
    said(`${counts.labelled} labelled, ${counts.unlabelled} without a label, of which ${counts.proposed} proposed.`);
    by('viewer').hidden = by('next').hidden = studies.length > 0 && !studies[0].study;
  } catch (error) {
    said(error.message);
  }
}

async function next() {
  try {
    const sample = await json('/activelearning/random', {
      method: 'POST',
      body: '{}',
      headers: { 'Content-Type': 'application/json' },
    });
    if (sample.StudyInstanceUID) {
      location.assign(address(sample.StudyInstanceUID));
    } else {
      said('Every study has a label.');
    }
  } catch (error) {
    said(error.message);
  }
}

by('filters').onsubmit = event => event.preventDefault();
by('text').oninput = by('state').onchange = () => list();
by('next').onclick = next;
list();
json('/info/').then(({ models, version }) => {
  const [serving, ...others] = models.proxyprompt?.config?.adapter ?? [];
  by('versions').textContent = `Version ${version}. Model: ${serving}${others.length ? `; also ${others.join(', ')}` : ''}.`;
}, () => null);
