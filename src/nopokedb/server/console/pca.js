// The two directions in which vectors differ most: principal components by power iteration, without making a matrix of
// all dimensions. Good enough to look at; the share of the variance says how much of it one sees. The picture is that of
// insight/projection.py, which a test holds against it: vectors of length 1 under cosine, the same centre, axes and signs.
const ROUNDS = 40;

export const project = (raw, space) => {
  const prepared = (vector) => (space === "cosine" ? unit(vector) : vector);
  const vectors = raw.map(prepared);
  const n = vectors.length;
  const dim = n ? vectors[0].length : 0;
  const mean = new Float64Array(dim);
  for (const vector of vectors) for (let i = 0; i < dim; i += 1) mean[i] += vector[i] / n;
  const rows = vectors.map((vector) => Float64Array.from(vector, (value, i) => value - mean[i]));
  const total = rows.reduce((sum, row) => sum + dot(row, row), 0) || 1;
  const axes = [];
  for (let axis = 0; axis < 2; axis += 1) axes.push(strongest(rows, dim, axes));
  const points = rows.map((row) => axes.map((axis) => dot(row, axis)));
  const shares = axes.map((_, axis) => points.reduce((sum, point) => sum + point[axis] ** 2, 0) / total);
  return { points, shares, at: (vector) => axes.map((axis) => dot(Float64Array.from(prepared(vector), (value, i) => value - mean[i]), axis)) };
};

const unit = (vector) => {
  const wide = Float64Array.from(vector);
  const length = Math.sqrt(dot(wide, wide)) || 1;
  return wide.map((value) => value / length);
};

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
};

const strongest = (rows, dim, others) => {
  // A fixed start: the same sample gives the same picture.
  let axis = Float64Array.from({ length: dim }, (_, i) => Math.sin(i + 1 + 7 * others.length));
  for (let round = 0; round < ROUNDS; round += 1) {
    const next = new Float64Array(dim);
    for (const row of rows) {
      const weight = dot(row, axis);
      for (let i = 0; i < dim; i += 1) next[i] += weight * row[i];
    }
    for (const other of others) {
      const part = dot(next, other);
      for (let i = 0; i < dim; i += 1) next[i] -= part * other[i];
    }
    const length = Math.sqrt(dot(next, next));
    if (length < 1e-30) break;
    axis = next.map((value) => value / length);
  }
  // Of the two signs the one with which the largest component is positive.
  const largest = axis.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
  const length = Math.sqrt(dot(axis, axis)) * (largest < 0 ? -1 : 1) || 1;
  return axis.map((value) => value / length);
};
