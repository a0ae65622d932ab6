// Requests to the service: the token, errors as exceptions, events that come back after a broken connection.

const KEY = "dcgan-token";
const PAUSE = 1500; // ms before a broken stream is asked for again
const PATIENCE = 30_000; // ms for an answer
const SILENCE = 45_000; // ms without a byte of a stream, which sends a comment every 15 s

/** What the service answered, when it did not do what was asked. */
export class ApiError extends Error {
  constructor(status, message, faults = []) {
    super(message);
    this.status = status;
    this.faults = faults;
  }
}

let asking = null;

/** Asks the reader for the token; all requests that lack it wait for one answer. */
function askToken(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    dialog.querySelector(".error").textContent = wasWrong ? "The service does not know this token." : "";
    dialog.addEventListener("close", () => {
      const input = dialog.querySelector("input");
      // What no header can hold is no token; asked again with what can.
      sessionStorage.setItem(KEY, input.value.trim().replace(/[^\x21-\x7e]/g, "?"));
      input.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** A request; its response, or an ApiError. Body objects are sent as JSON. */
export async function request(method, path, { body, headers = {}, signal, patience = PATIENCE } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const limits = [signal, patience && AbortSignal.timeout(patience)].filter(Boolean);
    const response = await fetch(path, {
      method,
      signal: AbortSignal.any(limits),
      cache: "no-store",
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch((error) => {
      throw signal?.aborted ? error : new ApiError(0, "The service does not answer.");
    });
    if (response.ok) return response;
    if (response.status === 401) {
      if (sessionStorage.getItem(KEY) === token) await askToken(Boolean(token));
      signal?.throwIfAborted();
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(response.status, answer.error?.message ?? `status ${response.status}`, answer.error?.faults ?? []);
  }
}

export const get = async (path, signal) => (await request("GET", path, { signal })).json();
export const post = async (path, body, signal) => (await request("POST", path, { body, signal })).json();

/** An image as a URL for <img>: asked for with the token, which <img> could not send. */
export async function image(path, signal) {
  const response = await request("GET", path, { signal });
  return URL.createObjectURL(await response.blob());
}

/** Draws samples of a model; a Blob of PNG. */
export async function draw(model, wish, signal) {
  const response = await request("POST", `/v1/models/${encodeURIComponent(model)}/samples`, { body: wish, signal });
  return wish.format === "latents" ? response.arrayBuffer() : response.blob();
}

export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Calls `body` now and every `ms` until `signal` aborts; not while the tab is hidden. Says so while nobody answers. */
export async function poll(ms, signal, body) {
  const gone = document.getElementById("gone");
  signal.addEventListener("abort", () => { gone.hidden = true; }, { once: true });
  let [failures, heard] = [0, new Date()];
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await body();
        [failures, heard] = [0, new Date()];
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 404) throw error;
        failures += 1;
      }
      if (failures < 2) gone.hidden = true;
      else if (gone.hidden) {
        gone.textContent = `No answer from the service since ${heard.toLocaleTimeString()}; what is shown is from then.`;
        gone.hidden = false;
      }
    }
    try { await sleep(ms, signal); } catch { return; }
  }
}

/** Resolves when the tab is looked at. */
function visible(signal) {
  return new Promise((resolve, reject) => {
    if (!document.hidden) { resolve(); return; }
    const look = () => { if (!document.hidden) { done(); resolve(); } };
    const stop = () => { done(); reject(signal.reason); };
    const done = () => { document.removeEventListener("visibilitychange", look); signal.removeEventListener("abort", stop); };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", stop);
  });
}

/** Server-sent events of a response: {id, event, data}. `heard` is called for every piece that comes. */
async function* parse(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    heard();
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
 * The events of a job from its beginning to its end, over as many connections as that takes. A hidden tab holds none: browsers
 * open six to a service for all their tabs together, and Last-Event-ID makes up for the time.
 */
export async function* events(job, signal) {
  let last = null;
  while (!signal.aborted) {
    const own = new AbortController();
    const stop = () => own.abort();
    const hide = () => document.hidden && stop();
    let watchdog;
    try {
      await visible(signal);
      signal.addEventListener("abort", stop);
      document.addEventListener("visibilitychange", hide);
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const path = `/v1/jobs/${encodeURIComponent(job)}/events`;
      const response = await request("GET", path, { headers, signal: own.signal, patience: 0 });
      if (response.status === 204) return;
      const heard = () => { clearTimeout(watchdog); watchdog = setTimeout(stop, SILENCE); };
      for await (const { id, event, data } of parse(response.body, heard)) {
        last = id ?? last;
        yield JSON.parse(data);
        if (event === "end") return;
      }
    } catch (error) {
      if (signal.aborted || error.status === 404) return;
    } finally {
      clearTimeout(watchdog);
      stop();
      signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", hide);
    }
    try { await sleep(PAUSE, signal); } catch { return; }
  }
}
