// View #/jobs/ID: state, charts, samples, checkpoints and log of a job.

import { events, get, poll, post, request } from "./api.js";
import { Chart } from "./chart.js";
import {
  attempt,
  badge,
  decimal,
  download,
  duration,
  fill,
  formatBytes,
  formatTime,
  h,
  latestOnly,
  setText,
  showNotice,
  whole,
} from "./dom.js";
import { createRemedy, createSummary } from "./outcome.js";
import { Samples } from "./samples.js";

const POLL_INTERVAL = 1500; // ms
const LOG_LINES = 500;
const MAX_ROWS = 200; // of checkpoints, and of alarms
const FLUSH_INTERVAL = 100; // ms between two updates of the lists
const IS_FINAL = { done: true, failed: true, cancelled: true };

/** Where the processes of a run spend their time. */
function exchangeText(event) {
  const percent = (share) => `${Math.round(100 * share)} %`;
  return [
    `, ${percent(event.all_reduce_share)} all-reduce, ${percent(event.batch_norm_share)} batch norm exchange`,
    `, ${percent(event.wait_share)} waiting for rank ${event.slowest_rank}`,
  ].join("");
}

/** Formats an event as a log line, as the command line does. */
export function formatEvent(event) {
  const number = (value) => (value === undefined ? "-" : value.toFixed(4));
  switch (event.event) {
    case "step":
      return [
        `[${event.step}/${event.total_steps}] Loss_D: ${number(event.loss_d)} Loss_G: ${number(event.loss_g)}`,
        ` D(x): ${number(event.d_x)} D(G(z)): ${number(event.d_gz_before)} / ${number(event.d_gz_after)}`,
        `  ${Math.round(event.images_per_s)} images/s, ${duration(event.seconds_left)} left,`,
        ` ${Math.round(100 * event.data_wait_share)} % waiting for data`,
        event.processes === undefined ? "" : exchangeText(event),
      ].join("");
    case "sample":
      return `[${event.step}] samples after ${event.images} images (diversity ${event.diversity.toFixed(2)})`;
    case "checkpoint": {
      const hasDistance = event.frechet !== null && event.frechet !== undefined;
      const hasReal = event.real_frechet !== null && event.real_frechet !== undefined;
      const real = hasReal ? ` (real images ${event.real_frechet.toFixed(4)})` : "";
      const distance = hasDistance ? `, random-feature Fréchet distance ${event.frechet.toFixed(4)}${real}` : "";
      return `[${event.step}] checkpoint${distance}${event.best ? ", the best so far" : ""}`;
    }
    case "metrics": {
      const kid = event.kid === null || event.kid === undefined ? "" : `, KID ${event.kid.toFixed(5)}`;
      return `[${event.step}] FID ${event.fid.toFixed(2)}${kid} of ${event.samples} samples (${event.convention})`;
    }
    case "alarm":
      return `[${event.step}] ALARM: ${event.message}`;
    default:
      return event.state ? `the job is ${event.state}` : JSON.stringify(event);
  }
}

const createFact = (name) => {
  const value = h("dd", {}, "–");
  return { value, element: h("div", {}, h("dt", {}, name), value) };
};

function createCharts() {
  const create = (title, format, series, more = {}) =>
    new Chart({
      title,
      format,
      ...more,
      series: series.map(([key, label], i) => ({ key, label, color: `series-${i + 1}` })),
    });
  return {
    loss: create(
      "Loss",
      decimal,
      [
        ["loss_d", "D"],
        ["loss_g", "G"],
      ],
      { include: 0 },
    ),
    output: create(
      "D's output",
      decimal,
      [
        ["d_x", "D(x)"],
        ["d_gz_before", "D(G(z))"],
      ],
      { include: 0 },
    ),
    speed: create("Images/s", whole, [["images_per_s", "images/s"]], { include: 0, smooth: false }),
    frechet: create("Random-feature Fréchet distance (lower is better)", decimal, [
      ["frechet", "samples"],
      ["real_frechet", "real images, as perfect samples would have"],
    ], {
      include: 0,
      smooth: false,
    }),
    fid: create("FID (lower is better)", decimal, [["fid", "samples"]], { include: 0, smooth: false }),
  };
}

/** The buttons of a job; the state determines which are visible. */
function createActions(id, reload) {
  const send = (command) => (event) => {
    const button = event.currentTarget;
    return attempt(button, async () => {
      await post(`/v1/jobs/${encodeURIComponent(id)}/${command}`);
      await reload();
      if (button.hidden) focus();
    });
  };
  const pause = h("button", { onclick: send("pause") }, "Pause");
  const resume = h("button", { onclick: send("resume") }, "Resume");
  const cancel = h(
    "button",
    {
      class: "danger",
      onclick: (event) => confirm("Cancel this job? Its files are kept until it is deleted.") && send("cancel")(event),
    },
    "Cancel",
  );
  const remove = h(
    "button",
    {
      class: "danger",
      onclick: (event) =>
        confirm("Delete this job and its files?") &&
        attempt(event.currentTarget, async () => {
          await request("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
          showNotice("The job was deleted.");
          location.hash = "#/jobs";
        }),
    },
    "Delete",
  );
  const model = h(
    "button",
    {
      class: "quiet",
      onclick: (event) =>
        attempt(event.currentTarget, async () => {
          const response = await request("GET", `/v1/jobs/${encodeURIComponent(id)}/model`, { timeout: 0 });
          download(`${id}.zip`, await response.blob());
        }),
    },
    "Download model",
  );
  const dropOptimizer = h(
    "button",
    {
      class: "danger",
      onclick: (event) =>
        confirm("Remove the optimizer state? The models stay, but the job cannot be resumed or trained longer.") &&
        send("drop-optimizer")(event),
    },
    "Drop optimizer state",
  );
  const steps = h("input", { type: "number", min: 1, step: 1, required: true });
  const lengthen = h(
    "form",
    {
      class: "row",
      onsubmit: (event) => {
        event.preventDefault();
        attempt(event.submitter, async () => {
          await post(`/v1/jobs/${encodeURIComponent(id)}/resume`, { steps: Number(steps.value) });
          steps.value = "";
          await reload();
          focus();
        });
      },
    },
    h("label", { class: "inline" }, "Steps ", steps),
    h("button", { class: "quiet" }, "Train longer"),
  );
  const explore = h("a", { class: "button quiet", href: `#/explore/${encodeURIComponent(id)}` }, "Explore");
  /** The length for which `steps` has a suggestion. */
  let suggestedFor;
  const update = (job) => {
    const isActive = job.state === "queued" || job.state === "running";
    pause.hidden = !isActive || Boolean(job.wanted);
    resume.hidden = !(job.state === "paused" || job.state === "failed");
    cancel.hidden = !(isActive || job.state === "paused") || job.wanted === "cancelled";
    remove.hidden = job.state === "running";
    const isKept = job.optimizer_state === "kept";
    lengthen.hidden = !(isKept && job.total_steps && ["done", "paused", "failed"].includes(job.state));
    dropOptimizer.hidden = !(isKept && (job.state === "done" || job.state === "cancelled"));
    if (job.total_steps && job.total_steps !== suggestedFor) {
      if (document.activeElement !== steps) steps.value = 2 * job.total_steps;
      suggestedFor = job.total_steps;
    }
  };
  const setHasModel = (hasModel) => {
    model.hidden = explore.hidden = !hasModel;
  };
  setHasModel(false);
  const buttons = [pause, resume, cancel, model, explore, dropOptimizer, remove];
  /** Moves the focus to an action that is available now. */
  const focus = () => buttons.find((other) => !other.hidden)?.focus();
  return { element: h("div", { class: "row" }, buttons, lengthen), update, setHasModel, focus };
}

export async function show([id], signal) {
  let job = await get(`/v1/jobs/${encodeURIComponent(id)}`, signal);
  const state = h("span", { role: "status" }, badge(job.state));
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const facts = [
    "Step",
    "Images read",
    "Images/s",
    "Time left",
    "Submitted",
    "Started",
    "Ended",
    "Device",
    "Disk space",
  ].map(createFact);
  const dropped = h(
    "p",
    { class: "muted", hidden: true },
    "The optimizer state was dropped. To train on, start a new job from this model.",
  );
  const charts = createCharts();
  charts.fid.element.hidden = true; // until it is measured
  const samples = new Samples(id, signal);
  const alarms = h("ul", { class: "plain alarms", "aria-live": "polite", "aria-label": "Alarms" });
  const olderAlarms = h("ul", { class: "plain alarms" });
  const olderAlarmsCard = h(
    "details",
    { class: "card", hidden: true },
    h("summary", {}, "Earlier alarms"),
    olderAlarms,
  );
  const checkpoints = h("tbody");
  const log = h("pre", { tabindex: "0", class: "log", role: "group", "aria-labelledby": "log-title" });
  const checkpointCard = h(
    "section",
    { class: "card", "aria-labelledby": "checkpoints-title" },
    h("h2", { id: "checkpoints-title" }, "Checkpoints"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Step", "Random-feature Fréchet distance", ""].map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        checkpoints,
      ),
    ),
  );
  const actions = createActions(id, load);
  const remedy = createRemedy(id, async () => {
    await load();
    actions.focus();
  });
  const summary = createSummary(id, signal);
  let hasEnded = false;

  function update() {
    setText(state.firstChild, job.wanted ? `${job.state}, to be ${job.wanted}` : job.state);
    state.firstChild.className = `badge ${job.state}`;
    error.hidden = !job.error;
    setText(error, job.error ?? "");
    progress.value = job.total_steps ? job.step / job.total_steps : 0;
    const isRunning = job.state === "running";
    const values = [
      job.total_steps ? `${whole(job.step)} of ${whole(job.total_steps)}` : whole(job.step),
      whole(job.images),
      isRunning ? whole(job.images_per_s) : "–",
      isRunning ? duration(job.seconds_left) : "–",
      formatTime(job.created_unix_ms),
      formatTime(job.started_unix_ms),
      formatTime(job.ended_unix_ms),
      job.device ?? "–",
      formatBytes(job.disk_bytes),
    ];
    dropped.hidden = job.optimizer_state === "kept";
    facts.forEach(({ value }, i) => setText(value, values[i]));
    actions.update(job);
    remedy.update(job);
    summary.update(job).catch(() => {}); // until the next poll
  }

  async function load() {
    job = await get(`/v1/jobs/${encodeURIComponent(id)}`, signal);
    update();
    // A job that was resumed after its end has new events.
    if (hasEnded && !IS_FINAL[job.state]) follow();
  }

  // The lists are updated in batches and not for each event: a long run starts with tens of thousands of events.
  let [lines, newCheckpoints, newAlarms, bestCell, isFlushing] = [[], [], [], null, false];
  const loadSamples = latestOnly(() => samples.load());
  function flush() {
    isFlushing = false;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    lines = lines.slice(-LOG_LINES);
    log.textContent = lines.join("\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
    checkpoints.prepend(...newCheckpoints.splice(0).reverse());
    while (checkpoints.children.length > MAX_ROWS) checkpoints.lastChild.remove();
    alarms.prepend(...newAlarms.splice(0).slice(-MAX_ROWS).reverse());
    while (alarms.children.length > 3) olderAlarms.prepend(alarms.lastChild);
    olderAlarmsCard.hidden = olderAlarms.children.length === 0;
  }
  function scheduleFlush() {
    if (isFlushing) return;
    isFlushing = true;
    setTimeout(flush, FLUSH_INTERVAL);
  }

  function onEvent(event) {
    lines.push(formatEvent(event));
    if (lines.length > 4 * LOG_LINES) lines = lines.slice(-LOG_LINES);
    if (event.event === "step") {
      for (const name of ["loss", "output", "speed"]) charts[name].push(event.step, event);
    } else if (event.event === "sample") {
      loadSamples();
    } else if (event.event === "checkpoint") {
      charts.frechet.push(event.step, event);
      actions.setHasModel(true);
      const cell = h("td", { class: "best" }, event.best ? "best" : "");
      if (event.best) {
        if (bestCell) bestCell.textContent = "";
        bestCell = cell;
      }
      newCheckpoints.push(h("tr", {}, h("td", {}, whole(event.step)), h("td", {}, decimal(event.frechet)), cell));
      if (newCheckpoints.length > MAX_ROWS) newCheckpoints.shift();
    } else if (event.event === "metrics") {
      charts.fid.element.hidden = false;
      charts.fid.push(event.step, event);
    } else if (event.event === "alarm") {
      newAlarms.push(h("li", {}, h("strong", {}, `Step ${whole(event.step)}: `), event.message));
      if (newAlarms.length > MAX_ROWS) newAlarms.shift();
    }
    scheduleFlush();
  }

  let hasEvents = false;
  async function follow() {
    hasEnded = false;
    if (hasEvents) {
      // starts over: events that a resumed run dropped must disappear
      [lines, newCheckpoints, newAlarms, bestCell] = [[], [], [], null];
      for (const list of [checkpoints, alarms, olderAlarms]) fill(list);
      for (const chart of Object.values(charts)) chart.clear();
    }
    for await (const event of events(id, signal)) {
      hasEvents = true;
      onEvent(event);
    }
    hasEnded = true;
    if (!signal.aborted) load().catch(() => {});
  }

  signal.addEventListener("abort", () => Object.values(charts).forEach((chart) => chart.close()));
  update();
  follow();
  samples.load().catch(() => {});
  poll(POLL_INTERVAL, signal, () => load()).catch(() => {
    if (!signal.aborted) {
      showNotice("The job was deleted.");
      location.hash = "#/jobs";
    }
  });
  return [
    h("div", { class: "head" }, h("h1", {}, job.name), state),
    h("p", { class: "muted id" }, id),
    error,
    remedy.element,
    progress,
    actions.element,
    dropped,
    summary.resultCard,
    h(
      "dl",
      { class: "facts-grid" },
      facts.map(({ element }) => element),
    ),
    alarms,
    olderAlarmsCard,
    h(
      "div",
      { class: "columns" },
      h(
        "div",
        {},
        ["loss", "output", "speed", "frechet", "fid"].map((name) => charts[name].element),
      ),
      h("div", {}, samples.element, checkpointCard, summary.imagesCard),
    ),
    h("details", { class: "card" }, h("summary", {}, "Options"), h("pre", {}, JSON.stringify(job.options, null, 2))),
    h("section", { class: "card", "aria-labelledby": "log-title" }, h("h2", { id: "log-title" }, "Log"), log),
  ];
}
