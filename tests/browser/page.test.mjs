// The service's page, driven in a real headless Chromium as a reader would drive it.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { keep, launch, open, remove, scratch, serve } from "./service.mjs";

const LONG = 120_000; // ms; nothing takes as long
let browser;

before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/**
 * Runs `body` with a service and a tab on it; afterwards nothing must have gone wrong in the tab. `prepare` makes what the service
 * is given in the folder, and gives back its arguments.
 */
async function visit(body, prepare = async () => []) {
  const folder = await scratch();
  const service = await serve(folder, await prepare(folder));
  try {
    const { page, wrong } = await open(browser, service.url);
    page.setDefaultTimeout(LONG);
    await body(page, service);
    assert.deepEqual(wrong, []);
    await page.context().close();
  } finally {
    await service.stop();
    await remove(folder);
  }
}

const go = async (page, hash, heading) => {
  await page.evaluate((hash) => { location.hash = hash; }, hash);
  await page.getByRole("heading", { level: 1, name: heading }).waitFor();
};

/** Fills in the form and starts the job; its page is open afterwards. */
async function start(page, fields) {
  await go(page, "#/new", "New job");
  await page.getByText("More options").click();
  for (const [name, value] of Object.entries(fields)) await page.locator(`#option-${name}`).fill(String(value));
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator(".facts-grid").waitFor();
}

const LENGTHY = { steps: 100000, log_every: 1, sample_every: 4, checkpoint_every: 6, batch_size: 8, seed: 3 };
const state = (page, name) => page.locator(`.badge.${name}`).first().waitFor();
const chart = (page, name) => page.locator(`canvas[aria-label^="${name}, step"]`);
const stepOf = async (canvas) => Number((await canvas.getAttribute("aria-label")).match(/step ([\d,]+)/)[1].replace(",", ""));

/** A canvas as a string that differs where its picture differs. */
const pixels = (canvas) => canvas.evaluate((canvas) => canvas.toDataURL());

/** Places of a chart that have the colour of its first series, as one string. */
const curve = (canvas) => canvas.evaluate((canvas) => {
  const [, r, g, b] = /^#(..)(..)(..)$/.exec(getComputedStyle(document.documentElement).getPropertyValue("--series-1").trim());
  const wanted = [r, g, b].map((part) => parseInt(part, 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const places = [];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200 && wanted.every((part, k) => Math.abs(data[i + k] - part) < 24)) places.push(i / 4);
  }
  return places.length > 60 ? places.join() : "";
});

test("a job is started, watched, paused, resumed and cancelled", () => visit(async (page) => {
  await start(page, LENGTHY);
  await state(page, "running");

  // The curves move.
  const loss = chart(page, "Loss");
  await loss.waitFor();
  await page.waitForFunction(() => Number(/step (\d+)/.exec(document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label"))[1]) > 4);
  const [step, drawn] = [await stepOf(loss), await curve(loss)];
  assert.notEqual(drawn, "", "there is a curve");
  await page.waitForFunction(([label, step]) => {
    const text = document.querySelector(`canvas[aria-label^="${label}, step"]`).getAttribute("aria-label");
    return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > step + 3;
  }, ["Loss", step]);
  const later = await curve(loss);
  assert.ok(later !== "" && later !== drawn, "the curve is drawn on");
  for (const name of ["D's output", "Images/s"]) await chart(page, name).waitFor();

  // The arrow keys read older values.
  await loss.focus();
  await page.keyboard.press("Home");
  await page.waitForFunction(() => document.querySelector('canvas[aria-label^="Loss"]').getAttribute("aria-label").includes("step 1:"));
  await page.keyboard.press("Escape");

  // Samples come, and the slider goes back through them.
  const image = page.locator(".frame img");
  await page.waitForFunction(() => Number(document.querySelector('input[aria-label="Place in training"]').max) >= 2);
  await page.waitForFunction(() => document.querySelector(".frame img").naturalWidth > 200);
  const newest = await image.getAttribute("src");
  await page.getByLabel("Place in training").focus();
  await page.keyboard.press("Home");
  await page.waitForFunction((newest) => document.querySelector(".frame img").getAttribute("src") !== newest, newest);
  assert.match(await image.getAttribute("alt"), /after 32 pictures, 1 of/);
  await page.getByRole("button", { name: "Real pictures" }).click();
  await page.waitForFunction(() => document.querySelector(".frame img").alt.startsWith("Real pictures"));
  const grids = await page.getByLabel("Place in training").getAttribute("max");
  await page.waitForFunction((grids) => Number(document.querySelector('input[aria-label="Place in training"]').max) > Number(grids), grids);
  assert.match(await image.getAttribute("alt"), /^Real pictures/, "new grids do not take them away");

  // Checkpoints and the log.
  await page.locator("tbody tr").first().waitFor();
  await page.locator("td.best", { hasText: "best" }).first().waitFor();
  await page.waitForFunction(() => /Loss_D: \d.*\n.*checkpoint/s.test(document.querySelector(".log").textContent));

  await page.getByRole("button", { name: "Pause" }).click();
  await state(page, "paused");
  assert.notEqual(await page.evaluate(() => document.activeElement.tagName), "BODY", "the focus goes on");
  const paused = await stepOf(chart(page, "Loss"));
  await page.getByRole("button", { name: "Resume" }).click();
  await state(page, "running");
  await page.waitForFunction((paused) => {
    const text = document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label");
    return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > paused;
  }, paused);

  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download model" }).click()]);
  const zip = await readFile(await download.path());
  assert.equal(zip.subarray(0, 2).toString(), "PK");
  assert.ok(zip.includes("generator.safetensors"));

  page.on("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Cancel" }).click();
  await state(page, "cancelled");
  await keep(page, "job-cancelled");
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByText("No jobs yet.").waitFor();
}));

test("a service that is killed and started again goes on in the open page", () => visit(async (page, service) => {
  await start(page, LENGTHY);
  const loss = chart(page, "Loss");
  await loss.waitFor();
  await service.kill();
  await page.getByText("No answer from the service since").waitFor();
  const step = await stepOf(loss);
  await service.restart();
  await page.getByText("No answer from the service since").waitFor({ state: "hidden" });
  await page.waitForFunction((step) => {
    const text = document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label");
    return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > step + 10;
  }, step);
  const log = (await page.locator(".log").textContent()).split("\n").filter((line) => line.includes("Loss_D"));
  assert.equal(new Set(log.map((line) => line.split("]")[0])).size, log.length, "no step is shown twice");
}));

test("a job is started and read by keyboard alone", () => visit(async (page) => {
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
  const tabTo = async (name) => {
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press("Tab");
      if ((await focused()) === name) return;
    }
    assert.fail(`Tab does not lead to ${name}`);
  };
  await page.getByText("No jobs yet.").waitFor();
  await tabTo("New job");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "New job" }).waitFor();
  await tabTo("option-steps");
  await page.keyboard.type("3");
  await tabTo("Start");
  await page.keyboard.press("Enter");
  await state(page, "done");
  assert.match(await page.locator(".log").textContent(), /\[3\] checkpoint/);
}));

test("faults stand at their fields", () => visit(async (page) => {
  await go(page, "#/new", "New job");
  await page.getByText("More options").click();
  await page.locator("#option-batch_size").fill("0");
  await page.locator("#option-learning_rate").fill("-1");
  await page.locator("#option-data").fill("../secret");
  // What the browser cannot read as a number, or would send as another one, is not left out in silence.
  for (const [typed, said] of [["1e", "not a number"], ["9007199254740993", "up to"]]) {
    await page.locator("#option-seed").fill("");
    await page.locator("#option-seed").pressSequentially(typed);
    await page.getByRole("button", { name: "Start" }).click();
    await page.locator("#option-seed-fault", { hasText: said }).waitFor();
  }
  await page.locator("#option-seed").fill("");
  await page.getByRole("button", { name: "Start" }).click();
  for (const name of ["batch_size", "learning_rate", "data"]) {
    await page.waitForFunction((name) => document.getElementById(`option-${name}-fault`).textContent !== "", name);
    assert.equal(await page.locator(`#option-${name}`).getAttribute("aria-invalid"), "true");
  }
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-invalid")), "true", "the first one has the focus");
  await keep(page, "faults");
}));

test("names of the data become text, never markup", () => {
  const name = "<img src=x>";
  return visit(async (page) => {
    await start(page, { data: name, steps: 2 });
    await state(page, "failed"); // there are no pictures
    assert.ok((await page.locator("h1").textContent()).includes(name));
    await go(page, "#/jobs", "Jobs");
    await page.locator(".job strong", { hasText: name }).waitFor();
    assert.equal(await page.locator("main img").count(), 0);
  }, async (folder) => {
    await mkdir(join(folder, "data", name), { recursive: true });
    return ["--data-root", join(folder, "data")];
  });
});

test("the latent space is explored", () => visit(async (page) => {
  await go(page, "#/explore/faces64", "Explore");
  const tiles = page.locator('[aria-label="Samples"] button');
  await tiles.nth(31).waitFor();
  const first = await pixels(tiles.nth(0).locator("canvas"));
  await page.getByRole("button", { name: "Next" }).click();
  await page.locator('[data-name="2:0"]').waitFor();
  assert.notEqual(await pixels(tiles.nth(0).locator("canvas")), first, "another seed, other samples");
  await page.getByRole("button", { name: "Previous" }).click();
  await page.locator('[data-name="1:0"]').waitFor();
  assert.equal(await pixels(tiles.nth(0).locator("canvas")), first, "the same seed, the same samples");

  // By mouse, and by keyboard.
  await tiles.nth(2).click();
  await tiles.nth(2).focus();
  for (const key of ["ArrowRight", "ArrowRight", "Enter"]) await page.keyboard.press(key);
  assert.equal(await tiles.nth(4).getAttribute("aria-pressed"), "true");

  // The walk's ends are the samples.
  const walk = page.locator(".frame canvas");
  const shows = (tile) => page.waitForFunction(([wanted, size]) => {
    const canvas = document.querySelector(".frame canvas");
    return canvas && canvas.width === size && canvas.toDataURL() === wanted;
  }, [tile, 64]);
  const [from, to] = [await pixels(tiles.nth(2).locator("canvas")), await pixels(tiles.nth(4).locator("canvas"))];
  await shows(from);
  await page.getByLabel("Place on the walk").focus();
  await page.keyboard.press("End");
  await shows(to);
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction((to) => document.querySelector(".frame canvas").toDataURL() !== to, to);
  assert.ok(await walk.isVisible());
  await keep(page, "walk");
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save z of the steps" }).click()]);
  const file = await readFile(await download.path());
  const length = Number(file.readBigUInt64LE(0));
  assert.deepEqual(JSON.parse(file.subarray(8, 8 + length)).z.shape, [9, 100]);
  assert.equal(file.length, 8 + length + 9 * 100 * 4);
  console.log(`# ${await page.locator("[data-ms]").textContent()}`);

  // A pick that is taken back leaves the walk where it was, and the focus among the picks.
  await tiles.nth(9).click();
  const place = await page.getByLabel("Place on the walk").inputValue();
  await page.getByRole("button", { name: "Remove sample 1:9" }).press("Enter");
  assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /^Remove sample/);
  assert.equal(await page.getByLabel("Place on the walk").inputValue(), place);

  // Arithmetic: A - B + C with B = C gives A back.
  await page.getByRole("tab", { name: "Arithmetic" }).click();
  for (const [group, picks] of [["A", [2]], ["− B", [5, 6]], ["+ C", [5, 6]]]) {
    await page.getByRole("radio", { name: group }).check();
    for (const pick of picks) await tiles.nth(pick).click();
  }
  await page.waitForFunction((from) => {
    const cells = document.querySelectorAll(".nine canvas");
    const near = (a, b) => {
      const [p, q] = [a, b].map((canvas) => canvas.getContext("2d").getImageData(0, 0, 64, 64).data);
      return p.every((value, i) => Math.abs(value - q[i]) <= 1);
    };
    const picked = document.querySelector('[data-name="1:2"] canvas');
    return cells.length === 9 && near(cells[4], picked) && !near(cells[0], picked);
  }, from);
  await keep(page, "arithmetic");

  for (const [hash, text] of [["#/explore/nothing", "There is no model nothing"], ["#/constructor", "There is nothing here"], ["#/explore/100%", "Not shown"]]) {
    await page.evaluate((hash) => { location.hash = hash; }, hash);
    await page.getByText(text).waitFor();
  }
}));

test("a token is asked for, and a wrong one is refused", () => visit(async (page) => {
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  for (const [token, isRight] of [["a wrong one", false], ["tökén€", false], ["the-right-one", true]]) {
    await dialog.getByLabel("Token").fill(token);
    await page.keyboard.press("Enter");
    if (!isRight) await dialog.getByText("does not know this token").waitFor();
  }
  await page.getByText("No jobs yet.").waitFor();
}, async (folder) => {
  await writeFile(join(folder, "token.txt"), "the-right-one\n");
  return ["--token-file", join(folder, "token.txt")];
}));

test("every view is readable: wide and narrow, light and dark", async () => {
  const axe = await readFile(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8");
  await visit(async (page, { url }) => {
    await start(page, { steps: 24, log_every: 1, sample_every: 8, checkpoint_every: 8, batch_size: 8 });
    await state(page, "done");
    const job = await page.evaluate(() => location.hash);
    for (const [width, colorScheme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme });
      for (const [name, hash, heading, ready] of [
        ["jobs", "#/jobs", "Jobs", ".job"],
        ["new", "#/new", "New job", "#option-steps"],
        ["job", job, "digits", ".frame img[src]"],
        ["explore", "#/explore/faces64", "Explore", '[data-name="1:31"]'],
      ]) {
        await page.goto(`${url}/${hash}`);
        await page.reload();
        await page.getByRole("heading", { level: 1, name: heading }).waitFor();
        await page.locator(ready).first().waitFor();
        if (name === "job") await chart(page, "Loss").waitFor();
        if (name === "explore") {
          for (const pick of ["1:1", "1:10", "1:22"]) await page.locator(`[data-name="${pick}"]`).click();
          await page.waitForTimeout(700);
        }
        const where = `${name}, ${width} wide, ${colorScheme}`;
        const overhang = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overhang <= 0, `${where}: ${overhang} pixels to the right of the screen`);
        await page.evaluate(axe);
        const readable = async () => {
          const { violations, incomplete } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa"] }));
          // A name that a role forbids counts where the element is empty; what may be filled or empty by chance is to hold either way.
          const faults = [...violations, ...incomplete.filter(({ id }) => id === "aria-prohibited-attr")];
          assert.deepEqual(faults.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map(({ html }) => html).join(" | ")}`), []);
        };
        await readable();
        await keep(page, `${name}-${width}-${colorScheme}`);
        if (name === "explore") {
          await page.getByRole("tab", { name: "Arithmetic" }).click();
          await page.locator('[data-name="1:3"]').click();
          await page.locator(".nine canvas").first().waitFor();
          await readable();
        }
      }
    }
  });
});
