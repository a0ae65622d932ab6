// Elements, and numbers as people read them.

/**
 * An element. Attributes that are null, undefined or false are left out; `on…` are listeners; children are nodes or text,
 * never markup, so nothing that the service sends can become a script.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets text only where it differs: a screen reader repeats what is set again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

/** Four places below 10, fewer above. */
export function decimal(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return size < 10 ? value.toFixed(3) : size < 100 ? value.toFixed(2) : Math.round(value).toLocaleString("en");
}

/** `1:02:03` or `2:03`, as the command line prints it. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

export function when(ms) {
  if (ms === null || ms === undefined) return "–";
  const date = new Date(ms);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString() : date.toLocaleString();
}

export const badge = (state) => h("span", { class: `badge ${state}` }, state);

/** What a job trains on which data, in a few words. */
export function title(job) {
  const options = job.options ?? {};
  const networks = options.preset ?? (options.config ? "own networks" : "digits");
  return `${networks} on ${options.data ?? "the embedded digits"}`;
}

/** A notice for a few seconds. */
let hiding;
export function notice(text, isError = false) {
  const element = document.getElementById("notice");
  element.textContent = text;
  element.className = isError ? "error" : "";
  element.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { element.hidden = true; }, isError ? 12000 : 4000);
}

/** Runs `body` for a button: once at a time, and its error is shown. The button keeps the focus, which a disabled one would lose. */
export async function attempt(button, body) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true");
  try {
    return await body();
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message, true);
    return undefined;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** Calls `body` with the newest value only: one call at a time, what comes meanwhile replaces what waits. */
export function latest(body) {
  let [busy, waiting] = [false, null];
  return async function run(value) {
    if (busy) { waiting = { value }; return; }
    busy = true;
    try {
      await body(value);
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message, true);
    } finally {
      busy = false;
    }
    if (waiting) {
      const { value: next } = waiting;
      waiting = null;
      run(next);
    }
  };
}

/** Settings that outlast the tab, where the browser lets a page keep any. */
export const kept = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* only for this tab, then */ } },
};

/** Gives a file to the reader's browser. */
export function save(name, data, type) {
  const url = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Whether this reader wants things to stand still. */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
