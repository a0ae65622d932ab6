// Arithmetic on latent vectors, and z files in the format of dcgan-explore. A z is a Float32Array; that of a conditional
// model is followed by its label vector, so that means, sums and walks work on both.

/** The mean of several z. */
export const mean = (all) => Float32Array.from(all[0], (_, i) => all.reduce((sum, z) => sum + z[i], 0) / all.length);

/** Linear interpolation from `a` to `b`: for uniform z, as in the paper. */
export const linear = (a, b, t) => Float32Array.from(a, (value, i) => (1 - t) * value + t * b[i]);

/** Spherical interpolation, as in `dcgan-explore interpolate`: for normal z, which concentrate near a sphere. */
export function spherical(a, b, t) {
  const norm = (z) => Math.hypot(...z);
  const cosine = a.reduce((sum, value, i) => sum + value * b[i], 0) / (norm(a) * norm(b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (t === 0 || t === 1 || !(Math.sin(angle) > 1e-6)) return linear(a, b, t);
  const [u, v] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
  return Float32Array.from(a, (value, i) => u * value + v * b[i]);
}

/**
 * The point at `t`, 0 to 1, of a walk through `stops` with segments of equal length. z of `size` values may be on a sphere;
 * the label vectors after them are always on a line.
 */
export function walk(stops, t, distribution, size) {
  if (stops.length === 1) return stops[0];
  const position = Math.min(1, Math.max(0, t)) * (stops.length - 1);
  const segment = Math.min(stops.length - 2, Math.floor(position));
  const interpolate = distribution === "normal" ? spherical : linear;
  const [from, to, at] = [stops[segment], stops[segment + 1], position - segment];
  const point = linear(from, to, at);
  point.set(interpolate(from.subarray(0, size), to.subarray(0, size), at));
  return point;
}

/** mean(A) - mean(B) + mean(C); empty groups are skipped. */
export function arithmetic({ a, b, c }) {
  const size = (a[0] ?? b[0] ?? c[0]).length;
  const z = new Float32Array(size);
  for (const [group, sign] of [
    [a, 1],
    [b, -1],
    [c, 1],
  ]) {
    if (!group.length) continue;
    const center = mean(group);
    for (let i = 0; i < size; i++) z[i] += sign * center[i];
  }
  return z;
}

/** A seeded generator of random numbers in [0, 1) (mulberry32), for reproducible images. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * `count` neighbours of `z`: uniform noise in [-width, width] added to each of its `size` values (figure 7 of the paper:
 * 0.25), none to label vectors.
 */
export function neighbours(z, count, width, seed, size) {
  const next = random(seed);
  const noisy = (value, i) => (i < size ? value + width * (2 * next() - 1) : value);
  return Array.from({ length: count }, () => Float32Array.from(z, noisy));
}

/** A z followed by its label vector, which may be missing. */
const join = (z, label) => Float32Array.from([...z, ...(label ?? [])]);

/** Parses the rows of the tensor `z` (n, z) of a safetensors file, with those of `labels` (n, classes) if it has them. */
export function parseSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const rowsOf = ({ shape: [rows, size], data_offsets: [begin, end] }) => {
    const values = new Float32Array(buffer.slice(8 + length + begin, 8 + length + end));
    return Array.from({ length: rows }, (_, i) => values.slice(i * size, (i + 1) * size));
  };
  const labels = header.labels ? rowsOf(header.labels) : [];
  return rowsOf(header.z).map((z, i) => join(z, labels[i]));
}

/**
 * A safetensors file with the tensor `z` (n, size), and `labels` (n, classes) of the values after it, for
 * `dcgan-explore ... --z FILE`.
 */
export function toSafetensors(rows, size) {
  const tensors = { z: rows.map((row) => row.slice(0, size)), labels: rows.map((row) => row.slice(size)) };
  if (!tensors.labels[0].length) delete tensors.labels;
  let end = 0;
  const describe = ([name, values]) => {
    const shape = [values.length, values[0].length];
    const begin = end;
    end += 4 * shape[0] * shape[1];
    return [name, { dtype: "F32", shape, data_offsets: [begin, end] }];
  };
  let header = JSON.stringify(Object.fromEntries(Object.entries(tensors).map(describe)));
  header = header.padEnd(Math.ceil(header.length / 8) * 8, " ");
  const buffer = new ArrayBuffer(8 + header.length + end);
  new DataView(buffer).setBigUint64(0, BigInt(header.length), true);
  new Uint8Array(buffer, 8, header.length).set(new TextEncoder().encode(header));
  const values = new Float32Array(buffer, 8 + header.length);
  values.set(
    Object.values(tensors)
      .flat()
      .flatMap((row) => Array.from(row)),
  );
  return buffer;
}
