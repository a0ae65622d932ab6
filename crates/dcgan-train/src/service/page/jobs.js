// View #/jobs: the list of jobs.

import { get, poll, post } from "./api.js";
import {
  attempt,
  badge,
  decimal,
  duration,
  fill,
  formatBytes,
  formatTime,
  h,
  setText,
  showNotice,
  whole,
} from "./dom.js";

const STATES = ["queued", "running", "paused", "failed", "cancelled", "done"];
const PAGE_SIZE = 25;
const POLL_INTERVAL = 2000; // ms

/** A job's row. It is created once and then updated, so that it stays the same target for the pointer and the focus. */
function createRow(job, selection) {
  const select = h("input", {
    type: "checkbox",
    "aria-label": `Select ${job.name}`,
    onchange: () => selection.set(job.id, select.checked),
  });
  const state = badge(job.state);
  const progress = h("progress", { max: 1, "aria-label": "Progress" });
  const facts = h("span", { class: "facts" });
  const error = h("span", { class: "error" });
  const element = h(
    "li",
    { class: "job-row" },
    select,
    h(
      "a",
      { class: "card job", href: `#/jobs/${encodeURIComponent(job.id)}` },
      h("span", { class: "job-head" }, h("strong", {}, job.name), state),
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
      isRunning && job.device,
      job.disk_bytes && formatBytes(job.disk_bytes),
    ].filter(Boolean);
    if (String(texts) !== previous)
      fill(
        facts,
        texts.map((text) => h("span", {}, text)),
      );
    previous = String(texts);
    setText(error, job.error ?? "");
    select.checked = selection.has(job.id);
  };
  update(job);
  return { element, update };
}

/** The jobs that are selected, also on other pages of the list. */
class Selection {
  constructor(onChange) {
    Object.assign(this, { ids: new Set(), onChange });
  }

  has(id) {
    return this.ids.has(id);
  }

  set(id, isSelected) {
    if (isSelected) this.ids.add(id);
    else this.ids.delete(id);
    this.onChange(this.ids.size);
  }

  clear() {
    this.ids.clear();
    this.onChange(0);
  }
}

/**
 * Deletes jobs after a confirmation that states their number and size, and why others stay. Returns whether the list
 * may have changed.
 */
async function deleteJobs(body, description) {
  const { would_delete: jobs, disk_bytes: bytes, failed: kept } = await post("/v1/jobs/delete", body);
  const reasons = (failed) => [...new Set(failed.map(({ message }) => message))].join(" ");
  if (!jobs.length) {
    showNotice(reasons(kept) || `There are no ${description} jobs.`);
    return kept.length > 0;
  }
  const count = jobs.length === 1 ? "1 job" : `${whole(jobs.length)} jobs`;
  const others = kept.length ? `\n\nNot deleted: ${reasons(kept)}` : "";
  if (!confirm(`Delete ${count} (${description}) with ${formatBytes(bytes)} of files?${others}`)) return false;
  const { deleted, failed } = await post("/v1/jobs/delete", { ids: jobs, confirm: true });
  const all = [...kept, ...failed];
  showNotice(`${whole(deleted.length)} deleted. ${reasons(all)}`.trim(), all.length > 0);
  return true;
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
  const disk = h("span", { class: "muted" });
  const deleteButton = (text, description, body) =>
    h(
      "button",
      {
        class: "danger",
        onclick: (event) =>
          attempt(event.currentTarget, async () => {
            if (!(await deleteJobs(body(), description))) return;
            selection.clear();
            await load();
          }),
      },
      text,
    );
  const deleteSelected = deleteButton("Delete selected", "selected", () => ({ ids: [...selection.ids] }));
  const selection = new Selection((count) => {
    deleteSelected.hidden = count === 0;
    setText(deleteSelected, `Delete selected (${count})`);
  });
  deleteSelected.hidden = true;

  async function load() {
    const requested = query();
    const page = await get(`/v1/jobs?${requested}`, signal);
    if (requested !== query()) return; // another page or filter was selected meanwhile
    if (!page.jobs.length && pages.length > 1) {
      pages.pop(); // the jobs of this page were deleted
      return load();
    }
    const store = await get("/v1/store", signal);
    const free = store.free_bytes === null ? "" : `, ${formatBytes(store.free_bytes)} free`;
    setText(disk, `Disk space: ${formatBytes(store.disk_bytes)}${free}`);
    next = page.next;
    newer.hidden = pages.length === 1;
    older.hidden = !next;
    empty.hidden = page.jobs.length > 0;
    empty.textContent = state ? `No job is ${state}.` : "No jobs yet.";
    const before = [...rows.keys()].join();
    rows = new Map(page.jobs.map((job) => [job.id, rows.get(job.id) ?? createRow(job, selection)]));
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
    h(
      "div",
      { class: "row" },
      deleteSelected,
      deleteButton("Delete all done", "done", () => ({ states: ["done"] })),
      deleteButton("Delete all failed", "failed", () => ({ states: ["failed"] })),
      disk,
    ),
  ];
}
