// Draws samples of the generator in model.js with onnxruntime-web. Everything is in this folder: the page works offline,
// also when it is opened as a file. Arithmetic on z is that of the service's page, in latent.js.

"use strict";

/** Images of one run of the network: the page answers between runs. */
const BATCH = 8;
/** Width of the noise of similar images (figure 7 of the paper). */
const NOISE = 0.25;

const model = globalThis.MODEL;
const element = (id) => document.getElementById(id);
/**
 * The samples in the grid, `{z, pixels, button}`, and the ones that are selected: at most two, the older first. The z of
 * a conditional model is followed by its label vector.
 */
let samples = [];
let selected = [];
/** The sample in the large canvas. */
let large;
/** Counts draws: an older one stops when there is a newer one. */
let draws = 0;
/** What the images of the grid are called in the name of a file. */
let drawn = "";

const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

async function gunzip(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** Starts the runtime with one thread: more would need a server that isolates the page. */
async function start() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await gunzip(fromBase64(globalThis.WASM.binary));
  ort.env.wasm.wasmPaths = { mjs: `data:text/javascript;base64,${globalThis.WASM.module}` };
  return ort.InferenceSession.create(await gunzip(fromBase64(model.onnx)), { executionProviders: ["wasm"] });
}

/** A z of the model's distribution. */
function drawLatent(next) {
  const uniform = () => 2 * next() - 1;
  // Box-Muller; 1 - next() is never 0.
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return Float32Array.from({ length: model.z }, model.distribution === "normal" ? normal : uniform);
}

let session;
/** Runs of the network follow each other. */
let last = Promise.resolve();

/** A tensor of the values `from` to `from + size` of each row. */
function tensorOf(rows, from, size) {
  const values = new Float32Array(rows.length * size);
  rows.forEach((row, i) => values.set(row.slice(from, from + size), i * size));
  return new ort.Tensor("float32", values, [rows.length, size]);
}

/**
 * Draws the images of `latents`. Returns the pixels of each, (height, width, channels); undefined if they are no longer
 * wanted when their turn comes.
 */
function generate(latents, isWanted = () => true) {
  const run = async () => {
    if (!isWanted()) return undefined;
    const inputs = { z: tensorOf(latents, 0, model.z) };
    if (model.classes) inputs.labels = tensorOf(latents, model.z, model.classes);
    const { image } = await (await session).run(inputs);
    const size = model.height * model.width * model.channels;
    element("problem").hidden = true;
    return latents.map((_, i) => image.data.slice(i * size, (i + 1) * size));
  };
  const result = last.then(run);
  last = result.catch(() => {});
  return result;
}

/** Draws `pixels` at (x, y) of a canvas. */
function put(context, pixels, x = 0, y = 0) {
  const { width, height, channels } = model;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels === 1 ? 0 : c)];
    image.data[4 * i + 3] = channels === 4 ? pixels[i * channels + 3] : 255;
  }
  context.putImageData(image, x, y);
}

function makeCanvas(columns, rows) {
  const canvas = document.createElement("canvas");
  canvas.width = columns * model.width;
  canvas.height = rows * model.height;
  return canvas;
}

function save(canvas, name) {
  const link = document.createElement("a");
  link.href = canvas.toDataURL("image/png");
  link.download = name;
  link.click();
}

const className = (label) => model.classNames[label] ?? String(label);

/** The class with the largest weight in the label vector of `z`. */
function classOf(z) {
  const weights = z.slice(model.z);
  return className(weights.indexOf(Math.max(...weights)));
}

const say = (text) => {
  element("status").textContent = text;
};

function fail(error) {
  element("problem").hidden = false;
  element("problem").textContent = `The images cannot be drawn: ${error.message ?? error}`;
  say("");
}

/** Fills the grid with the images of `latents`. They can be saved, under `name`, once all are there. */
async function fill(latents, name) {
  const draw = ++draws;
  element("save").disabled = true;
  const started = performance.now();
  [samples, selected] = [[], []];
  element("grid").replaceChildren();
  show();
  for (let from = 0; from < latents.length; from += BATCH) {
    const part = latents.slice(from, from + BATCH);
    const all = await generate(part, () => draw === draws);
    if (draw !== draws) return;
    all.forEach((pixels, i) => add({ z: part[i], pixels }, from + i));
    say(`${samples.length} of ${latents.length} images`);
    await new Promise((resolve) => setTimeout(resolve));
  }
  drawn = name;
  element("save").disabled = false;
  say(`${latents.length} images in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

function add(sample, index) {
  const canvas = makeCanvas(1, 1);
  put(canvas.getContext("2d"), sample.pixels);
  sample.button = document.createElement("button");
  sample.button.type = "button";
  sample.button.append(canvas);
  const suffix = model.classes ? `, ${classOf(sample.z)}` : "";
  sample.button.setAttribute("aria-label", `Sample ${index + 1}${suffix}`);
  sample.button.setAttribute("aria-pressed", "false");
  if (model.classes) sample.button.title = classOf(sample.z);
  sample.button.addEventListener("click", () => select(sample));
  samples.push(sample);
  element("grid").append(sample.button);
}

function select(sample) {
  selected = selected.includes(sample) ? selected.filter((other) => other !== sample) : [...selected, sample].slice(-2);
  for (const other of samples) other.button.setAttribute("aria-pressed", String(selected.includes(other)));
  element("walk").value = "0";
  show();
}

/** Shows what is selected. */
async function show() {
  const [first, second] = selected;
  for (const id of ["large", "actions"]) element(id).hidden = !first;
  element("walk-row").hidden = !second;
  large = first;
  if (!first) return;
  if (second) {
    const t = Number(element("walk").value);
    const point = { z: walk([first.z, second.z], t, model.distribution, model.z) };
    large = point;
    // A later move of the slider has another point.
    const isWanted = () => large === point;
    const images = await generate([point.z], isWanted).catch((error) => void fail(error));
    if (!isWanted() || !images) return;
    [point.pixels] = images;
  }
  const canvas = element("large");
  const label = second ? `Between the two images, at ${element("walk").value}` : first.button.getAttribute("aria-label");
  canvas.setAttribute("aria-label", label);
  [canvas.width, canvas.height] = [model.width, model.height];
  put(canvas.getContext("2d"), large.pixels);
}

/** `z` with the label vector of the class that is chosen, or of all classes in turn. */
function withLabels(z, index) {
  if (!model.classes) return z;
  const chosen = element("class").value;
  const row = new Float32Array(model.z + model.classes);
  row.set(z);
  row[model.z + (chosen === "" ? index % model.classes : Number(chosen))] = 1;
  return row;
}

function draw() {
  const count = Number(element("count").value);
  const seed = Number(element("seed").value);
  const next = random(seed);
  const latents = Array.from({ length: count }, (_, i) => withLabels(drawLatent(next), i));
  return fill(latents, `seed-${seed}`).catch(fail);
}

/** Whether the numbers of the form are within their limits; if not, the browser says so. */
const isValid = () => element("options").reportValidity();

element("options").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
element("more").addEventListener("click", () => {
  if (!isValid()) return;
  element("seed").value = String((Number(element("seed").value) + 1) % 4294967296);
  draw();
});
element("size").addEventListener("input", (event) => {
  element("grid").style.setProperty("--size", `${event.target.value}px`);
});
element("walk").addEventListener("input", show);
element("save").addEventListener("click", () => {
  const columns = Math.ceil(Math.sqrt(samples.length));
  const canvas = makeCanvas(columns, Math.ceil(samples.length / columns));
  samples.forEach(({ pixels }, i) =>
    put(canvas.getContext("2d"), pixels, (i % columns) * model.width, Math.floor(i / columns) * model.height),
  );
  save(canvas, `${model.name}-${drawn}.png`);
});
element("save-large").addEventListener("click", () => save(element("large"), `${model.name}.png`));
element("similar").addEventListener("click", () => {
  if (!isValid()) return;
  const count = Number(element("count").value);
  const others = neighbours(large.z, count - 1, NOISE, Math.random() * 2 ** 32, model.z);
  fill([large.z, ...others], "similar").catch(fail);
});

element("name").textContent = document.title = model.name;
const kind = model.channels === 1 ? "grey" : "color";
element("about").textContent = `Draws ${kind} images of ${model.height} x ${model.width} with the generator of a DCGAN.`;
element("footer").textContent =
  `${model.license ? `License of the model: ${model.license}. ` : ""}Made with dcgan-rs ${model.version} and ` +
  `onnxruntime-web ${globalThis.WASM.version} (MIT license).`;
element("class-row").hidden = !model.classes;
for (let label = 0; label < model.classes; label++) {
  element("class").append(new Option(className(label), String(label)));
}
session = start();
session.then(draw, fail);
