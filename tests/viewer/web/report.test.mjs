/* What the panel says of results, trainings and labels. Run with: node --test tests/viewer/web */
import assert from 'node:assert/strict';
import { test } from 'node:test';

const web = new URL('../../../apps/proxyprompt/lib/proxyprompt/viewer/web/', import.meta.url);
const { confidence, pointsOf, readable, request, signature, story, supportsOf, verdict } = await import(new URL('report.js', web));

const found = (agreement, presence_max = 0.9, voxels = 10) => ({ agreement, presence_max, voxels });

test('a result with little agreement is never called good', () => {
  const said = verdict({ structures: { head: found(0.06), symphysis: found(0.9) } });
  assert.equal(said.kind, 'warn');
  assert.match(said.text, /^Low confidence, check it\. head: supports agree 6 %$/);
});

test('a low object score warns, too', () => {
  assert.equal(confidence(found(null, 0.3)), 'low');
  assert.match(verdict({ structures: { head: found(null, 0.3) } }).text, /head: object score 30 %/);
});

test('what was not found is said, and nothing found is no success', () => {
  const partly = verdict({ structures: { head: found(0.9), cyst: found(null, 0.1, 0) } });
  assert.deepEqual(partly, { kind: 'warn', text: 'Segmented: head; not found: cyst' });
  assert.match(verdict({ structures: { cyst: found(null, 0.1, 0) } }).text, /^Nothing was found of cyst/);
  assert.equal(verdict({ structures: {} }).kind, 'warn');
});

test('a sure result is good', () => {
  assert.deepEqual(verdict({ structures: { head: found(0.8) } }), { kind: 'good', text: 'Segmented: head' });
});

test('supports that hardly look like the image are never a plain success', () => {
  const answer = { structures: { head: found(0.9) }, supports: [{ id: 'a', slice: 0, similarity: 0.02 }], supports_fit: false };
  assert.deepEqual(verdict(answer), { kind: 'warn', text: 'The supports hardly look like this image (2 %), check it. Segmented: head' });
  assert.equal(verdict({ ...answer, supports_fit: true }).kind, 'good');
});

test('series are called by their names, and moments are told as a clock does', () => {
  const names = { '1.2.840.1.77': 'Smith · US', '1.2.840.1.7': 'Jones · US' };
  const said = readable('support 1.2.840.1.77: left out by Ada at 2026-11-30T21:03:00+00:00, as 1.2.840.1.7. And 1.2.840.1.9', names);
  assert.match(said, /^support Smith · US: left out by Ada at .*2026.*, as Jones · US\. And 1\.2\.840\.1\.9$/);
  assert.doesNotMatch(said, /T21/);
  assert.equal(readable('mean Dice +0.031 on 5 groups, 10.3 s', names), 'mean Dice +0.031 on 5 groups, 10.3 s');
});

test('slices of one support are told together', () => {
  const answer = { supports: [{ id: 'a', slice: 4, similarity: 0.5 }, { id: 'b', slice: 0 }, { id: 'a', slice: 1, similarity: 0.7 }] };
  assert.deepEqual(supportsOf(answer), [
    { id: 'a', slices: [2, 5], similarity: 0.7 },
    { id: 'b', slices: [1], similarity: 0 },
  ]);
  assert.deepEqual(supportsOf(null), []);
});

test('a training says what it does before it has begun, while it runs, and how it ended', () => {
  assert.match(story({ status: 'SUBMITTED' }, undefined).text, /^Starting/);
  const stats = { status: 'running', message: 'training', epoch: 2, total_epochs: 8 };
  assert.deepEqual(story({ status: 'RUNNING' }, stats), { running: true, text: 'training, epoch 2 of 8', done: 2, total: 8, warnings: [] });
  const ended = { version: 'v3', status: 'refused', message: 'mean Dice 0.5 < 0.6', warnings: ['few patients'] };
  assert.deepEqual(story({ status: 'DONE' }, ended), { running: false, text: 'v3 is not used: mean Dice 0.5 < 0.6', warnings: ['few patients'] });
  assert.equal(story({ status: 'ERROR', details: ['a', 'too few labels'] }, ended).text, 'too few labels');
  assert.equal(story(null, undefined).text, '');
});

test('a request holds what was chosen, and nothing else', () => {
  const options = { agreement: true, everywhere: false, supports: '', adapter: '' };
  assert.deepEqual(request(options), { agreement: true, everywhere: false });
  const chosen = request({ ...options, supports: 2, adapter: 'v1' }, { structures: ['head'], picked: ['a', 'b'], adapter: 'v2' });
  assert.deepEqual(chosen, { agreement: true, everywhere: false, supports: '2', adapter: 'v2', support: ['a', 'b'], structure: ['head'] });
});

test('points go out by structure and side', () => {
  const points = [
    { name: 'head', inside: true, voxel: [1, 2, 0] },
    { name: 'head', inside: false, voxel: [3, 4, 0] },
    { name: 'disc', inside: true, voxel: [5, 6, 1] },
    { name: 'disc', voxel: [0, 0, 1], box: [[0, 0, 1], [9, 9, 1]] },
  ];
  assert.deepEqual(pointsOf(points), {
    head: { foreground: [[1, 2, 0]], background: [[3, 4, 0]], boxes: [] },
    disc: { foreground: [[5, 6, 1]], background: [], boxes: [[[0, 0, 1], [9, 9, 1]]] },
  });
});

test('a label is signed with what is known', () => {
  assert.equal(signature({ by: '', time: '' }), 'by an unknown author');
  assert.match(signature({ by: 'Ada', time: '2026-11-30T21:03:00+00:00' }), /^by Ada, .*2026/);
});
