// HTTP client of the service: token, errors as exceptions, event streams that reconnect.

const RECONNECT_DELAY = 1500; // ms
const REQUEST_TIMEOUT = 70_000; // ms; the service answers within 60 s
const STREAM_TIMEOUT = 45_000; // ms without a byte; the service sends a comment every 15 s

/**
 * The URL of a path of the service, such as `/v1/jobs`. It is resolved against the folder of the page's own URL: behind
 * a reverse proxy the service may be below a sub-path.
 */
export const serviceUrl = (path, page = location.href) => new URL(`./${path.replace(/^\/+/, "")}`, page).href;

/** One token for each service of an origin. */
const TOKEN_KEY = `dcgan-token ${serviceUrl("")}`;

/** An error response of the service. */
export class ApiError extends Error {
  constructor(status, message, faults = []) {
    super(message);
    this.status = status;
    this.faults = faults;
  }
}

let tokenPrompt = null;

/** Prompts the user for the token; all requests that need it share one prompt. */
function promptForToken(wasInvalid) {
  tokenPrompt ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    dialog.querySelector(".error").textContent = wasInvalid ? "This token is not valid." : "";
    dialog.addEventListener(
      "close",
      () => {
        const input = dialog.querySelector("input");
        // Characters that a header cannot contain are replaced: the token is then rejected and prompted for again.
        sessionStorage.setItem(TOKEN_KEY, input.value.trim().replace(/[^\x21-\x7e]/g, "?"));
        input.value = "";
        tokenPrompt = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return tokenPrompt;
}

/** Sends a request; returns its response or throws an ApiError. `body` is sent as JSON; `timeout` 0 is none. */
export async function request(method, path, { body, headers = {}, signal, timeout = REQUEST_TIMEOUT } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN_KEY);
    const signals = [signal, timeout && AbortSignal.timeout(timeout)].filter(Boolean);
    const response = await fetch(serviceUrl(path), {
      method,
      signal: AbortSignal.any(signals),
      cache: "no-store",
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch((error) => {
      throw signal?.aborted ? error : new ApiError(0, "The service does not respond.");
    });
    if (response.ok) return response;
    if (response.status === 401) {
      if (sessionStorage.getItem(TOKEN_KEY) === token) await promptForToken(Boolean(token));
      signal?.throwIfAborted();
      continue;
    }
    const { error } = await response.json().catch(() => ({}));
    throw new ApiError(response.status, error?.message ?? `status ${response.status}`, error?.faults ?? []);
  }
}

export const get = async (path, signal) => (await request("GET", path, { signal })).json();
export const post = async (path, body, signal) => (await request("POST", path, { body, signal })).json();

/** Fetches an image as an object URL: an <img> cannot send the token itself. */
export async function imageUrl(path, signal) {
  const response = await request("GET", path, { signal });
  return URL.createObjectURL(await response.blob());
}

/** Draws samples of a model: a PNG as a Blob, or latents as an ArrayBuffer. */
export async function drawSamples(model, options, signal) {
  const response = await request("POST", `/v1/models/${encodeURIComponent(model)}/samples`, { body: options, signal });
  return options.format === "latents" ? response.arrayBuffer() : response.blob();
}

export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/**
 * Calls `body` now and every `ms` until `signal` aborts, except while the tab is hidden. Shows a banner while the
 * service is offline.
 */
export async function poll(ms, signal, body) {
  const banner = document.getElementById("offline");
  signal.addEventListener(
    "abort",
    () => {
      banner.hidden = true;
    },
    { once: true },
  );
  let [failures, lastSuccess] = [0, new Date()];
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await body();
        [failures, lastSuccess] = [0, new Date()];
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 404) throw error;
        failures += 1;
      }
      if (failures < 2) banner.hidden = true;
      else if (banner.hidden) {
        const time = lastSuccess.toLocaleTimeString();
        banner.textContent = `No response from the service since ${time}. The data shown is from that time.`;
        banner.hidden = false;
      }
    }
    try {
      await sleep(ms, signal);
    } catch {
      return;
    }
  }
}

/** Resolves when the tab is visible. */
function whenVisible(signal) {
  return new Promise((resolve, reject) => {
    if (!document.hidden) {
      resolve();
      return;
    }
    const check = () => {
      if (!document.hidden) {
        cleanUp();
        resolve();
      }
    };
    const abort = () => {
      cleanUp();
      reject(signal.reason);
    };
    const cleanUp = () => {
      document.removeEventListener("visibilitychange", check);
      signal.removeEventListener("abort", abort);
    };
    document.addEventListener("visibilitychange", check);
    signal.addEventListener("abort", abort);
  });
}

/** Parses server-sent events: {id, event, data}. Calls `onChunk` before each read. */
async function* parseEvents(body, onChunk) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    onChunk();
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const fields = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      if (fields.data !== undefined) yield fields;
    }
  }
}

/**
 * The events of a job from its beginning to its end; reconnects as needed. A hidden tab closes its connection: browsers
 * allow six connections to a host for all tabs together, and Last-Event-ID recovers the missed events.
 */
export async function* events(job, signal) {
  let lastId = null;
  while (!signal.aborted) {
    const connection = new AbortController();
    const close = () => connection.abort();
    const closeIfHidden = () => document.hidden && close();
    let watchdog;
    try {
      await whenVisible(signal);
      signal.addEventListener("abort", close);
      document.addEventListener("visibilitychange", closeIfHidden);
      const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
      const path = `/v1/jobs/${encodeURIComponent(job)}/events`;
      const response = await request("GET", path, { headers, signal: connection.signal, timeout: 0 });
      if (response.status === 204) return;
      const restartWatchdog = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(close, STREAM_TIMEOUT);
      };
      for await (const { id, event, data } of parseEvents(response.body, restartWatchdog)) {
        lastId = id ?? lastId;
        yield JSON.parse(data);
        if (event === "end") return;
      }
    } catch (error) {
      if (signal.aborted || error.status === 404) return;
    } finally {
      clearTimeout(watchdog);
      close();
      signal.removeEventListener("abort", close);
      document.removeEventListener("visibilitychange", closeIfHidden);
    }
    try {
      await sleep(RECONNECT_DELAY, signal);
    } catch {
      return;
    }
  }
}
