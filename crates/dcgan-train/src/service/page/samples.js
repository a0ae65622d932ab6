// Sample grids of a job with a slider through its training.

import { get, image } from "./api.js";
import { fill, h, isStill, latest, whole } from "./dom.js";

const FRAME = 250; // ms of an image while playing
const KEPT = 60; // images kept in memory

export class Samples {
  constructor(job, signal) {
    Object.assign(this, { job, signal, list: [], index: -1, cache: new Map(), follows: true });
    this.image = h("img", { class: "pixels", alt: "" });
    this.caption = h("span");
    this.put = latest((path) => this.show(path));
    this.slider = h("input", {
      type: "range", min: 0, max: 0, value: 0, disabled: true, "aria-label": "Place in training",
      oninput: () => this.choose(Number(this.slider.value)),
    });
    this.button = h("button", { class: "quiet", disabled: true, onclick: () => this.play() }, "Play");
    this.real = h("button", { class: "quiet", "aria-pressed": "false", onclick: () => this.reals() }, "Real images");
    this.element = h("section", { class: "card", "aria-labeledby": "samples-title" },
      h("h2", { id: "samples-title" }, "Samples"),
      this.empty = h("p", { class: "muted" }, "The first grid comes with the first samples."),
      this.body = h("div", { hidden: true },
        h("div", { class: "frame" }, this.image),
        h("div", { class: "row grow" }, this.slider),
        h("div", { class: "row" }, this.button, this.real, this.caption)));
    signal.addEventListener("abort", () => {
      clearInterval(this.timer);
      for (const url of this.cache.values()) url.then(URL.revokeObjectURL, () => {});
    });
  }

  /** Looks for new grids; the newest is shown unless the reader looks at another one. */
  async load() {
    const { samples } = await get(`/v1/jobs/${encodeURIComponent(this.job)}/samples`, this.signal);
    if (samples.length === this.list.length) return;
    this.list = samples;
    this.empty.hidden = samples.length > 0;
    this.body.hidden = samples.length === 0;
    this.slider.max = samples.length - 1;
    this.slider.disabled = this.button.disabled = samples.length < 2;
    if (this.follows && !this.showsReals) this.choose(samples.length - 1);
    else this.label();
  }

  label() {
    const sample = this.list[this.index];
    if (!sample) return;
    this.caption.textContent = `after ${whole(sample.n)} images, ${this.index + 1} of ${this.list.length}`;
    this.slider.setAttribute("aria-valuetext", this.caption.textContent);
    if (!this.showsReals) this.image.alt = `Grid of samples ${this.caption.textContent}`;
  }

  url(path) {
    if (!this.cache.has(path)) {
      this.cache.set(path, image(path, this.signal));
      if (this.cache.size > KEPT) {
        const [oldest, url] = this.cache.entries().next().value;
        this.cache.delete(oldest);
        url.then(URL.revokeObjectURL, () => {});
      }
    }
    return this.cache.get(path);
  }

  get showsReals() { return this.real.getAttribute("aria-pressed") === "true"; }

  choose(index) {
    this.index = index;
    this.follows = index === this.list.length - 1;
    this.slider.value = index;
    this.real.setAttribute("aria-pressed", "false");
    this.label();
    this.put(this.list[index].url);
  }

  async show(path) {
    try {
      this.image.src = await this.url(path);
    } catch {
      this.cache.delete(path);
    }
  }

  reals() {
    if (this.showsReals) { this.choose(this.index); return; }
    this.real.setAttribute("aria-pressed", "true");
    this.image.alt = "Real images, as the networks see them";
    this.put(`/v1/jobs/${encodeURIComponent(this.job)}/samples/reals.png`);
  }

  play() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = undefined;
      fill(this.button, "Play");
      return;
    }
    fill(this.button, "Stop");
    if (this.index === this.list.length - 1) this.choose(0);
    this.timer = setInterval(() => {
      if (this.index >= this.list.length - 1) this.play();
      else this.choose(this.index + 1);
    }, isStill() ? 4 * FRAME : FRAME);
  }
}
