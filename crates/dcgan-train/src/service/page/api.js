// Requests to the service: the token, errors as exceptions, events that come back after a broken connection.

const KEY = "dcgan-token";
const PAUSE = 1500; // ms before a broken stream is asked for again

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
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** A request; its response, or an ApiError. Body objects are sent as JSON. */
export async function request(method, path, { body, headers = {}, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const response = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, "The service does not answer.");
    });
    if (response.ok) return response;
    if (response.status === 401) {
      await askToken(Boolean(token));
      signal?.throwIfAborted();
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(response.status, answer.error?.message ?? `status ${response.status}`, answer.error?.faults ?? []);
  }
}

export const get = async (path, signal) => (await request("GET", path, { signal })).json();
export const post = async (path, body, signal) => (await request("POST", path, { body, signal })).json();

/** A picture as a URL for <img>: asked for with the token, which <img> could not send. */
export async function picture(path, signal) {
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
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** Calls `body` now and every `ms` until `signal` aborts; not while the tab is hidden. */
export async function poll(ms, signal, body) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await body();
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 404) throw error;
      }
    }
    try { await sleep(ms, signal); } catch { return; }
  }
}

/** Server-sent events of a response: {id, event, data}. */
async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
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

/** The events of a job from its beginning to its end, over as many connections as that takes: blocks of parsed events. */
export async function* events(job, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await request("GET", `/v1/jobs/${job}/events`, { headers, signal });
      if (response.status === 204) return;
      for await (const { id, event, data } of parse(response.body)) {
        last = id ?? last;
        yield JSON.parse(data);
        if (event === "end") return;
      }
    } catch (error) {
      if (signal.aborted || error.status === 404) return;
    }
    try { await sleep(PAUSE, signal); } catch { return; }
  }
}
