// DOM helpers, and formatting of numbers and times.

/**
 * Creates an element. Attributes that are null, undefined or false are omitted; `on...` attributes are listeners.
 * Children are nodes or text, never markup, so that data of the service cannot become a script.
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

/** Replaces the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Sets the text of an element if it differs: screen readers announce text that is set again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An integer with thousands separators. */
export const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));

/** Three decimals below 10, fewer above. */
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
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(s % 60)}` : `${minutes}:${pad(s % 60)}`;
}

/** A local date and time, from milliseconds or from a text of the API. */
export const formatTime = (time) => (time === null || time === undefined ? "–" : new Date(time).toLocaleString());

/** `12.3 MB` */
export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power > 0 && value < 100 ? 1 : 0)} ${units[power]}`;
}

export const badge = (state) => h("span", { class: `badge ${state}` }, state);

let noticeTimer;

/** Shows a notice for a few seconds. */
export function showNotice(text, isError = false) {
  const element = document.getElementById("notice");
  element.textContent = text;
  element.className = isError ? "error" : "";
  element.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(
    () => {
      element.hidden = true;
    },
    isError ? 12000 : 4000,
  );
}

/**
 * Runs the action of a button, one at a time, and shows its error. Uses aria-disabled: a button with `disabled` would
 * lose the focus.
 */
export async function attempt(button, body) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true");
  try {
    return await body();
  } catch (error) {
    if (error.name !== "AbortError") showNotice(error.message, true);
    return undefined;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** Wraps `body` so that one call runs at a time; of the calls made meanwhile only the latest is run. */
export function latestOnly(body) {
  let [busy, pending] = [false, null];
  return async function run(value) {
    if (busy) {
      pending = { value };
      return;
    }
    busy = true;
    try {
      await body(value);
    } catch (error) {
      if (error.name !== "AbortError") showNotice(error.message, true);
    } finally {
      busy = false;
    }
    if (pending) {
      const { value: next } = pending;
      pending = null;
      run(next);
    }
  };
}

/** Settings in localStorage, if the browser allows it. */
export const settings = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      /* not persisted */
    }
  },
};

/** Downloads data as a file. */
export function download(name, data, type) {
  const url = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Whether the user prefers reduced motion. */
export const prefersReducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
