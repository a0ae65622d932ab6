// The latent space of a model: samples by seed, a walk between picked ones, arithmetic with groups of them.

import { draw, get } from "./api.js";
import { fill, h, isStill, latest, notice, save, when } from "./dom.js";
import * as latent from "./latent.js";

const GAP = 2; // pixels between the images of a grid, and around them
const COUNT = 32;
const PIXELS = 16 << 20; // bytes of images of a grid
const WIDEST = 128; // pixels that a small image is shown wide
const STEPS = 9; // images of a walk's strip
const NEIGHBOURS = 8;
const NOISE = 0.25;
const GROUPS = { a: "A", b: "− B", c: "+ C" };

/** One image of a model. */
function tile(model, label) {
  const canvas = h("canvas", { width: model.width, height: model.height, class: "pixels", ...(label && { role: "img", "aria-label": label }) });
  canvas.style.width = `${Math.min(WIDEST, Math.max(model.width, 64))}px`;
  return canvas;
}

/** z as the body of a request: f32 need nine digits. */
const sent = (zs) => ({ z: zs.map((z) => Array.from(z, (value) => Number(value.toPrecision(9)))) });

/** Draws what is wished for and puts the images on the canvases; milliseconds from asking to seeing. */
async function paint(model, wish, canvases, signal) {
  const began = performance.now();
  const bitmap = await createImageBitmap(await draw(model.id, wish, signal));
  const columns = Math.ceil(Math.sqrt(canvases.length));
  canvases.forEach((canvas, i) => {
    const [x, y] = [i % columns, Math.floor(i / columns)];
    canvas.getContext("2d").drawImage(bitmap,
      GAP + x * (model.width + GAP), GAP + y * (model.height + GAP), model.width, model.height, 0, 0, model.width, model.height);
  });
  bitmap.close();
  return performance.now() - began;
}

/** Arrow keys move between buttons; one of them is in the order of Tab. */
function roving(list) {
  list.addEventListener("keydown", (event) => {
    const all = [...list.querySelectorAll("button")];
    const now = all.indexOf(document.activeElement);
    if (now < 0) return;
    const perRow = all.filter((button) => button.offsetTop === all[0].offsetTop).length;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, ArrowUp: now - perRow, ArrowDown: now + perRow, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
  list.addEventListener("focusin", (event) => {
    for (const button of list.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
}

class Explorer {
  constructor(model, signal) {
    Object.assign(this, { model, signal, seed: 1, place: 0, samples: [], mode: "walk", group: "a", groups: { walk: [], a: [], b: [], c: [] } });
    this.speed = h("span", { class: "muted" });
    this.problem = h("p", { class: "error", role: "alert" });
    this.grid = h("div", { class: "tiles", role: "group", "aria-label": "Samples" });
    roving(this.grid);
    this.input = h("input", { type: "number", min: 0, step: 1, value: 1, onchange: () => this.show(this.input.value === "" ? NaN : Number(this.input.value)) });
    this.work = h("div");
    this.modes = ["walk", "arithmetic"].map((mode) => h("button", {
      role: "tab", id: `tab-${mode}`, "aria-controls": "work", onclick: () => this.turn(mode),
      onkeydown: (event) => event.key.startsWith("Arrow") && this.turn(this.mode === "walk" ? "arithmetic" : "walk", true),
    }, mode === "walk" ? "Walk" : "Arithmetic"));
    this.element = [
      h("section", { class: "card", "aria-labeledby": "samples-title" },
        h("h2", { id: "samples-title" }, "Samples"),
        h("div", { class: "row" },
          h("label", { class: "inline" }, "Seed ", this.input),
          h("button", { class: "quiet", onclick: () => this.show(Math.max(0, this.seed - 1)) }, "Previous"),
          h("button", { class: "quiet", onclick: () => this.show(this.seed + 1) }, "Next"),
          this.speed),
        h("p", { class: "muted" }, "Pick samples for what stands below; picks stay when the seed changes."),
        this.problem, this.grid),
      h("section", { class: "card" },
        h("div", { role: "tablist", class: "row tabs", "aria-label": "What to do with picks" }, this.modes),
        h("div", { id: "work", role: "tabpanel", "aria-labeledby": "tab-walk" }, this.work)),
    ];
    this.slide = latest(async (t) => {
      const stops = this.groups.walk.map(({ z }) => z);
      if (stops.length < 2) return;
      const z = latent.walk(stops, t, this.model.latent.distribution);
      this.timing(await paint(this.model, sent([z]), [this.image], this.signal), 1);
    });
    this.load = latest((seed) => this.fetch(seed));
    this.strip = latest(({ zs, canvases }) => paint(this.model, sent(zs), canvases, this.signal));
    this.result = latest(async ({ zs, canvases }) => {
      this.timing(await paint(this.model, sent(zs), canvases, this.signal), zs.length);
    });
    signal.addEventListener("abort", () => cancelAnimationFrame(this.frame));
  }

  timing(ms, count) {
    this.speed.textContent = `${count === 1 ? "1 image" : `${count} images`} in ${Math.round(ms)} ms`;
    this.speed.dataset.ms = ms.toFixed(1);
  }

  show(seed) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      notice("A seed is a whole number from 0 to 9,007,199,254,740,991 here.", true);
      this.input.value = this.seed;
      return;
    }
    this.seed = seed;
    this.input.value = seed;
    this.load(seed);
  }

  async fetch(seed) {
    const { height, width, channels } = this.model;
    const wish = { seed, count: Math.max(1, Math.min(COUNT, Math.floor(PIXELS / (height * width * channels)))) };
    try {
      const zs = latent.read(await draw(this.model.id, { ...wish, format: "latents" }, this.signal));
      const samples = zs.map((z, i) => ({ z, name: `${seed}:${i}`, canvas: tile(this.model) }));
      const ms = await paint(this.model, wish, samples.map(({ canvas }) => canvas), this.signal);
      if (this.seed !== seed) return;
      this.samples = samples;
      this.timing(ms, zs.length);
      fill(this.problem);
    } catch (error) {
      if (error.name === "AbortError" || this.seed !== seed) return;
      this.samples = [];
      fill(this.problem, error.message);
    }
    fill(this.grid, this.samples.map((sample, i) => h("button", {
      class: "tile", "aria-label": `Sample ${sample.name}`, "data-name": sample.name, tabindex: i ? "-1" : "0", onclick: () => this.pick(sample),
    }, sample.canvas)));
    this.mark();
  }

  /** The group that a click changes. */
  get target() { return this.groups[this.mode === "walk" ? "walk" : this.group]; }

  pick(sample) {
    const place = this.target.findIndex(({ name }) => name === sample.name);
    if (place >= 0) this.target.splice(place, 1);
    else {
      const copy = tile(this.model);
      copy.getContext("2d").drawImage(sample.canvas, 0, 0);
      this.target.push({ ...sample, canvas: copy });
    }
    this.changed();
  }

  mark() {
    for (const button of this.grid.children) {
      button.setAttribute("aria-pressed", String(this.target.some(({ name }) => name === button.dataset.name)));
    }
  }

  turn(mode, withFocus = false) {
    this.mode = mode;
    if (withFocus) document.getElementById(`tab-${mode}`).focus();
    this.changed();
  }

  picks(group) {
    return h("div", { class: "tiles small", "data-group": group }, this.groups[group].map((sample) => h("button", {
      class: "tile", "aria-label": `Remove sample ${sample.name}`, title: `${sample.name}: remove`,
      onclick: () => {
        const place = this.groups[group].indexOf(sample);
        this.groups[group].splice(place, 1);
        this.changed();
        // The focus goes on to the next pick, or back to the samples.
        const left = this.work.querySelectorAll(`[data-group="${group}"] button`);
        (left[Math.min(place, left.length - 1)] ?? this.grid.querySelector('[tabindex="0"]'))?.focus();
      },
    }, sample.canvas)));
  }

  changed() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.modes.forEach((tab, i) => {
      const isHere = (i === 0) === (this.mode === "walk");
      tab.setAttribute("aria-selected", String(isHere));
      tab.tabIndex = isHere ? 0 : -1;
    });
    document.getElementById("work")?.setAttribute("aria-labeledby", `tab-${this.mode}`);
    this.mark();
    if (this.mode === "walk") this.walk();
    else this.sum();
  }

  saveButton(text, name, zs) {
    return h("button", { class: "quiet", onclick: () => save(name, latent.write(zs), "application/octet-stream") }, text);
  }

  walk() {
    const stops = this.groups.walk;
    if (stops.length < 2) {
      fill(this.work, h("p", { class: "muted" }, "Pick two samples or more: the walk goes through them in their order."), this.picks("walk"));
      return;
    }
    this.image = tile(this.model, "The image at this place of the walk");
    this.image.classList.add("large");
    const go = (t) => {
      this.place = t;
      slider.value = t;
      const leg = Math.min(stops.length - 2, Math.floor(t * (stops.length - 1)));
      const share = Math.round(100 * (t * (stops.length - 1) - leg));
      slider.setAttribute("aria-valuetext", `between ${stops[leg].name} and ${stops[leg + 1].name}, ${share} %`);
      this.slide(t);
    };
    const slider = h("input", { type: "range", min: 0, max: 1, step: 0.005, value: 0, "aria-label": "Place on the walk", oninput: () => go(Number(slider.value)) });
    const strip = Array.from({ length: STEPS }, () => tile(this.model));
    const along = (i) => latent.walk(stops.map(({ z }) => z), i / (STEPS - 1), this.model.latent.distribution);
    const zs = strip.map((_, i) => along(i));
    const play = h("button", { class: "quiet", onclick: () => this.play(go, play, stops.length) }, "Play");
    fill(this.work,
      this.picks("walk"),
      h("div", { class: "row grow" }, slider),
      h("div", { class: "row" }, play,
        this.saveButton("Save z of the picks", "picks.safetensors", stops.map(({ z }) => z)),
        this.saveButton("Save z of the steps", "walk.safetensors", zs)),
      h("div", { class: "frame" }, this.image),
      h("div", { class: "strip" }, strip.map((canvas, i) => h("button", {
        class: "tile", "aria-label": `Step ${i + 1} of ${STEPS}`, onclick: () => go(i / (STEPS - 1)),
      }, canvas))));
    go(this.place);
    this.strip({ zs, canvases: strip });
  }

  play(go, button, stops) {
    if (this.frame) {
      cancelAnimationFrame(this.frame);
      this.frame = null;
      fill(button, "Play");
      return;
    }
    fill(button, "Stop");
    const seconds = (isStill() ? 6 : 2) * (stops - 1);
    const began = performance.now() - (this.place % 1) * seconds * 1000;
    const step = (now) => {
      const t = Math.min(1, (now - began) / 1000 / seconds);
      go(t);
      if (t < 1) this.frame = requestAnimationFrame(step);
      else { this.frame = null; fill(button, "Play"); }
    };
    this.frame = requestAnimationFrame(step);
  }

  sum() {
    const zs = Object.fromEntries(Object.keys(GROUPS).map((name) => [name, this.groups[name].map(({ z }) => z)]));
    const filled = Object.keys(GROUPS).filter((name) => zs[name].length);
    const means = Object.fromEntries(filled.map((name) => [name, tile(this.model, `Image of the mean of ${GROUPS[name]}`)]));
    const parts = Object.entries(GROUPS).map(([name, label]) => h("fieldset", { class: "group" },
      h("legend", {}, h("label", {}, h("input", {
        type: "radio", name: "group", value: name, checked: this.group === name, onchange: () => { this.group = name; this.mark(); },
      }), ` ${label}`)),
      this.picks(name),
      h("div", {}, h("small", { class: "muted" }, means[name] ? `mean of ${zs[name].length}` : "nothing picked"), means[name])));
    const about = h("p", { class: "muted" }, "Choose a group, then pick samples into it. The result is the mean of A, less that of B, plus that of C.");
    if (!filled.length) {
      fill(this.work, about, h("div", { class: "groups" }, parts));
      return;
    }
    const center = latent.arithmetic(zs);
    const near = latent.around(center, NEIGHBOURS, NOISE, 1);
    // The result stands in the middle of its neighbours, as in the paper's figure 7.
    const all = [...near.slice(0, NEIGHBOURS / 2), center, ...near.slice(NEIGHBOURS / 2)];
    const cells = all.map((z) => tile(this.model, z === center ? "Result" : "Neighbour of the result"));
    fill(this.work,
      about, h("div", { class: "groups" }, parts),
      h("h3", {}, "Result, and eight neighbours (noise ±0.25)"),
      h("div", { class: "nine" }, cells),
      h("div", { class: "row" }, this.saveButton("Save z of the result and its neighbours", "arithmetic.safetensors", [center, ...near])));
    this.result({
      zs: [...all, ...filled.map((name) => latent.mean(zs[name]))],
      canvases: [...cells, ...filled.map((name) => means[name])],
    });
  }
}

export async function show([id], signal) {
  const { models } = await get("/v1/models", signal);
  if (!models.length) {
    return [h("h1", {}, "Explore"), h("p", {}, "No models yet: a job's first checkpoint makes one, and the folders under ", h("code", {}, "--model-root"), " are listed here.")];
  }
  const name = ({ id, name, height, width, source }) => (source === "job" ? `job of ${when(parseInt(id, 16) / 1000)} (${name}, ${height}x${width})` : `${id} (${name}, ${height}x${width})`);
  const select = h("select", { onchange: () => { location.hash = `#/explore/${encodeURIComponent(select.value)}`; } },
    models.map((other) => h("option", { value: other.id, selected: other.id === id }, name(other))));
  const head = h("div", { class: "head" }, h("h1", {}, "Explore"), h("label", { class: "inline" }, "Model ", select));
  const model = id ? models.find((model) => model.id === id) : models[0];
  if (!model) {
    select.selectedIndex = -1;
    return [head, h("p", { class: "error" }, `There is no model ${id}: choose another one.`)];
  }
  const explorer = new Explorer(model, signal);
  explorer.changed();
  explorer.show(1);
  return [head, explorer.element];
}
