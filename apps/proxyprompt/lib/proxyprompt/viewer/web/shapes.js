/* Shapes that are drawn on an image, as places { column, row }. Nothing here touches the page. */

const TRIED = 32; // places across a shape

/* Two opposite corners around places. */
export function boundsOf(places) {
  const [columns, rows] = [places.map(place => place.column), places.map(place => place.row)];
  return [Math.min, Math.max].map(end => ({ ...places[0], column: end(...columns), row: end(...rows) }));
}

const crosses = (place, a, b) =>
  a.row > place.row !== b.row > place.row && place.column < ((b.column - a.column) * (place.row - a.row)) / (b.row - a.row) + a.column;

/* How far a place is from the line between two others. */
function away(place, a, b) {
  const [x, y] = [b.column - a.column, b.row - a.row];
  const along = ((place.column - a.column) * x + (place.row - a.row) * y) / (x * x + y * y || 1);
  const t = Math.min(1, Math.max(0, along));
  return Math.hypot(a.column + t * x - place.column, a.row + t * y - place.row);
}

/* The place inside a closed outline that is farthest from it. */
export function middleOf(outline) {
  const sides = outline.map((place, n) => [place, outline[(n + 1) % outline.length]]);
  const [low, high] = boundsOf(outline);
  let best = { column: (low.column + high.column) / 2, row: (low.row + high.row) / 2 };
  let most = -1;
  for (let i = 0; i < TRIED * TRIED; i++) {
    const column = low.column + ((high.column - low.column) * ((i % TRIED) + 0.5)) / TRIED;
    const row = low.row + ((high.row - low.row) * (Math.floor(i / TRIED) + 0.5)) / TRIED;
    const place = { column, row };
    const inside = sides.filter(([a, b]) => crosses(place, a, b)).length % 2;
    const distance = inside ? Math.min(...sides.map(([a, b]) => away(place, a, b))) : -1;
    [best, most] = distance > most ? [place, distance] : [best, most];
  }
  return best;
}
