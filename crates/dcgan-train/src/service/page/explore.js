// View #/explore: samples by seed, a walk between selected samples, and arithmetic on groups of them.

import { drawSamples, get } from "./api.js";
import { download, fill, formatTime, h, latestOnly, prefersReducedMotion, showNotice } from "./dom.js";
import * as latent from "./latent.js";

const GAP = 2; // pixels between the images of a grid, and around them; one image alone has no frame
const COUNT = 32; // samples of a seed
const MAX_BYTES = 16 << 20; // bytes of the images of a grid
const MAX_WIDTH = 128; // display width of an image in CSS pixels
const STEPS = 9; // images in the strip of a walk
const NEIGHBOURS = 8;
const NOISE = 0.25;
const GROUPS = { a: "A", b: "− B", c: "+ C" };

/** A canvas for one image of a model. */
function createTile(model, label) {
  const canvas = h("canvas", {
    width: model.width,
    height: model.height,
    class: "pixels",
    ...(label && { role: "img", "aria-label": label }),
  });
  canvas.style.width = `${Math.min(MAX_WIDTH, Math.max(model.width, 64))}px`;
  return canvas;
}

/** z, and the label vector after it, as the body of a draw request; nine digits represent a float32 exactly. */
function latentsBody(model, zs) {
  const { size } = model.latent;
  const rows = zs.map((z) => Array.from(z, (value) => Number(value.toPrecision(9))));
  const z = rows.map((row) => row.slice(0, size));
  return model.classes ? { z, labels: rows.map((row) => row.slice(size)) } : { z };
}

/** Sends a draw request and draws the images on the canvases; returns the latency in milliseconds. */
async function render(model, options, canvases, signal) {
  const started = performance.now();
  const bitmap = await createImageBitmap(await drawSamples(model.id, options, signal));
  const columns = Math.ceil(Math.sqrt(canvases.length));
  const gap = canvases.length === 1 ? 0 : GAP;
  canvases.forEach((canvas, i) => {
    const [x, y] = [i % columns, Math.floor(i / columns)];
    canvas
      .getContext("2d")
      .drawImage(
        bitmap,
        gap + x * (model.width + gap),
        gap + y * (model.height + gap),
        model.width,
        model.height,
        0,
        0,
        model.width,
        model.height,
      );
  });
  bitmap.close();
  return performance.now() - started;
}

/** Roving tabindex: arrow keys move between the buttons of a list, Tab reaches one of them. */
function useRovingFocus(list) {
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const current = buttons.indexOf(document.activeElement);
    if (current < 0) return;
    const columns = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
    const target = {
      ArrowLeft: current - 1,
      ArrowRight: current + 1,
      ArrowUp: current - columns,
      ArrowDown: current + columns,
      Home: 0,
      End: buttons.length - 1,
    }[event.key];
    if (target === undefined || !buttons[target]) return;
    event.preventDefault();
    buttons[target].focus();
  });
  list.addEventListener("focusin", (event) => {
    for (const button of list.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
}

class Explorer {
  constructor(model, signal) {
    Object.assign(this, {
      model,
      signal,
      seed: 1,
      position: 0,
      samples: [],
      mode: "walk",
      group: "a",
      groups: { walk: [], a: [], b: [], c: [] },
    });
    this.latency = h("span", { class: "muted" });
    this.error = h("p", { class: "error", role: "alert" });
    this.grid = h("div", { class: "tiles", role: "group", "aria-label": "Samples" });
    useRovingFocus(this.grid);
    this.seedInput = h("input", {
      type: "number",
      min: 0,
      step: 1,
      value: 1,
      onchange: () => this.showSeed(this.seedInput.value === "" ? NaN : Number(this.seedInput.value)),
    });
    const classes = Array.from({ length: model.classes }, (_, i) => model.class_names[i] ?? String(i));
    this.classSelect = h(
      "select",
      { onchange: () => this.renderSamples(this.seed) },
      h("option", { value: "" }, "all, in turn"),
      classes.map((name, i) => h("option", { value: i }, name)),
    );
    this.panel = h("div");
    this.tabs = ["walk", "arithmetic"].map((mode) =>
      h(
        "button",
        {
          role: "tab",
          id: `tab-${mode}`,
          "aria-controls": "panel",
          onclick: () => this.selectMode(mode),
          onkeydown: (event) =>
            event.key.startsWith("Arrow") && this.selectMode(this.mode === "walk" ? "arithmetic" : "walk", true),
        },
        mode === "walk" ? "Walk" : "Arithmetic",
      ),
    );
    this.element = [
      h(
        "section",
        { class: "card", "aria-labelledby": "samples-title" },
        h("h2", { id: "samples-title" }, "Samples"),
        h(
          "div",
          { class: "row" },
          h("label", { class: "inline" }, "Seed ", this.seedInput),
          h("button", { class: "quiet", onclick: () => this.showSeed(Math.max(0, this.seed - 1)) }, "Previous"),
          h("button", { class: "quiet", onclick: () => this.showSeed(this.seed + 1) }, "Next"),
          model.classes ? h("label", { class: "inline" }, "Class ", this.classSelect) : null,
          this.latency,
        ),
        h("p", { class: "muted" }, "Select samples to use below. The selection is kept when the seed changes."),
        this.error,
        this.grid,
      ),
      h(
        "section",
        { class: "card" },
        h("div", { role: "tablist", class: "row tabs", "aria-label": "Use of the selected samples" }, this.tabs),
        h("div", { id: "panel", role: "tabpanel", "aria-labelledby": "tab-walk" }, this.panel),
      ),
    ];
    this.renderPosition = latestOnly(async (t) => {
      const stops = this.groups.walk.map(({ z }) => z);
      if (stops.length < 2) return;
      const z = latent.walk(stops, t, this.model.latent.distribution, this.model.latent.size);
      this.showLatency(await render(this.model, latentsBody(this.model, [z]), [this.image], this.signal), 1);
    });
    this.renderSamples = latestOnly((seed) => this.loadSamples(seed));
    this.renderStrip = latestOnly(({ zs, canvases }) => render(this.model, latentsBody(this.model, zs), canvases, this.signal));
    this.renderResult = latestOnly(async ({ zs, canvases }) => {
      this.showLatency(await render(this.model, latentsBody(this.model, zs), canvases, this.signal), zs.length);
    });
    signal.addEventListener("abort", () => cancelAnimationFrame(this.frame));
  }

  showLatency(ms, count) {
    this.latency.textContent = `${count === 1 ? "1 image" : `${count} images`} in ${Math.round(ms)} ms`;
    this.latency.dataset.ms = ms.toFixed(1);
  }

  showSeed(seed) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      showNotice("Invalid seed: expected a whole number from 0 to 9,007,199,254,740,991.", true);
      this.seedInput.value = this.seed;
      return;
    }
    this.seed = seed;
    this.seedInput.value = seed;
    this.renderSamples(seed);
  }

  async loadSamples(seed) {
    const { height, width, channels } = this.model;
    const chosen = this.classSelect.value;
    const options = {
      seed,
      ...(chosen && { labels: [Number(chosen)] }),
      count: Math.max(1, Math.min(COUNT, Math.floor(MAX_BYTES / (height * width * channels)))),
    };
    try {
      const zs = latent.parseSafetensors(
        await drawSamples(this.model.id, { ...options, format: "latents" }, this.signal),
      );
      const suffix = chosen && `@${this.model.class_names[chosen] ?? chosen}`;
      const samples = zs.map((z, i) => ({ z, name: `${seed}:${i}${suffix}`, canvas: createTile(this.model) }));
      const ms = await render(
        this.model,
        options,
        samples.map(({ canvas }) => canvas),
        this.signal,
      );
      if (this.seed !== seed || this.classSelect.value !== chosen) return;
      this.samples = samples;
      this.showLatency(ms, zs.length);
      fill(this.error);
    } catch (error) {
      if (error.name === "AbortError" || this.seed !== seed || this.classSelect.value !== chosen) return;
      this.samples = [];
      fill(this.error, error.message);
    }
    fill(
      this.grid,
      this.samples.map((sample, i) =>
        h(
          "button",
          {
            class: "tile",
            "aria-label": `Sample ${sample.name}`,
            "data-name": sample.name,
            tabindex: i ? "-1" : "0",
            onclick: () => this.toggle(sample),
          },
          sample.canvas,
        ),
      ),
    );
    this.updatePressed();
  }

  /** The group that a click on a sample changes. */
  get target() {
    return this.groups[this.mode === "walk" ? "walk" : this.group];
  }

  toggle(sample) {
    const index = this.target.findIndex(({ name }) => name === sample.name);
    if (index >= 0) this.target.splice(index, 1);
    else {
      const copy = createTile(this.model);
      copy.getContext("2d").drawImage(sample.canvas, 0, 0);
      this.target.push({ ...sample, canvas: copy });
    }
    this.update();
  }

  updatePressed() {
    for (const button of this.grid.children) {
      button.setAttribute("aria-pressed", String(this.target.some(({ name }) => name === button.dataset.name)));
    }
  }

  selectMode(mode, withFocus = false) {
    this.mode = mode;
    if (withFocus) document.getElementById(`tab-${mode}`).focus();
    this.update();
  }

  selection(group) {
    return h(
      "div",
      { class: "tiles small", "data-group": group },
      this.groups[group].map((sample) =>
        h(
          "button",
          {
            class: "tile",
            "aria-label": `Remove sample ${sample.name}`,
            title: `${sample.name}: remove`,
            onclick: () => {
              const index = this.groups[group].indexOf(sample);
              this.groups[group].splice(index, 1);
              this.update();
              // The focus moves to the next selected sample, or back to the grid.
              const rest = this.panel.querySelectorAll(`[data-group="${group}"] button`);
              (rest[Math.min(index, rest.length - 1)] ?? this.grid.querySelector('[tabindex="0"]'))?.focus();
            },
          },
          sample.canvas,
        ),
      ),
    );
  }

  update() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.tabs.forEach((tab, i) => {
      const isSelected = (i === 0) === (this.mode === "walk");
      tab.setAttribute("aria-selected", String(isSelected));
      tab.tabIndex = isSelected ? 0 : -1;
    });
    document.getElementById("panel")?.setAttribute("aria-labelledby", `tab-${this.mode}`);
    this.updatePressed();
    if (this.mode === "walk") this.showWalk();
    else this.showArithmetic();
  }

  saveButton(text, name, zs) {
    return h(
      "button",
      { class: "quiet", onclick: () => download(name, latent.toSafetensors(zs, this.model.latent.size), "application/octet-stream") },
      text,
    );
  }

  showWalk() {
    const stops = this.groups.walk;
    if (stops.length < 2) {
      fill(
        this.panel,
        h("p", { class: "muted" }, "Select two or more samples: the walk visits them in this order."),
        this.selection("walk"),
      );
      return;
    }
    this.image = createTile(this.model, "Image at this position of the walk");
    this.image.classList.add("large");
    const moveTo = (t) => {
      this.position = t;
      slider.value = t;
      const segment = Math.min(stops.length - 2, Math.floor(t * (stops.length - 1)));
      const percent = Math.round(100 * (t * (stops.length - 1) - segment));
      slider.setAttribute(
        "aria-valuetext",
        `between ${stops[segment].name} and ${stops[segment + 1].name}, ${percent} %`,
      );
      this.renderPosition(t);
    };
    const slider = h("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.005,
      value: 0,
      "aria-label": "Position on the walk",
      oninput: () => moveTo(Number(slider.value)),
    });
    const strip = Array.from({ length: STEPS }, () => createTile(this.model));
    const zAtStep = (i) =>
      latent.walk(
        stops.map(({ z }) => z),
        i / (STEPS - 1),
        this.model.latent.distribution,
        this.model.latent.size,
      );
    const zs = strip.map((_, i) => zAtStep(i));
    const play = h("button", { class: "quiet", onclick: () => this.play(moveTo, play, stops.length) }, "Play");
    fill(
      this.panel,
      this.selection("walk"),
      h("div", { class: "row grow" }, slider),
      h(
        "div",
        { class: "row" },
        play,
        this.saveButton(
          "Save z of the selection",
          "selection.safetensors",
          stops.map(({ z }) => z),
        ),
        this.saveButton("Save z of the steps", "walk.safetensors", zs),
      ),
      h("div", { class: "frame" }, this.image),
      h(
        "div",
        { class: "strip" },
        strip.map((canvas, i) =>
          h(
            "button",
            { class: "tile", "aria-label": `Step ${i + 1} of ${STEPS}`, onclick: () => moveTo(i / (STEPS - 1)) },
            canvas,
          ),
        ),
      ),
    );
    moveTo(this.position);
    this.renderStrip({ zs, canvases: strip });
  }

  play(moveTo, button, stops) {
    if (this.frame) {
      cancelAnimationFrame(this.frame);
      this.frame = null;
      fill(button, "Play");
      return;
    }
    fill(button, "Stop");
    const seconds = (prefersReducedMotion() ? 6 : 2) * (stops - 1);
    const started = performance.now() - (this.position % 1) * seconds * 1000;
    const step = (now) => {
      const t = Math.min(1, (now - started) / 1000 / seconds);
      moveTo(t);
      if (t < 1) this.frame = requestAnimationFrame(step);
      else {
        this.frame = null;
        fill(button, "Play");
      }
    };
    this.frame = requestAnimationFrame(step);
  }

  showArithmetic() {
    const zs = Object.fromEntries(Object.keys(GROUPS).map((name) => [name, this.groups[name].map(({ z }) => z)]));
    const nonEmpty = Object.keys(GROUPS).filter((name) => zs[name].length);
    const means = Object.fromEntries(
      nonEmpty.map((name) => [name, createTile(this.model, `Image of the mean of ${GROUPS[name]}`)]),
    );
    const groups = Object.entries(GROUPS).map(([name, label]) =>
      h(
        "fieldset",
        { class: "group" },
        h(
          "legend",
          {},
          h(
            "label",
            {},
            h("input", {
              type: "radio",
              name: "group",
              value: name,
              checked: this.group === name,
              onchange: () => {
                this.group = name;
                this.updatePressed();
              },
            }),
            ` ${label}`,
          ),
        ),
        this.selection(name),
        h(
          "div",
          {},
          h("small", { class: "muted" }, means[name] ? `mean of ${zs[name].length}` : "no samples"),
          means[name],
        ),
      ),
    );
    const help = h(
      "p",
      { class: "muted" },
      "Choose a group, then add samples to it. The result is mean(A) − mean(B) + mean(C).",
    );
    if (!nonEmpty.length) {
      fill(this.panel, help, h("div", { class: "groups" }, groups));
      return;
    }
    const center = latent.arithmetic(zs);
    const neighbours = latent.neighbours(center, NEIGHBOURS, NOISE, 1, this.model.latent.size);
    // The result is in the center of its neighbours, as in figure 7 of the paper.
    const zsOfGrid = [...neighbours.slice(0, NEIGHBOURS / 2), center, ...neighbours.slice(NEIGHBOURS / 2)];
    const cells = zsOfGrid.map((z) => createTile(this.model, z === center ? "Result" : "Neighbour of the result"));
    fill(
      this.panel,
      help,
      h("div", { class: "groups" }, groups),
      h("h3", {}, "Result and eight neighbours (noise ±0.25)"),
      h("div", { class: "result-grid" }, cells),
      h(
        "div",
        { class: "row" },
        this.saveButton("Save z of the result and its neighbours", "arithmetic.safetensors", [center, ...neighbours]),
      ),
    );
    this.renderResult({
      zs: [...zsOfGrid, ...nonEmpty.map((name) => latent.mean(zs[name]))],
      canvases: [...cells, ...nonEmpty.map((name) => means[name])],
    });
  }
}

export async function show([id], signal) {
  const { models } = await get("/v1/models", signal);
  if (!models.length) {
    return [
      h("h1", {}, "Explore"),
      h(
        "p",
        {},
        "No models yet. Jobs are listed here after their first checkpoint, and so are the model folders below ",
        h("code", {}, "--model-root"),
        ".",
      ),
    ];
  }
  const optionLabel = ({ id, name, height, width, source, job_name, created }) =>
    source === "job"
      ? `${job_name}, ${formatTime(created)} (${name}, ${height}x${width})`
      : `${id} (${name}, ${height}x${width})`;
  const select = h(
    "select",
    {
      onchange: () => {
        location.hash = `#/explore/${encodeURIComponent(select.value)}`;
      },
    },
    models.map((other) => h("option", { value: other.id, selected: other.id === id }, optionLabel(other))),
  );
  const head = h("div", { class: "head" }, h("h1", {}, "Explore"), h("label", { class: "inline" }, "Model ", select));
  const model = id ? models.find((model) => model.id === id) : models[0];
  if (!model) {
    select.selectedIndex = -1;
    return [head, h("p", { class: "error" }, `No such model: ${id}. Choose another one.`)];
  }
  const explorer = new Explorer(model, signal);
  explorer.update();
  explorer.showSeed(1);
  return [head, explorer.element];
}
