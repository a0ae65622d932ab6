// Arithmetic on latent vectors, and z files as dcgan-explore reads them. A z is a Float32Array.

export const mean = (all) => Float32Array.from(all[0], (_, i) => all.reduce((sum, z) => sum + z[i], 0) / all.length);

/** Straight from `a` to `b`: for z drawn from a uniform distribution, as in the paper. */
export const linear = (a, b, t) => Float32Array.from(a, (value, i) => (1 - t) * value + t * b[i]);

/** Along the great circle, as `dcgan-explore interpolate` goes: for normal z, which lie near a sphere that straight lines cut. */
export function spherical(a, b, t) {
  const norm = (z) => Math.hypot(...z);
  const cosine = a.reduce((sum, value, i) => sum + value * b[i], 0) / (norm(a) * norm(b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (t === 0 || t === 1 || !(Math.sin(angle) > 1e-6)) return linear(a, b, t);
  const [u, v] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
  return Float32Array.from(a, (value, i) => u * value + v * b[i]);
}

/** The point at `t`, 0 to 1, of a walk through `stops`, each leg as long as the others. */
export function walk(stops, t, distribution) {
  if (stops.length === 1) return stops[0];
  const place = Math.min(1, Math.max(0, t)) * (stops.length - 1);
  const leg = Math.min(stops.length - 2, Math.floor(place));
  const between = distribution === "normal" ? spherical : linear;
  return between(stops[leg], stops[leg + 1], place - leg);
}

/** mean(A) - mean(B) + mean(C); groups that are empty are left out. */
export function arithmetic({ a, b, c }) {
  const size = (a[0] ?? b[0] ?? c[0]).length;
  const z = new Float32Array(size);
  for (const [group, sign] of [[a, 1], [b, -1], [c, 1]]) {
    if (!group.length) continue;
    const center = mean(group);
    for (let i = 0; i < size; i++) z[i] += sign * center[i];
  }
  return z;
}

/** Random numbers in [0, 1) by seed (mulberry32), so that an image can be found again. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` z around `z`, with uniform noise of +-`width` on each number (the paper's figure 7: 0.25). */
export function around(z, count, width, seed) {
  const next = random(seed);
  return Array.from({ length: count }, () => Float32Array.from(z, (value) => value + width * (2 * next() - 1)));
}

/** The rows of the tensor `z` (n, z) of a safetensors file. */
export function read(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { shape: [rows, size], data_offsets: [begin, end] } = header.z;
  const all = new Float32Array(buffer.slice(8 + length + begin, 8 + length + end));
  return Array.from({ length: rows }, (_, i) => all.slice(i * size, (i + 1) * size));
}

/** A safetensors file of z, for `dcgan-explore … --z FILE`. */
export function write(rows) {
  const size = rows[0].length;
  const bytes = rows.length * size * 4;
  let header = JSON.stringify({ z: { dtype: "F32", shape: [rows.length, size], data_offsets: [0, bytes] } });
  header = header.padEnd(Math.ceil(header.length / 8) * 8, " ");
  const buffer = new ArrayBuffer(8 + header.length + bytes);
  new DataView(buffer).setBigUint64(0, BigInt(header.length), true);
  new Uint8Array(buffer, 8, header.length).set(new TextEncoder().encode(header));
  rows.forEach((row, i) => new Uint8Array(buffer, 8 + header.length + i * size * 4, size * 4).set(new Uint8Array(row.buffer, row.byteOffset, size * 4)));
  return buffer;
}
