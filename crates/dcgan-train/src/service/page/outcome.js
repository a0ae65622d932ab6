// Parts of a job's view: the way past its error, and what it recorded of its images and of its end.

import { get, post } from "./api.js";
import { attempt, fill, h, setText, whole } from "./dom.js";

const LABELS = {
  accept_data_change: "Accept the changed images and resume",
  skip_bad: "Skip unreadable images and resume",
};

/** The way past the error of a failed job: what it changes, and a button. `onResumed` is called after its success. */
export function createRemedy(id, onResumed) {
  let option = null;
  const effect = h("p");
  const button = h("button", {
    onclick: () =>
      attempt(button, async () => {
        await post(`/v1/jobs/${encodeURIComponent(id)}/resume`, { [option]: true });
        await onResumed();
      }),
  });
  const element = h(
    "section",
    { class: "card", hidden: true, "aria-labelledby": "remedy-title" },
    h("h2", { id: "remedy-title" }, "How to continue"),
    effect,
    h("div", { class: "row" }, button),
  );
  const update = ({ remedy }) => {
    element.hidden = !remedy;
    if (!remedy) return;
    ({ option } = remedy);
    setText(effect, remedy.effect);
    setText(button, LABELS[option] ?? `Resume with ${option}`);
  };
  return { element, update };
}

/** The images that a job trains on, and at its end its result. */
export function createSummary(id, signal) {
  const images = h("p", { class: "muted" });
  const changes = h("ul");
  const advice = h("p");
  const imagesCard = h(
    "section",
    { class: "card", hidden: true, "aria-labelledby": "images-title" },
    h("h2", { id: "images-title" }, "Images"),
    images,
    changes,
  );
  const resultCard = h(
    "section",
    { class: "card", hidden: true, "aria-labelledby": "result-title" },
    h("h2", { id: "result-title" }, "Result"),
    advice,
  );

  let [shownState, isComplete] = [null, false];
  /** Loads the summary again after a change of the job's state, and until the job has recorded its images. */
  async function update({ state }) {
    if (state === shownState && isComplete) return;
    const summary = await get(`/v1/jobs/${encodeURIComponent(id)}/summary`, signal);
    shownState = state;
    isComplete = state !== "running" || summary.images !== null;
    const skipped = summary.skipped ? `; ${whole(summary.skipped)} unreadable ones are left out` : "";
    imagesCard.hidden = summary.images === null;
    setText(images, `${whole(summary.images)} images in an epoch${skipped}`);
    fill(
      changes,
      summary.changes.map(({ step, description }) => h("li", {}, `from step ${whole(step)} on: ${description}`)),
    );
    changes.hidden = summary.changes.length === 0;
    resultCard.hidden = !summary.advice;
    setText(advice, summary.advice ?? "");
  }
  return { imagesCard, resultCard, update };
}
