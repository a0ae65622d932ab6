// The list of jobs.

import { get, poll } from "./api.js";
import { badge, decimal, duration, fill, h, title, when, whole } from "./dom.js";

const STATES = ["queued", "running", "paused", "failed", "cancelled", "done"];
const PAGE = 25;
const EVERY = 2000; // ms

function row(job) {
  const share = job.total_steps ? job.step / job.total_steps : 0;
  const speed = job.state === "running" && job.images_per_s ? `${whole(job.images_per_s)} images/s` : "";
  const left = job.state === "running" && job.seconds_left !== null ? `${duration(job.seconds_left)} left` : "";
  return h("li", {},
    h("a", { class: "card job", href: `#/jobs/${job.id}` },
      h("span", { class: "job-head" }, h("strong", {}, title(job)), badge(job.state)),
      h("progress", { max: 1, value: share, "aria-label": "Progress" }),
      h("span", { class: "facts" },
        h("span", {}, `step ${whole(job.step)}${job.total_steps ? ` of ${whole(job.total_steps)}` : ""}`),
        speed && h("span", {}, speed),
        left && h("span", {}, left),
        job.loss_d !== null && h("span", {}, `Loss D ${decimal(job.loss_d)}`),
        job.loss_g !== null && h("span", {}, `Loss G ${decimal(job.loss_g)}`),
        h("span", { class: "muted" }, when(job.created_unix_ms))),
      job.error && h("span", { class: "error" }, job.error)));
}

export async function show(_parts, signal) {
  let state = "";
  let pages = [null]; // `before` of each page up to the shown one
  const list = h("ul", { class: "plain jobs" });
  const empty = h("p", { class: "muted", hidden: true });
  const newer = h("button", { class: "quiet", onclick: () => turn(() => pages.pop()) }, "Newer");
  const older = h("button", { class: "quiet", onclick: () => turn(() => pages.push(next)) }, "Older");
  let next = null;
  let shown = "";

  async function load() {
    const asked = query();
    const answer = await get(`/v1/jobs?${asked}`, signal);
    if (asked !== query()) return; // the reader has turned on meanwhile
    next = answer.next;
    newer.hidden = pages.length === 1;
    older.hidden = !next;
    empty.hidden = answer.jobs.length > 0;
    empty.textContent = state ? `No job is ${state}.` : "No jobs yet.";
    // Rows are made anew only when something changed, and the one that is focused stays so.
    const text = JSON.stringify(answer.jobs);
    if (text === shown) return;
    shown = text;
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    fill(list, answer.jobs.map(row));
    if (focused) list.querySelector(`a[href="${focused}"]`)?.focus({ preventScroll: true });
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
