// View #/jobs: the list of jobs.

import { get, poll } from "./api.js";
import { badge, decimal, duration, fill, formatTime, h, jobTitle, setText, whole } from "./dom.js";

const STATES = ["queued", "running", "paused", "failed", "cancelled", "done"];
const PAGE_SIZE = 25;
const POLL_INTERVAL = 2000; // ms

/** A job's row. It is created once and then updated, so that it stays the same target for the pointer and the focus. */
function createRow(job) {
  const state = badge(job.state);
  const progress = h("progress", { max: 1, "aria-label": "Progress" });
  const facts = h("span", { class: "facts" });
  const error = h("span", { class: "error" });
  const element = h(
    "li",
    {},
    h(
      "a",
      { class: "card job", href: `#/jobs/${encodeURIComponent(job.id)}` },
      h("span", { class: "job-head" }, h("strong", {}, jobTitle(job)), state),
      progress,
      facts,
      error,
    ),
  );
  let previous = "";
  const update = (job) => {
    setText(state, job.state);
    state.className = `badge ${job.state}`;
    progress.value = job.total_steps ? job.step / job.total_steps : 0;
    const isRunning = job.state === "running";
    const texts = [
      `step ${whole(job.step)}${job.total_steps ? ` of ${whole(job.total_steps)}` : ""}`,
      isRunning && job.images_per_s && `${whole(job.images_per_s)} images/s`,
      isRunning && job.seconds_left !== null && `${duration(job.seconds_left)} left`,
      job.loss_d !== null && `Loss D ${decimal(job.loss_d)}`,
      job.loss_g !== null && `Loss G ${decimal(job.loss_g)}`,
      formatTime(job.created_unix_ms),
    ].filter(Boolean);
    if (String(texts) !== previous)
      fill(
        facts,
        texts.map((text) => h("span", {}, text)),
      );
    previous = String(texts);
    setText(error, job.error ?? "");
  };
  update(job);
  return { element, update };
}

export async function show(_parameters, signal) {
  let state = "";
  let pages = [null]; // `before` of each page up to the current one
  const list = h("ul", { class: "plain jobs" });
  const empty = h("p", { class: "muted", hidden: true });
  const newer = h("button", { class: "quiet", onclick: () => change(() => pages.pop()) }, "Newer");
  const older = h("button", { class: "quiet", onclick: () => change(() => pages.push(next)) }, "Older");
  let next = null;
  let rows = new Map();

  async function load() {
    const requested = query();
    const page = await get(`/v1/jobs?${requested}`, signal);
    if (requested !== query()) return; // another page or filter was selected meanwhile
    next = page.next;
    newer.hidden = pages.length === 1;
    older.hidden = !next;
    empty.hidden = page.jobs.length > 0;
    empty.textContent = state ? `No job is ${state}.` : "No jobs yet.";
    const before = [...rows.keys()].join();
    rows = new Map(page.jobs.map((job) => [job.id, rows.get(job.id) ?? createRow(job)]));
    for (const job of page.jobs) rows.get(job.id).update(job);
    if ([...rows.keys()].join() === before) return;
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    fill(
      list,
      [...rows.values()].map(({ element }) => element),
    );
    focused?.focus({ preventScroll: true });
  }

  function query() {
    const query = new URLSearchParams({ limit: PAGE_SIZE });
    if (state) query.set("state", state);
    if (pages.at(-1)) query.set("before", pages.at(-1));
    return String(query);
  }

  function change(select) {
    select();
    load().catch(() => {});
  }

  const filter = h(
    "select",
    {
      onchange: (event) =>
        change(() => {
          state = event.target.value;
          pages = [null];
        }),
    },
    h("option", { value: "" }, "all"),
    STATES.map((name) => h("option", { value: name }, name)),
  );

  await load();
  poll(POLL_INTERVAL, signal, load).catch(() => {});
  return [
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Jobs"),
      h("label", { class: "inline" }, "State ", filter),
      h("a", { class: "button", href: "#/new" }, "New job"),
    ),
    empty,
    list,
    h("div", { class: "row" }, newer, older),
  ];
}
