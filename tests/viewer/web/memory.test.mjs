/* Drafts of label maps, raw volumes, sizes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.localStorage = { getItem: () => '{broken', setItem: () => { throw new Error('full'); } };
globalThis.window = {};
const web = new URL('../../../apps/proxyprompt/lib/proxyprompt/viewer/web/', import.meta.url);
const { options, packed, remember, unpacked } = await import(new URL('memory.js', web));
const { rawVoxels, reasonIn } = await import(new URL('api.js', web));
const { measure } = await import(new URL('labelmaps.js', web));

test('pixels come back as they were', () => {
  const pixels = Uint8Array.from([0, 0, 0, 2, 2, 1, 0]);
  assert.deepEqual(packed(pixels), [0, 3, 2, 2, 1, 1, 0, 1]);
  assert.deepEqual(unpacked(packed(pixels), 7), pixels);
  assert.deepEqual(unpacked([], 3), new Uint8Array(3));
});

test('options hold for the page where the browser keeps nothing', () => {
  assert.equal(options.agreement, true);
  remember({ agreement: false });
  assert.equal(options.agreement, false);
});

test('the voxels of an NRRD come after its header, whatever they are', () => {
  const header = new TextEncoder().encode('NRRD0004\ntype: uint8\n\n');
  assert.deepEqual([...rawVoxels(Uint8Array.from([...header, 10, 10, 7]))], [10, 10, 7]);
});

test('the server speaks for itself where it can', () => {
  assert.equal(reasonIn('{"detail": "the disk is full"}'), 'the disk is full');
  assert.equal(reasonIn('<html>'), '');
  assert.equal(reasonIn('{"detail": [1]}'), '');
});

test('sizes are in units that the series knows', () => {
  assert.equal(measure(100, null, 5), '100 px');
  assert.equal(measure(100, { row: 0.5, column: 0.5, between: 0 }, 1), '25.0 mm²');
  assert.equal(measure(10000, { row: 1, column: 1, between: 0 }, 1), '100.0 cm²');
  assert.equal(measure(10000, { row: 1, column: 1, between: 2 }, 5), '20.0 ml');
});
