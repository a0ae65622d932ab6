// The form of a new job. Its fields, their types, limits, choices and help are those of JobOptions in /openapi.json.

import { get, post } from "./api.js";
import { attempt, fill, h, latestOnly, setText, whole } from "./dom.js";

// Options that most jobs need, in the order of the form; all others are under "More options".
const FIRST = ["name", "data", "steps", "batch_size", "seed", "dtype", "mirror"];
const LABELS = {
  name: "Name", data: "Images", steps: "Steps", batch_size: "Batch size", seed: "Seed", dtype: "Precision", mirror: "Mirror images",
  config: "Own networks (TOML)", init_from: "Start from model", skip_bad: "Skip unreadable images", ema: "EMA decay",
};
// Options that determine the networks, how images are fitted to them, and how long they are trained.
const PREVIEWED = ["preset", "config", "data", "size", "channels", "crop", "batch_size", "learning_rate", "steps", "epochs", "images"];
const LISTS = { data: "data-names", init_from: "model-names" };

const label = (name) => LABELS[name] ?? (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

/** An input for an option of the schema, with its description and its error. */
function field(name, { type, description, enum: choices, minimum }, presets) {
  const id = `option-${name}`;
  if (Array.isArray(type)) [type] = type; // a flag that takes a number as well
  const common = { id, name, "aria-describedby": `${id}-help ${id}-fault` };
  let input;
  if (name === "config") input = h("textarea", { ...common, rows: 6, spellcheck: "false", class: "code" });
  else if (choices) input = h("select", common, h("option", { value: "" }, "as in the preset"), choices.map((choice) => h("option", {}, choice)));
  else if (name === "preset") input = h("select", common, h("option", { value: "" }, "by the images"), presets.map(({ name }) => h("option", {}, name)));
  else if (type === "boolean") input = h("input", { ...common, type: "checkbox" });
  else if (type === "string") input = h("input", { ...common, type: "text", autocomplete: "off", list: LISTS[name] });
  else input = h("input", { ...common, type: "number", step: type === "number" ? "any" : 1, min: minimum ?? 0 });
  const help = h("small", { id: `${id}-help`, class: "muted" }, description);
  const fault = h("small", { id: `${id}-fault`, class: "error" });
  const text = h("label", { for: id }, label(name));
  return { name, type, input, fault, help, element: h("div", { class: type === "boolean" ? "field check" : "field" }, type === "boolean" ? [input, text] : [text, input], help, fault) };
}

/** The values of the form; the preset has those of empty fields. */
function options(fields) {
  const found = {};
  for (const { name, type, input } of fields) {
    if (type === "boolean") {
      if (input.checked) found[name] = true;
    } else if (input.value.trim() !== "") {
      found[name] = type === "string" ? input.value.trim() : Number(input.value);
    }
  }
  if (found.config) delete found.preset;
  return found;
}

/** The error of a value that a browser cannot send as it was typed. */
function unreadable({ name, type, input }) {
  const isLarge = type === "integer" && input.value !== "" && !Number.isSafeInteger(Number(input.value));
  if (input.validity.badInput) return { field: name, message: "This is not a number." };
  return isLarge && { field: name, message: "An integer up to 9,007,199,254,740,991 is expected; larger ones can be sent by HTTP." };
}

export async function show(_parts, signal) {
  const [description, { presets }, { data }, { models }] = await Promise.all(
    ["/openapi.json", "/v1/presets", "/v1/data", "/v1/models"].map((path) => get(path, signal)));
  const { properties } = description.components.schemas.JobOptions;
  const fields = Object.entries(properties).map(([name, property]) => field(name, property, presets));
  const named = Object.fromEntries(fields.map((field) => [field.name, field]));
  const previewed = PREVIEWED.filter((name) => named[name]).map((name) => named[name]);
  const rest = fields.filter(({ name }) => name !== "preset" && !FIRST.includes(name));
  const about = h("p", { class: "muted", role: "status" });
  const warnings = h("ul", { class: "plain alarms", "aria-live": "polite", "aria-label": "Warnings" });
  const general = h("p", { class: "error", role: "alert" });
  const more = h("details", { class: "card" }, h("summary", {}, "More options"), h("div", { class: "fields" }, rest.map(({ element }) => element)));

  /** Shows the networks that a job with the options of the form would train, and what does not fit its images. */
  const describe = latestOnly(async () => {
    if (previewed.some(unreadable)) return;
    let found;
    try {
      found = await post("/v1/jobs/preview", options(previewed), signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      setText(about, (error.faults?.length ? error.faults : [error]).map(({ message }) => message).join("; "));
      fill(warnings);
      for (const name of ["batch_size", "learning_rate", "steps"]) named[name].input.placeholder = "";
      return;
    }
    const { training, latent } = found;
    const what = `${found.networks} at ${found.height}x${found.width}, ${found.color}`;
    const subject = found.chosen_by_images ? `${found.images}: preset ${what}` : `${what}${named.data.input.value.trim() ? "" : ", on the embedded digits"}`;
    const length = training.images ? `${whole(training.images)} images read`
      : training.epochs ? `${whole(training.epochs)} epochs` : training.steps ? `${whole(training.steps)} steps` : "length to be given";
    setText(about, `${subject}; size of z: ${latent.size}, ${latent.distribution}; batch ${training.batch_size}, learning rate ${training.learning_rate}, ${length}.`);
    fill(warnings, found.warnings.map((text) => h("li", {}, text)));
    named.batch_size.input.placeholder = training.batch_size;
    named.learning_rate.input.placeholder = training.learning_rate;
    named.steps.input.placeholder = training.images ? Math.ceil(training.images / training.batch_size) : training.steps ?? "";
  });
  for (const { input } of previewed) input.addEventListener("change", () => describe());
  named.seed.input.placeholder = "0";
  describe();

  function refuse(error) {
    for (const { fault, input } of fields) {
      fill(fault);
      input.removeAttribute("aria-invalid");
    }
    fill(general);
    if (!error) return;
    const others = [];
    let first = null;
    for (const { field: name, message } of error.faults ?? []) {
      const place = named[name];
      if (!place) { others.push(message); continue; }
      place.fault.append(h("span", {}, message));
      place.input.setAttribute("aria-invalid", "true");
      if (rest.includes(place)) more.open = true;
      first ??= place.input;
    }
    if (!first && !others.length) others.push(error.message);
    general.textContent = others.join("; ");
    first?.focus();
  }

  const submit = h("button", { type: "submit" }, "Start");
  const form = h("form", {
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      attempt(submit, async () => {
        refuse(null);
        const unread = fields.map(unreadable).filter(Boolean);
        if (unread.length) { refuse({ faults: unread }); return; }
        try {
          const job = await post("/v1/jobs", options(fields), signal);
          location.hash = `#/jobs/${job.id}`;
        } catch (error) {
          if (error.status !== 422) throw error;
          refuse(error);
        }
      });
    },
  },
  h("div", { class: "card" }, named.preset.element, about, warnings,
    h("div", { class: "fields" }, FIRST.map((name) => named[name].element))),
  more, general, h("div", { class: "row" }, submit, h("a", { href: "#/jobs", class: "button quiet" }, "Back")),
  h("datalist", { id: "data-names" }, data.map(({ name }) => h("option", { value: name }))),
  h("datalist", { id: "model-names" }, models.map(({ id, name }) => h("option", { value: id }, name))));
  return [h("h1", {}, "New job"), form];
}
