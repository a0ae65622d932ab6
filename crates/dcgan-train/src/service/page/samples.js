// Sample grids of a job, with a slider over the training.

import { get, imageUrl } from "./api.js";
import { fill, h, latestOnly, prefersReducedMotion, whole } from "./dom.js";

const FRAME_DURATION = 250; // ms per image during playback
const CACHE_SIZE = 60; // images

export class Samples {
  constructor(job, signal) {
    Object.assign(this, { job, signal, list: [], index: -1, cache: new Map(), followsNewest: true });
    this.image = h("img", { class: "pixels", alt: "" });
    this.caption = h("span");
    this.display = latestOnly((path) => this.show(path));
    this.slider = h("input", {
      type: "range",
      min: 0,
      max: 0,
      value: 0,
      disabled: true,
      "aria-label": "Position in training",
      oninput: () => this.select(Number(this.slider.value)),
    });
    this.playButton = h("button", { class: "quiet", disabled: true, onclick: () => this.play() }, "Play");
    this.realButton = h(
      "button",
      { class: "quiet", "aria-pressed": "false", onclick: () => this.toggleReals() },
      "Real images",
    );
    this.element = h(
      "section",
      { class: "card", "aria-labelledby": "samples-title" },
      h("h2", { id: "samples-title" }, "Samples"),
      (this.empty = h("p", { class: "muted" }, "No samples yet.")),
      (this.body = h(
        "div",
        { hidden: true },
        h("div", { class: "frame" }, this.image),
        h("div", { class: "row grow" }, this.slider),
        h("div", { class: "row" }, this.playButton, this.realButton, this.caption),
      )),
    );
    signal.addEventListener("abort", () => {
      clearInterval(this.timer);
      for (const url of this.cache.values()) url.then(URL.revokeObjectURL, () => {});
    });
  }

  /** Loads the list of grids, and shows the newest unless the user has selected another one. */
  async load() {
    const job = `/v1/jobs/${encodeURIComponent(this.job)}`;
    const { samples } = await get(`${job}/samples`, this.signal);
    if (samples.length === this.list.length) return;
    this.list = samples.map(({ n, url }) => ({ n, url: `${job}/${url}` })); // url is relative to the list's own
    this.empty.hidden = samples.length > 0;
    this.body.hidden = samples.length === 0;
    this.slider.max = samples.length - 1;
    this.slider.disabled = this.playButton.disabled = samples.length < 2;
    if (this.followsNewest && !this.showsReals) this.select(samples.length - 1);
    else this.updateLabels();
  }

  updateLabels() {
    const sample = this.list[this.index];
    if (!sample) return;
    this.caption.textContent = `after ${whole(sample.n)} images, ${this.index + 1} of ${this.list.length}`;
    this.slider.setAttribute("aria-valuetext", this.caption.textContent);
    if (!this.showsReals) this.image.alt = `Grid of samples ${this.caption.textContent}`;
  }

  url(path) {
    if (!this.cache.has(path)) {
      this.cache.set(path, imageUrl(path, this.signal));
      if (this.cache.size > CACHE_SIZE) {
        const [oldest, url] = this.cache.entries().next().value;
        this.cache.delete(oldest);
        url.then(URL.revokeObjectURL, () => {});
      }
    }
    return this.cache.get(path);
  }

  get showsReals() {
    return this.realButton.getAttribute("aria-pressed") === "true";
  }

  select(index) {
    this.index = index;
    this.followsNewest = index === this.list.length - 1;
    this.slider.value = index;
    this.realButton.setAttribute("aria-pressed", "false");
    this.updateLabels();
    this.display(this.list[index].url);
  }

  async show(path) {
    try {
      this.image.src = await this.url(path);
    } catch {
      this.cache.delete(path);
    }
  }

  toggleReals() {
    if (this.showsReals) {
      this.select(this.index);
      return;
    }
    this.realButton.setAttribute("aria-pressed", "true");
    this.image.alt = "Grid of real images";
    this.display(`/v1/jobs/${encodeURIComponent(this.job)}/samples/reals.png`);
  }

  play() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = undefined;
      fill(this.playButton, "Play");
      return;
    }
    fill(this.playButton, "Stop");
    if (this.index === this.list.length - 1) this.select(0);
    this.timer = setInterval(
      () => {
        if (this.index >= this.list.length - 1) this.play();
        else this.select(this.index + 1);
      },
      prefersReducedMotion() ? 4 * FRAME_DURATION : FRAME_DURATION,
    );
  }
}
