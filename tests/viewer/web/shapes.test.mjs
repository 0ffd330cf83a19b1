/* The shapes that are drawn on an image. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { boundsOf, middleOf } from '../../../apps/proxyprompt/lib/proxyprompt/viewer/web/shapes.js';

const at = (column, row) => ({ column, row });

test('the bounds are two opposite corners', () => {
  assert.deepEqual(boundsOf([at(5, 9), at(2, 3), at(7, 4)]), [at(2, 3), at(7, 9)]);
});

test('the middle of a crescent lies in it, not between its horns', () => {
  const arc = radius => Array.from({ length: 40 }, (_, n) => at(radius * Math.cos((n / 39) * Math.PI), radius * Math.sin((n / 39) * Math.PI)));
  const { column, row } = middleOf([...arc(30), ...arc(20).reverse()]);
  const distance = Math.hypot(column, row);
  assert.ok(row > 0 && distance > 22 && distance < 28, `${column} ${row}`);
});

test('the middle of a square is its centre', () => {
  const { column, row } = middleOf([at(0, 0), at(0, 10), at(10, 10), at(10, 0)]);
  assert.ok(Math.hypot(column - 5, row - 5) < 0.5);
});
