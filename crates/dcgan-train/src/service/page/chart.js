// A line chart on a canvas that grows while a run goes on; read with the pointer or with the arrow keys.

import { h, whole } from "./dom.js";

const MOST = 4000; // points kept; beyond that every second one is dropped
const SMOOTH = 0.9; // of the line over the noisy points
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 8, 8, 22]; // pixels around the plot

/** Round values between two bounds, about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

const short = (value) => (Math.abs(value) >= 1000 ? `${+(value / 1000).toPrecision(3)}k` : String(+value.toPrecision(3)));

export class Chart {
  /** `series`: {key, label, color (a CSS variable)}; `format` of a value; `from`: a value the axis always shows. */
  constructor({ title, series, format, from = null, smooth = true }) {
    Object.assign(this, { name: title, series, format, from, smooth });
    this.points = []; // {step, values}
    this.stride = 1;
    this.skipped = 0;
    this.cursor = null; // index of the point that is read
    this.canvas = h("canvas", {
      tabindex: "0", role: "img",
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType === "touch" || this.read(null),
      onkeydown: (event) => this.key(event), onblur: () => this.read(null),
    });
    this.at = h("span", { class: "muted" });
    this.values = series.map(() => h("b", {}, "–"));
    this.element = h("figure", { class: "chart card" },
      h("figcaption", {}, h("strong", {}, title), this.at,
        series.map(({ label, color }, i) => h("span", { class: "key" }, h("i", { class: color }), `${label} `, this.values[i]))),
      this.canvas);
    this.observer = new ResizeObserver(() => this.later());
    this.observer.observe(this.canvas);
    this.redraw = () => this.later();
    addEventListener("themechange", this.redraw);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.redraw);
  }

  close() {
    this.observer.disconnect();
    removeEventListener("themechange", this.redraw);
    this.dark.removeEventListener("change", this.redraw);
  }

  clear() {
    Object.assign(this, { points: [], stride: 1, skipped: 0, cursor: null, latest: undefined });
    this.later();
  }

  /** Adds a point; series that it does not have are gaps. */
  push(step, source) {
    const values = this.series.map(({ key }) => source[key] ?? null);
    if (values.every((value) => value === null)) return;
    this.latest = { step, values };
    this.skipped = (this.skipped + 1) % this.stride;
    if (this.skipped !== 0 && this.points.length > 1) return this.later();
    this.points.push(this.latest);
    if (this.points.length > MOST) {
      this.points = this.points.filter((_, i) => i % 2 === 0);
      this.stride *= 2;
      this.cursor = null;
    }
    return this.later();
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  point(event) {
    if (!this.points.length) return;
    const box = this.canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
    const step = this.low + share * (this.high - this.low);
    let best = 0;
    this.points.forEach((point, i) => {
      if (Math.abs(point.step - step) < Math.abs(this.points[best].step - step)) best = i;
    });
    this.read(best);
  }

  key(event) {
    const last = this.points.length - 1;
    if (last < 0) return;
    const now = this.cursor ?? last;
    const jump = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
    const to = { ArrowLeft: now - jump, ArrowRight: now + jump, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.read(to === null ? null : Math.min(last, Math.max(0, to)));
  }

  read(index) {
    this.cursor = index;
    this.later();
  }

  legend() {
    const shown = this.cursor === null ? this.latest : this.points[this.cursor];
    this.at.textContent = shown ? `step ${whole(shown.step)}` : "no values yet";
    this.values.forEach((element, i) => { element.textContent = shown ? this.format(shown.values[i]) : "–"; });
    const parts = this.series.map(({ label }, i) => `${label} ${shown ? this.format(shown.values[i]) : "–"}`);
    this.canvas.setAttribute("aria-label", `${this.name}, ${this.at.textContent}: ${parts.join(", ")}. Arrow keys read other steps.`);
  }

  draw() {
    this.legend();
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const found = this.points.flatMap(({ values }) => values).filter((value) => value !== null);
    if (this.from !== null) found.push(this.from);
    if (!this.points.length) return;
    let [low, high] = [Infinity, -Infinity];
    for (const value of found) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    [this.low, this.high] = [this.points[0].step, Math.max(this.latest.step, this.points[0].step + 1)];
    const x = (step) => LEFT + ((step - this.low) / (this.high - this.low)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);

    pen.font = "11px system-ui, sans-serif";
    pen.lineWidth = 1;
    pen.strokeStyle = color("line");
    pen.fillStyle = color("muted");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of ticks(low, high, height / 44)) {
      pen.beginPath();
      pen.moveTo(LEFT, y(value));
      pen.lineTo(width - RIGHT, y(value));
      pen.stroke();
      pen.fillText(short(value), LEFT - 6, y(value));
    }
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    for (const step of ticks(this.low, this.high, width / 110).filter(Number.isInteger)) {
      const inside = Math.min(width - RIGHT - 14, Math.max(LEFT + 4, x(step)));
      pen.fillText(short(step), inside, height - 6);
    }

    const points = this.points.at(-1) === this.latest ? this.points : [...this.points, this.latest];
    this.series.forEach((series, i) => {
      const seen = points.filter(({ values }) => values[i] !== null);
      const isNoisy = this.smooth && seen.length > 30;
      pen.strokeStyle = color(series.color);
      pen.lineJoin = "round";
      pen.setLineDash(i ? [6, 3] : []); // not by color alone
      const line = (value) => {
        pen.beginPath();
        seen.forEach((point, k) => pen[k ? "lineTo" : "moveTo"](x(point.step), y(value(point.values[i]))));
        pen.stroke();
      };
      pen.globalAlpha = isNoisy ? 0.3 : 1;
      pen.lineWidth = isNoisy ? 1 : 2;
      line((value) => value);
      pen.globalAlpha = 1;
      if (isNoisy) {
        let mean = seen[0].values[i];
        pen.lineWidth = 2;
        line((value) => (mean = SMOOTH * mean + (1 - SMOOTH) * value));
      }
      if (seen.length === 1) {
        pen.fillStyle = color(series.color);
        pen.fillRect(x(seen[0].step) - 2, y(seen[0].values[i]) - 2, 4, 4);
      }
    });
    pen.setLineDash([]);
    const read = this.cursor === null ? null : this.points[this.cursor];
    if (read) {
      pen.strokeStyle = color("muted");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x(read.step), TOP);
      pen.lineTo(x(read.step), height - BOTTOM);
      pen.stroke();
    }
  }
}
