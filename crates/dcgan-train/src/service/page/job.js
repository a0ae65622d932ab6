// One job: what it does now, its curves, samples, checkpoints and log.

import { events, get, poll, post, request } from "./api.js";
import { Chart } from "./chart.js";
import { attempt, badge, decimal, duration, fill, h, latest, notice, save, say, title, when, whole } from "./dom.js";
import { Samples } from "./samples.js";

const EVERY = 1500; // ms
const LOG_LINES = 500;
const ROWS = 200; // checkpoints and alarms that are listed
const FLUSH = 100; // ms between two changes of what is listed
const IS_FINAL = { done: true, failed: true, cancelled: true };

/** The lines of the command line's log. */
export function line(event) {
  const number = (value) => (value === undefined ? "-" : value.toFixed(4));
  switch (event.event) {
    case "step":
      return `[${event.step}/${event.total_steps}] Loss_D: ${number(event.loss_d)} Loss_G: ${number(event.loss_g)} D(x): ${number(event.d_x)} `
        + `D(G(z)): ${number(event.d_gz_before)} / ${number(event.d_gz_after)}  ${Math.round(event.images_per_s)} images/s, `
        + `${duration(event.seconds_left)} left, ${Math.round(100 * event.data_wait_share)} % waiting for data`;
    case "sample": return `[${event.step}] samples after ${event.images} images (diversity ${event.diversity.toFixed(2)})`;
    case "checkpoint":
      return `[${event.step}] checkpoint${event.frechet === null || event.frechet === undefined ? "" : `, random-feature Fréchet distance ${event.frechet.toFixed(4)}`}${event.best ? ", the best so far" : ""}`;
    case "alarm": return `[${event.step}] ALARM: ${event.message}`;
    default: return event.state ? `the job is ${event.state}` : JSON.stringify(event);
  }
}

const fact = (name) => {
  const value = h("dd", {}, "–");
  return { value, element: h("div", {}, h("dt", {}, name), value) };
};

function charts() {
  const chart = (title, format, series, more = {}) => new Chart({
    title, format, ...more, series: series.map(([key, label], i) => ({ key, label, color: `series-${i + 1}` })),
  });
  return {
    loss: chart("Loss", decimal, [["loss_d", "D"], ["loss_g", "G"]], { from: 0 }),
    output: chart("D's output", decimal, [["d_x", "D(x)"], ["d_gz_before", "D(G(z))"]], { from: 0 }),
    speed: chart("Images/s", whole, [["images_per_s", "images/s"]], { from: 0, smooth: false }),
    quality: chart("Quality (lower is better)", decimal, [["frechet", "Fréchet distance"]], { from: 0, smooth: false }),
  };
}

/** The four actions; which are offered depends on the state. */
function actions(id, reload) {
  const ask = (verb) => (event) => {
    const button = event.currentTarget;
    return attempt(button, async () => {
      await post(`/v1/jobs/${encodeURIComponent(id)}/${verb}`);
      await reload();
      // The focus goes on to what can be done now.
      if (button.hidden) all.find((other) => !other.hidden)?.focus();
    });
  };
  const pause = h("button", { onclick: ask("pause") }, "Pause");
  const resume = h("button", { onclick: ask("resume") }, "Resume");
  const cancel = h("button", { class: "danger", onclick: (event) => confirm("Give this job up? Its files stay until it is deleted.") && ask("cancel")(event) }, "Cancel");
  const remove = h("button", {
    class: "danger",
    onclick: (event) => confirm("Delete this job and its files?") && attempt(event.currentTarget, async () => {
      await request("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
      notice("The job is deleted.");
      location.hash = "#/jobs";
    }),
  }, "Delete");
  const model = h("button", {
    class: "quiet",
    onclick: (event) => attempt(event.currentTarget, async () => {
      const response = await request("GET", `/v1/jobs/${encodeURIComponent(id)}/model`, { patience: 0 });
      save(`${id}.zip`, await response.blob());
    }),
  }, "Download model");
  const explore = h("a", { class: "button quiet", href: `#/explore/${encodeURIComponent(id)}` }, "Explore");
  const show = (job) => {
    const waits = job.state === "queued" || job.state === "running";
    pause.hidden = !waits || Boolean(job.wanted);
    resume.hidden = !(job.state === "paused" || job.state === "failed");
    cancel.hidden = !(waits || job.state === "paused") || job.wanted === "cancelled";
    remove.hidden = job.state === "running";
  };
  const hasModel = (has) => { model.hidden = explore.hidden = !has; };
  hasModel(false);
  const all = [pause, resume, cancel, model, explore, remove];
  return { element: h("div", { class: "row" }, all), show, hasModel };
}

export async function show([id], signal) {
  let job = await get(`/v1/jobs/${encodeURIComponent(id)}`, signal);
  const state = h("span", { role: "status" }, badge(job.state));
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const facts = ["Step", "Images seen", "Images/s", "Time left", "Submitted", "Started", "Ended"].map(fact);
  const panels = charts();
  const samples = new Samples(id, signal);
  const alarms = h("ul", { class: "plain alarms", "aria-live": "polite", "aria-label": "Alarms" });
  const older = h("ul", { class: "plain alarms" });
  const olderBox = h("details", { class: "card", hidden: true }, h("summary", {}, "Earlier alarms"), older);
  const checkpoints = h("tbody");
  const log = h("pre", { tabindex: "0", class: "log", role: "group", "aria-labeledby": "log-title" });
  const checkpointCard = h("section", { class: "card", "aria-labeledby": "checkpoints-title" },
    h("h2", { id: "checkpoints-title" }, "Checkpoints"),
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Step", "Random-feature Fréchet distance", ""].map((name) => h("th", { scope: "col" }, name)))), checkpoints)));
  const buttons = actions(id, load);
  let hasEnded = false;

  function update() {
    say(state.firstChild, job.wanted ? `${job.state}, to be ${job.wanted}` : job.state);
    state.firstChild.className = `badge ${job.state}`;
    error.hidden = !job.error;
    say(error, job.error ?? "");
    bar.value = job.total_steps ? job.step / job.total_steps : 0;
    const running = job.state === "running";
    const values = [
      job.total_steps ? `${whole(job.step)} of ${whole(job.total_steps)}` : whole(job.step), whole(job.images),
      running ? whole(job.images_per_s) : "–", running ? duration(job.seconds_left) : "–",
      when(job.created_unix_ms), when(job.started_unix_ms), when(job.ended_unix_ms),
    ];
    facts.forEach(({ value }, i) => say(value, values[i]));
    buttons.show(job);
  }

  async function load() {
    job = await get(`/v1/jobs/${encodeURIComponent(id)}`, signal);
    update();
    // A job that had ended and was resumed has new events.
    if (hasEnded && !IS_FINAL[job.state]) follow();
  }

  // What is listed changes together and not for every event: a long run has tens of thousands to begin with.
  let [lines, rows, warnings, best, flushing] = [[], [], [], null, false];
  const grids = latest(() => samples.load());
  function flush() {
    flushing = false;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    lines = lines.slice(-LOG_LINES);
    log.textContent = lines.join("\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
    checkpoints.prepend(...rows.splice(0).reverse());
    while (checkpoints.children.length > ROWS) checkpoints.lastChild.remove();
    alarms.prepend(...warnings.splice(0).slice(-ROWS).reverse());
    while (alarms.children.length > 3) older.prepend(alarms.lastChild);
    olderBox.hidden = older.children.length === 0;
  }
  function later() {
    if (flushing) return;
    flushing = true;
    setTimeout(flush, FLUSH);
  }

  function take(event) {
    lines.push(line(event));
    if (lines.length > 4 * LOG_LINES) lines = lines.slice(-LOG_LINES);
    if (event.event === "step") {
      for (const name of ["loss", "output", "speed"]) panels[name].push(event.step, event);
    } else if (event.event === "sample") {
      grids();
    } else if (event.event === "checkpoint") {
      panels.quality.push(event.step, event);
      buttons.hasModel(true);
      const mark = h("td", { class: "best" }, event.best ? "best" : "");
      if (event.best) {
        if (best) best.textContent = "";
        best = mark;
      }
      rows.push(h("tr", {}, h("td", {}, whole(event.step)), h("td", {}, decimal(event.frechet)), mark));
      if (rows.length > ROWS) rows.shift();
    } else if (event.event === "alarm") {
      warnings.push(h("li", {}, h("strong", {}, `Step ${whole(event.step)}: `), event.message));
      if (warnings.length > ROWS) warnings.shift();
    }
    later();
  }

  let hasShown = false;
  async function follow() {
    hasEnded = false;
    if (hasShown) { // from the beginning: what a resumed run dropped must not stay
      [lines, rows, warnings, best] = [[], [], [], null];
      for (const list of [checkpoints, alarms, older]) fill(list);
      for (const panel of Object.values(panels)) panel.clear();
    }
    for await (const event of events(id, signal)) {
      hasShown = true;
      take(event);
    }
    hasEnded = true;
    if (!signal.aborted) load().catch(() => {});
  }

  signal.addEventListener("abort", () => Object.values(panels).forEach((panel) => panel.close()));
  update();
  follow();
  samples.load().catch(() => {});
  poll(EVERY, signal, () => load()).catch(() => {
    if (!signal.aborted) { notice("The job is gone."); location.hash = "#/jobs"; }
  });
  return [
    h("div", { class: "head" }, h("h1", {}, title(job)), state),
    h("p", { class: "muted id" }, id),
    error, bar, buttons.element,
    h("dl", { class: "facts-grid" }, facts.map(({ element }) => element)),
    alarms, olderBox,
    h("div", { class: "columns" },
      h("div", {}, panels.loss.element, panels.output.element, panels.speed.element, panels.quality.element),
      h("div", {}, samples.element, checkpointCard)),
    h("details", { class: "card" }, h("summary", {}, "Options"), h("pre", {}, JSON.stringify(job.options, null, 2))),
    h("section", { class: "card", "aria-labeledby": "log-title" }, h("h2", { id: "log-title" }, "Log"), log),
  ];
}
