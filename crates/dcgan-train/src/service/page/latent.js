// Arithmetic on latent vectors, and z files in the format of dcgan-explore. A z is a Float32Array.

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

/** The point at `t`, 0 to 1, of a walk through `stops` with segments of equal length. */
export function walk(stops, t, distribution) {
  if (stops.length === 1) return stops[0];
  const position = Math.min(1, Math.max(0, t)) * (stops.length - 1);
  const segment = Math.min(stops.length - 2, Math.floor(position));
  const interpolate = distribution === "normal" ? spherical : linear;
  return interpolate(stops[segment], stops[segment + 1], position - segment);
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

/** `count` neighbours of `z`: uniform noise in [-width, width] added to each component (figure 7 of the paper: 0.25). */
export function neighbours(z, count, width, seed) {
  const next = random(seed);
  return Array.from({ length: count }, () => Float32Array.from(z, (value) => value + width * (2 * next() - 1)));
}

/** Parses the rows of the tensor `z` (n, z) of a safetensors file. */
export function parseSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const {
    shape: [rows, size],
    data_offsets: [begin, end],
  } = header.z;
  const values = new Float32Array(buffer.slice(8 + length + begin, 8 + length + end));
  return Array.from({ length: rows }, (_, i) => values.slice(i * size, (i + 1) * size));
}

/** A safetensors file with the tensor `z` (n, z), for `dcgan-explore ... --z FILE`. */
export function toSafetensors(rows) {
  const size = rows[0].length;
  const bytes = rows.length * size * 4;
  let header = JSON.stringify({ z: { dtype: "F32", shape: [rows.length, size], data_offsets: [0, bytes] } });
  header = header.padEnd(Math.ceil(header.length / 8) * 8, " ");
  const buffer = new ArrayBuffer(8 + header.length + bytes);
  new DataView(buffer).setBigUint64(0, BigInt(header.length), true);
  new Uint8Array(buffer, 8, header.length).set(new TextEncoder().encode(header));
  rows.forEach((row, i) =>
    new Uint8Array(buffer, 8 + header.length + i * size * 4, size * 4).set(
      new Uint8Array(row.buffer, row.byteOffset, size * 4),
    ),
  );
  return buffer;
}
