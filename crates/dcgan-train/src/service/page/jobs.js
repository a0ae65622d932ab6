// The list of jobs.

import { get, poll } from "./api.js";
import { badge, decimal, duration, fill, h, say, title, when, whole } from "./dom.js";

const STATES = ["queued", "running", "paused", "failed", "cancelled", "done"];
const PAGE = 25;
const EVERY = 2000; // ms

/** A job's row, which is made once and then kept true: a reader may be about to press it. */
function row(job) {
  const state = badge(job.state);
  const progress = h("progress", { max: 1, "aria-label": "Progress" });
  const facts = h("span", { class: "facts" });
  const error = h("span", { class: "error" });
  const element = h("li", {}, h("a", { class: "card job", href: `#/jobs/${encodeURIComponent(job.id)}` },
    h("span", { class: "job-head" }, h("strong", {}, title(job)), state), progress, facts, error));
  let shown = "";
  const show = (job) => {
    say(state, job.state);
    state.className = `badge ${job.state}`;
    progress.value = job.total_steps ? job.step / job.total_steps : 0;
    const isRunning = job.state === "running";
    const texts = [
      `step ${whole(job.step)}${job.total_steps ? ` of ${whole(job.total_steps)}` : ""}`,
      isRunning && job.images_per_s && `${whole(job.images_per_s)} images/s`,
      isRunning && job.seconds_left !== null && `${duration(job.seconds_left)} left`,
      job.loss_d !== null && `Loss D ${decimal(job.loss_d)}`,
      job.loss_g !== null && `Loss G ${decimal(job.loss_g)}`,
      when(job.created_unix_ms),
    ].filter(Boolean);
    if (String(texts) !== shown) fill(facts, texts.map((text) => h("span", {}, text)));
    shown = String(texts);
    say(error, job.error ?? "");
  };
  show(job);
  return { element, show };
}

export async function show(_parts, signal) {
  let state = "";
  let pages = [null]; // `before` of each page up to the shown one
  const list = h("ul", { class: "plain jobs" });
  const empty = h("p", { class: "muted", hidden: true });
  const newer = h("button", { class: "quiet", onclick: () => turn(() => pages.pop()) }, "Newer");
  const older = h("button", { class: "quiet", onclick: () => turn(() => pages.push(next)) }, "Older");
  let next = null;
  let rows = new Map();

  async function load() {
    const asked = query();
    const answer = await get(`/v1/jobs?${asked}`, signal);
    if (asked !== query()) return; // the reader has turned on meanwhile
    next = answer.next;
    newer.hidden = pages.length === 1;
    older.hidden = !next;
    empty.hidden = answer.jobs.length > 0;
    empty.textContent = state ? `No job is ${state}.` : "No jobs yet.";
    const before = [...rows.keys()].join();
    rows = new Map(answer.jobs.map((job) => [job.id, rows.get(job.id) ?? row(job)]));
    for (const job of answer.jobs) rows.get(job.id).show(job);
    if ([...rows.keys()].join() === before) return;
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    fill(list, [...rows.values()].map(({ element }) => element));
    focused?.focus({ preventScroll: true });
  }

  function query() {
    const query = new URLSearchParams({ limit: PAGE });
    if (state) query.set("state", state);
    if (pages.at(-1)) query.set("before", pages.at(-1));
    return String(query);
  }

  function turn(change) {
    change();
    load().catch(() => {});
  }

  const filter = h("select", {
    onchange: (event) => turn(() => { state = event.target.value; pages = [null]; }),
  }, h("option", { value: "" }, "all"), STATES.map((name) => h("option", { value: name }, name)));

  await load();
  poll(EVERY, signal, load).catch(() => {});
  return [
    h("div", { class: "head" },
      h("h1", {}, "Jobs"),
      h("label", { class: "inline" }, "State ", filter),
      h("a", { class: "button", href: "#/new" }, "New job")),
    empty, list,
    h("div", { class: "row" }, newer, older),
  ];
}
