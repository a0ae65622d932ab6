// A line chart on a canvas that is updated during a run. The pointer or the arrow keys select a point to read.

import { h, whole } from "./dom.js";

const MAX_POINTS = 4000; // beyond that every second point is dropped
const SMOOTHING = 0.9; // decay of the smoothed line
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 8, 8, 22]; // margins in pixels

/** About `count` round values between two bounds. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const values = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return values;
}

const tickLabel = (value) =>
  Math.abs(value) >= 1000 ? `${+(value / 1000).toPrecision(3)}k` : String(+value.toPrecision(3));

export class Chart {
  /**
   * `series`: {key, label, color (a CSS variable)}; `format`: function that formats a value; `include`: value that the
   * y axis always includes.
   */
  constructor({ title, series, format, include = null, smooth = true }) {
    Object.assign(this, { name: title, series, format, include, smooth });
    this.points = []; // {step, values}
    this.stride = 1;
    this.skipped = 0;
    this.cursor = null; // index of the selected point
    this.canvas = h("canvas", {
      tabindex: "0",
      role: "img",
      onpointermove: (event) => this.onPointer(event),
      onpointerdown: (event) => this.onPointer(event),
      onpointerleave: (event) => event.pointerType === "touch" || this.select(null),
      onkeydown: (event) => this.onKey(event),
      onblur: () => this.select(null),
    });
    this.position = h("span", { class: "muted" });
    this.values = series.map(() => h("b", {}, "–"));
    this.element = h(
      "figure",
      { class: "chart card" },
      h(
        "figcaption",
        {},
        h("strong", {}, title),
        this.position,
        series.map(({ label, color }, i) =>
          h("span", { class: "key" }, h("i", { class: color }), `${label} `, this.values[i]),
        ),
      ),
      this.canvas,
    );
    this.observer = new ResizeObserver(() => this.scheduleDraw());
    this.observer.observe(this.canvas);
    this.redraw = () => this.scheduleDraw();
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
    this.scheduleDraw();
  }

  /** Adds a point; missing series are gaps. */
  push(step, source) {
    const values = this.series.map(({ key }) => source[key] ?? null);
    if (values.every((value) => value === null)) return;
    this.latest = { step, values };
    this.skipped = (this.skipped + 1) % this.stride;
    if (this.skipped !== 0 && this.points.length > 1) return this.scheduleDraw();
    this.points.push(this.latest);
    if (this.points.length > MAX_POINTS) {
      this.points = this.points.filter((_, i) => i % 2 === 0);
      this.stride *= 2;
      this.cursor = null;
    }
    return this.scheduleDraw();
  }

  scheduleDraw() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  }

  onPointer(event) {
    if (!this.points.length) return;
    const box = this.canvas.getBoundingClientRect();
    const fraction = (event.clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
    const step = this.low + fraction * (this.high - this.low);
    let nearest = 0;
    this.points.forEach((point, i) => {
      if (Math.abs(point.step - step) < Math.abs(this.points[nearest].step - step)) nearest = i;
    });
    this.select(nearest);
  }

  onKey(event) {
    const last = this.points.length - 1;
    if (last < 0) return;
    const current = this.cursor ?? last;
    const jump = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
    const target = { ArrowLeft: current - jump, ArrowRight: current + jump, Home: 0, End: last, Escape: null }[
      event.key
    ];
    if (target === undefined) return;
    event.preventDefault();
    this.select(target === null ? null : Math.min(last, Math.max(0, target)));
  }

  select(index) {
    this.cursor = index;
    this.scheduleDraw();
  }

  updateLegend() {
    const point = this.cursor === null ? this.latest : this.points[this.cursor];
    this.position.textContent = point ? `step ${whole(point.step)}` : "no values yet";
    this.values.forEach((element, i) => {
      element.textContent = point ? this.format(point.values[i]) : "–";
    });
    const parts = this.series.map(({ label }, i) => `${label} ${point ? this.format(point.values[i]) : "–"}`);
    this.canvas.setAttribute(
      "aria-label",
      `${this.name}, ${this.position.textContent}: ${parts.join(", ")}. Use the arrow keys to read other steps.`,
    );
  }

  draw() {
    this.updateLegend();
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const values = this.points.flatMap(({ values }) => values).filter((value) => value !== null);
    if (this.include !== null) values.push(this.include);
    if (!this.points.length) return;
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    [this.low, this.high] = [this.points[0].step, Math.max(this.latest.step, this.points[0].step + 1)];
    const x = (step) => LEFT + ((step - this.low) / (this.high - this.low)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);

    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeStyle = color("line");
    context.fillStyle = color("muted");
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of ticks(low, high, height / 44)) {
      context.beginPath();
      context.moveTo(LEFT, y(value));
      context.lineTo(width - RIGHT, y(value));
      context.stroke();
      context.fillText(tickLabel(value), LEFT - 6, y(value));
    }
    context.textBaseline = "alphabetic";
    context.textAlign = "center";
    for (const step of ticks(this.low, this.high, width / 110).filter(Number.isInteger)) {
      const center = Math.min(width - RIGHT - 14, Math.max(LEFT + 4, x(step)));
      context.fillText(tickLabel(step), center, height - 6);
    }

    const points = this.points.at(-1) === this.latest ? this.points : [...this.points, this.latest];
    this.series.forEach((series, i) => {
      const defined = points.filter(({ values }) => values[i] !== null);
      const isNoisy = this.smooth && defined.length > 30;
      context.strokeStyle = color(series.color);
      context.lineJoin = "round";
      context.setLineDash(i ? [6, 3] : []); // series differ not by color alone
      const line = (value) => {
        context.beginPath();
        defined.forEach((point, k) => context[k ? "lineTo" : "moveTo"](x(point.step), y(value(point.values[i]))));
        context.stroke();
      };
      context.globalAlpha = isNoisy ? 0.3 : 1;
      context.lineWidth = isNoisy ? 1 : 2;
      line((value) => value);
      context.globalAlpha = 1;
      if (isNoisy) {
        let mean = defined[0].values[i];
        context.lineWidth = 2;
        line((value) => (mean = SMOOTHING * mean + (1 - SMOOTHING) * value));
      }
      if (defined.length === 1) {
        context.fillStyle = color(series.color);
        context.fillRect(x(defined[0].step) - 2, y(defined[0].values[i]) - 2, 4, 4);
      }
    });
    context.setLineDash([]);
    const selected = this.cursor === null ? null : this.points[this.cursor];
    if (selected) {
      context.strokeStyle = color("muted");
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x(selected.step), TOP);
      context.lineTo(x(selected.step), height - BOTTOM);
      context.stroke();
    }
  }
}
