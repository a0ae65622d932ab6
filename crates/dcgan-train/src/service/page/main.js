// Routing of the views #/jobs, #/new, #/jobs/ID, #/explore/MODEL, and the theme.

import { serviceUrl } from "./api.js";
import { fill, h, settings } from "./dom.js";
import * as jobs from "./jobs.js";
import * as form from "./new.js";
import * as job from "./job.js";
import * as explore from "./explore.js";

const VIEWS = new Map(Object.entries({ jobs, new: form, explore }));
const THEMES = ["auto", "light", "dark"];
// Other services may live below other paths of the same origin, which share one storage.
const THEME_KEY = `dcgan-theme ${serviceUrl("")}`;

const main = document.getElementById("main");
let activeView = new AbortController();

async function route(isFirst = false) {
  activeView.abort();
  activeView = new AbortController();
  const { signal } = activeView;
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  const name = parts[0];
  const view = name === "jobs" && parts[1] ? job : VIEWS.get(name || "jobs");
  for (const link of document.querySelectorAll("nav a")) {
    const isCurrent = link.getAttribute("href") === (view === job ? "#/jobs" : `#/${name || "jobs"}`);
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const parameters = parts.slice(1).map(decodeURIComponent);
    const content = view
      ? await view.show(parameters, signal)
      : [h("h1", {}, "Not found"), h("p", {}, "This page does not exist.")];
    if (signal.aborted) return;
    fill(main, content);
    document.title = `${main.querySelector("h1")?.textContent ?? "dcgan-train"} – dcgan-train`;
    if (!isFirst) main.focus({ preventScroll: true });
    scrollTo(0, 0);
  } catch (error) {
    if (!signal.aborted) {
      fill(
        main,
        h("h1", {}, "Error"),
        h("p", { class: "error", role: "alert" }, error.message),
        h("p", {}, h("button", { onclick: () => route() }, "Try again")),
      );
    }
  }
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  settings.set(THEME_KEY, name);
  document.getElementById("theme").textContent = `Theme: ${name}`;
  dispatchEvent(new Event("themechange"));
}

document.getElementById("theme").addEventListener("click", () => {
  const current = settings.get(THEME_KEY) ?? "auto";
  setTheme(THEMES[(THEMES.indexOf(current) + 1) % THEMES.length]);
});
document.getElementById("skip").addEventListener("click", () => main.focus());
addEventListener("hashchange", () => route());
setTheme(settings.get(THEME_KEY) ?? "auto");
route(true);
