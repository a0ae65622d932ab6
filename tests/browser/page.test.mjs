// End-to-end tests of the service's page in headless Chromium.

import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { checkAccessibility, launch, makeFolder, open, proxy, removeFolder, screenshot, serve } from "./service.mjs";

const TIMEOUT = 120_000; // ms
let browser;

before(async () => {
  browser = await launch();
});
after(async () => {
  await browser?.close();
});

/**
 * Runs `body` with a service and a tab on its page, and asserts that it had no problems. `prepare` creates files in
 * the service's folder and returns additional arguments.
 */
async function withPage(body, prepare = async () => []) {
  const folder = await makeFolder();
  const service = await serve(folder, await prepare(folder));
  try {
    const { page, problems } = await open(browser, service.url);
    page.setDefaultTimeout(TIMEOUT);
    await body(page, service);
    assert.deepEqual(problems, []);
    await page.context().close();
  } finally {
    await service.stop();
    await removeFolder(folder);
  }
}

const goTo = async (page, hash, heading) => {
  await page.evaluate((hash) => {
    location.hash = hash;
  }, hash);
  await page.getByRole("heading", { level: 1, name: heading }).waitFor();
};

/** Submits a job with the form, with values of fields and flags that are set, and waits for its view. */
async function submitJob(page, fields, flags = []) {
  await goTo(page, "#/new", "New job");
  await page.getByText("More options").click();
  for (const [name, value] of Object.entries(fields)) await page.locator(`#option-${name}`).fill(String(value));
  for (const name of flags) await page.locator(`#option-${name}`).check();
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator(".facts-grid").waitFor();
}

const LONG_JOB = { steps: 100000, log_every: 1, sample_every: 4, checkpoint_every: 6, batch_size: 8, seed: 3 };
const waitForState = (page, name) => page.locator(`.badge.${name}`).first().waitFor();
const chart = (page, name) => page.locator(`canvas[aria-label^="${name}, step"]`);
const stepOf = async (canvas) =>
  Number((await canvas.getAttribute("aria-label")).match(/step ([\d,]+)/)[1].replace(",", ""));

/** The pixels of a canvas as a string. */
const pixels = (canvas) => canvas.evaluate((canvas) => canvas.toDataURL());

/** The pixels of a chart in the color of its first series, as a string; empty if there are few. */
const curve = (canvas) =>
  canvas.evaluate((canvas) => {
    const [, r, g, b] = /^#(..)(..)(..)$/.exec(
      getComputedStyle(document.documentElement).getPropertyValue("--series-1").trim(),
    );
    const color = [r, g, b].map((channel) => parseInt(channel, 16));
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const pixels = [];
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 200 && color.every((value, k) => Math.abs(data[i + k] - value) < 24)) pixels.push(i / 4);
    }
    return pixels.length > 60 ? pixels.join() : "";
  });

test("a job is submitted, followed, paused, resumed, cancelled and deleted", () =>
  withPage(async (page) => {
    await submitJob(page, LONG_JOB);
    await waitForState(page, "running");

    // The charts are updated.
    const loss = chart(page, "Loss");
    await loss.waitFor();
    await page.waitForFunction(
      () =>
        Number(
          /step (\d+)/.exec(document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label"))[1],
        ) > 4,
    );
    const [step, drawn] = [await stepOf(loss), await curve(loss)];
    assert.notEqual(drawn, "", "the chart has a curve");
    await page.waitForFunction(
      ([label, step]) => {
        const text = document.querySelector(`canvas[aria-label^="${label}, step"]`).getAttribute("aria-label");
        return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > step + 3;
      },
      ["Loss", step],
    );
    const later = await curve(loss);
    assert.ok(later !== "" && later !== drawn, "the curve was extended");
    for (const name of ["D's output", "Images/s"]) await chart(page, name).waitFor();

    // The keyboard selects older points.
    await loss.focus();
    await page.keyboard.press("Home");
    await page.waitForFunction(() =>
      document.querySelector('canvas[aria-label^="Loss"]').getAttribute("aria-label").includes("step 1:"),
    );
    await page.keyboard.press("Escape");

    // Samples appear, and the slider selects older ones.
    const image = page.locator(".frame img");
    await page.waitForFunction(
      () => Number(document.querySelector('input[aria-label="Position in training"]').max) >= 2,
    );
    await page.waitForFunction(() => document.querySelector(".frame img").naturalWidth > 200);
    const newest = await image.getAttribute("src");
    await page.getByLabel("Position in training").focus();
    await page.keyboard.press("Home");
    await page.waitForFunction((newest) => document.querySelector(".frame img").getAttribute("src") !== newest, newest);
    assert.match(await image.getAttribute("alt"), /after 32 images, 1 of/);
    await page.getByRole("button", { name: "Real images" }).click();
    await page.waitForFunction(() => document.querySelector(".frame img").alt.startsWith("Grid of real images"));
    const grids = await page.getByLabel("Position in training").getAttribute("max");
    await page.waitForFunction(
      (grids) => Number(document.querySelector('input[aria-label="Position in training"]').max) > Number(grids),
      grids,
    );
    assert.match(await image.getAttribute("alt"), /^Grid of real images/, "new samples do not replace the real images");

    // Checkpoints and the log.
    await page.locator("tbody tr").first().waitFor();
    await page.locator("td.best", { hasText: "best" }).first().waitFor();
    await page.waitForFunction(() => /Loss_D: \d.*\n.*checkpoint/s.test(document.querySelector(".log").textContent));

    await page.getByRole("button", { name: "Pause" }).click();
    await waitForState(page, "paused");
    assert.notEqual(
      await page.evaluate(() => document.activeElement.tagName),
      "BODY",
      "the focus moves to another action",
    );
    const paused = await stepOf(chart(page, "Loss"));
    await page.getByRole("button", { name: "Resume" }).click();
    await waitForState(page, "running");
    await page.waitForFunction((paused) => {
      const text = document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label");
      return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > paused;
    }, paused);

    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Download model" }).click(),
    ]);
    const zip = await readFile(await download.path());
    assert.equal(zip.subarray(0, 2).toString(), "PK");
    assert.ok(zip.includes("generator.safetensors"));

    page.on("dialog", (dialog) => dialog.accept());
    await page.getByRole("button", { name: "Cancel" }).click();
    await waitForState(page, "cancelled");
    await screenshot(page, "job-cancelled");
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByText("No jobs yet.").waitFor();
  }));

test("jobs are named, trained longer, stripped of their optimizer state, and deleted together", () =>
  withPage(async (page) => {
    const dialogs = [];
    page.on("dialog", (dialog) => {
      dialogs.push(dialog.message());
      return dialog.accept();
    });
    await submitJob(page, { name: "First <try>", steps: 4 });
    await page.getByRole("heading", { level: 1, name: "First <try>" }).waitFor();
    await waitForState(page, "done");
    const fact = (name) => page.locator(".facts-grid div", { hasText: name }).locator("dd");
    assert.equal(await fact("Device").textContent(), "cpu");
    assert.match(await fact("Disk space").textContent(), /^[\d.]+ MB$/);
    assert.match(await fact("Submitted").textContent(), new RegExp(String(new Date().getFullYear())));

    // The form proposes twice the length.
    const steps = page.getByLabel("Steps", { exact: true });
    assert.equal(await steps.inputValue(), "8");
    await steps.fill("4");
    await page.getByRole("button", { name: "Train longer" }).click();
    await page.getByText("expected more than the 4 steps taken").waitFor();
    await steps.fill("6");
    await page.getByRole("button", { name: "Train longer" }).click();
    await page.waitForFunction(() => document.querySelector(".facts-grid dd").textContent === "6 of 6");
    await waitForState(page, "done");
    await page.waitForFunction(() => /\[6\] checkpoint/.test(document.querySelector(".log").textContent));

    await page.getByRole("button", { name: "Drop optimizer state" }).click();
    await page.getByText("The optimizer state was dropped").waitFor();
    assert.equal(await page.getByRole("button", { name: "Train longer" }).isVisible(), false);
    assert.equal(await page.getByRole("button", { name: "Drop optimizer state" }).isVisible(), false);
    assert.match(dialogs.pop(), /cannot be resumed/);

    // The explorer names jobs and their dates.
    await goTo(page, "#/explore", "Explore");
    const option = page.locator("option", { hasText: "First <try>" });
    assert.match(await option.textContent(), new RegExp(`^First <try>, .*${new Date().getFullYear()}.*28x28`));

    for (const name of ["second", "third"]) {
      await submitJob(page, { name, steps: 2 });
      await waitForState(page, "done");
    }
    await submitJob(page, { name: "the long one", ...LONG_JOB });
    await waitForState(page, "running");
    await goTo(page, "#/jobs", "Jobs");
    const row = (name) => page.locator(".job strong", { hasText: name });
    await row("second").waitFor();
    await page.getByText(/Disk space: [\d.]+ MB, .* free/).waitFor();
    await page.getByLabel("Select second").check();
    await page.getByLabel("Select the long one").check();
    await page.getByRole("button", { name: "Delete selected (2)" }).click();
    await row("second").waitFor({ state: "detached" });
    assert.match(dialogs.pop(), /^Delete 1 job \(selected\) with [\d.]+ MB of files\?\n\nNot deleted: .*running/);
    await page.locator("#notice", { hasText: /^1 deleted\. .*running/ }).waitFor();
    const selected = page.getByRole("button", { name: /Delete selected/ });
    assert.equal(await selected.isVisible(), false);
    // A selected job that cannot be deleted does not stay selected.
    await page.getByLabel("Select the long one").check();
    await selected.click();
    await page.locator("#notice", { hasText: /running/ }).waitFor();
    await selected.waitFor({ state: "hidden" });
    await page.getByRole("button", { name: "Delete all failed" }).click();
    await page.getByText("There are no failed jobs.").waitFor();
    await page.getByRole("button", { name: "Delete all done" }).click();
    await row("third").waitFor({ state: "detached" });
    assert.match(dialogs.pop(), /^Delete 2 jobs \(done\)/);
    assert.equal(await page.locator(".job").count(), 1, "the running job stays");
    assert.equal(dialogs.length, 0);
  }));

test("the open page continues after the service was killed and restarted", () =>
  withPage(async (page, service) => {
    await submitJob(page, LONG_JOB);
    const loss = chart(page, "Loss");
    await loss.waitFor();
    await service.kill();
    await page.getByText("No response from the service since").waitFor();
    const step = await stepOf(loss);
    await service.restart();
    await page.getByText("No response from the service since").waitFor({ state: "hidden" });
    await page.waitForFunction((step) => {
      const text = document.querySelector('canvas[aria-label^="Loss, step"]').getAttribute("aria-label");
      return Number(text.match(/step ([\d,]+)/)[1].replace(",", "")) > step + 10;
    }, step);
    const log = (await page.locator(".log").textContent()).split("\n").filter((line) => line.includes("Loss_D"));
    assert.equal(new Set(log.map((line) => line.split("]")[0])).size, log.length, "no step is logged twice");
  }));

test("a job is submitted and read by keyboard alone", () =>
  withPage(async (page) => {
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
    const tabTo = async (name) => {
      for (let i = 0; i < 60; i++) {
        await page.keyboard.press("Tab");
        if ((await focused()) === name) return;
      }
      assert.fail(`Tab does not reach ${name}`);
    };
    await page.getByText("No jobs yet.").waitFor();
    await tabTo("New job");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "New job" }).waitFor();
    await tabTo("option-steps");
    await page.keyboard.type("3");
    await tabTo("Start");
    await page.keyboard.press("Enter");
    await waitForState(page, "done");
    assert.match(await page.locator(".log").textContent(), /\[3\] checkpoint/);
  }));

test("faults are shown at their fields", () =>
  withPage(async (page) => {
    await goTo(page, "#/new", "New job");
    await page.getByText("More options").click();
    await page.locator("#option-batch_size").fill("0");
    await page.locator("#option-learning_rate").fill("-1");
    await page.locator("#option-data").fill("../secret");
    // Input that is not a number, or not exact as one, is refused in the browser.
    for (const [typed, message] of [
      ["1e", "not a number"],
      ["9007199254740993", "up to"],
    ]) {
      await page.locator("#option-seed").fill("");
      await page.locator("#option-seed").pressSequentially(typed);
      await page.getByRole("button", { name: "Start" }).click();
      await page.locator("#option-seed-fault", { hasText: message }).waitFor();
    }
    await page.locator("#option-seed").fill("");
    await page.getByRole("button", { name: "Start" }).click();
    for (const name of ["batch_size", "learning_rate", "data"]) {
      await page.waitForFunction((name) => document.getElementById(`option-${name}-fault`).textContent !== "", name);
      assert.equal(await page.locator(`#option-${name}`).getAttribute("aria-invalid"), "true");
    }
    assert.equal(
      await page.evaluate(() => document.activeElement.getAttribute("aria-invalid")),
      "true",
      "the first invalid field has the focus",
    );
    await screenshot(page, "faults");
  }));

/** A PNG of one color, as an image of the page's canvas. */
const writeImage = async (page, path, side, color) => {
  const url = await page.evaluate(
    ([side, color]) => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = side;
      const context = canvas.getContext("2d");
      context.fillStyle = color;
      context.fillRect(0, 0, side, side);
      return canvas.toDataURL();
    },
    [side, color],
  );
  await writeFile(path, Buffer.from(url.split(",")[1], "base64"));
};

test("the form shows the networks and what does not fit; a job accepts changed images and advises at its end", () => {
  let data;
  return withPage(
    async (page) => {
      for (let i = 0; i < 20; i++) await writeImage(page, join(data, `${i}.png`), 28, `rgb(${i * 9}, 40, 90)`);
      const about = page.locator("form p[role=status]");
      const shows = (pattern) => about.filter({ hasText: pattern }).waitFor();
      const warnings = page.getByLabel("Warnings").locator("li");
      await goTo(page, "#/new", "New job");
      await page.getByText("More options").click();
      await shows(/^digits at 28x28, grey, on the embedded digits; size of z: 64, uniform; batch 64/);
      await page.locator("#option-data").fill("few");
      await page.locator("#option-data").press("Tab");
      await shows(/^the images are 28x28, color: preset pytorch32 at 32x32, color; .* 25 epochs/);
      assert.equal(await warnings.count(), 0);
      await page.locator("#option-preset").selectOption("digits");
      await warnings.filter({ hasText: "the networks are grey: colors are discarded" }).waitFor();
      await shows(/^digits at 28x28, grey; size of z/);
      assert.equal(await page.locator("#option-batch_size").getAttribute("placeholder"), "64");
      await page.locator("#option-batch_size").fill("128");
      await page.locator("#option-batch_size").press("Tab");
      await shows(/; batch 128, /);
      await page.locator("#option-data").fill("nothing");
      await page.locator("#option-data").press("Tab");
      await shows(/does not exist/);
      assert.equal(await warnings.count(), 0);
      await screenshot(page, "preview");
      await page.locator("#option-data").fill("few");
      const short = { steps: 6, batch_size: 8, checkpoint_every: 2 };
      for (const [name, value] of Object.entries(short)) await page.locator(`#option-${name}`).fill(String(value));
      await page.getByRole("button", { name: "Start" }).click();
      await page.locator(".facts-grid").waitFor();
      await waitForState(page, "done");
      const result = page.getByRole("region", { name: "Result" });
      await result.getByText(/^random-feature Fréchet distance .* at step \d\b.*(falling|less than 5 %|rose|near)/).waitFor();
      assert.equal(/--|dcgan-train/.test(await result.textContent()), false);
      await page.getByRole("region", { name: "Images" }).getByText("20 images in an epoch").waitFor();

      // One image is removed: the job says what changed before it continues.
      await rm(join(data, "3.png"));
      await page.getByRole("button", { name: "Train longer" }).click();
      await waitForState(page, "failed");
      await page.getByText("1 removed (3.png)").first().waitFor();
      await page.getByText("the job uses them from step 6 on").waitFor();
      assert.equal(await result.isVisible(), false);
      await screenshot(page, "data-change");
      await page.getByRole("button", { name: "Accept the changed images and resume" }).click();
      await waitForState(page, "done");
      await page.waitForFunction(() => document.querySelector(".facts-grid dd").textContent === "12 of 12");
      assert.equal(await page.getByRole("heading", { name: "How to continue" }).isVisible(), false);
      await page.getByText("from step 6 on: 1 removed (3.png)").waitFor();
      await result.waitFor();
    },
    async (folder) => {
      data = join(folder, "data", "few");
      await mkdir(data, { recursive: true });
      return ["--data-root", join(folder, "data")];
    },
  );
});

test("names of datasets are shown as text, never as markup", () => {
  const name = "<img src=x>";
  return withPage(
    async (page) => {
      await submitJob(page, { data: name, steps: 2 });
      await waitForState(page, "failed"); // the dataset has no images
      assert.ok((await page.locator("h1").textContent()).includes(name));
      await goTo(page, "#/jobs", "Jobs");
      await page.locator(".job strong", { hasText: name }).waitFor();
      assert.equal(await page.locator("main img").count(), 0);
    },
    async (folder) => {
      await mkdir(join(folder, "data", name), { recursive: true });
      return ["--data-root", join(folder, "data")];
    },
  );
});

test("the latent space is explored", () =>
  withPage(async (page) => {
    await goTo(page, "#/explore/faces64", "Explore");
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

    // The ends of the walk are the selected samples.
    const walk = page.locator(".frame canvas");
    const waitForImage = (tile) =>
      page.waitForFunction(
        ([expected, size]) => {
          const canvas = document.querySelector(".frame canvas");
          return canvas && canvas.width === size && canvas.toDataURL() === expected;
        },
        [tile, 64],
      );
    const [from, to] = [await pixels(tiles.nth(2).locator("canvas")), await pixels(tiles.nth(4).locator("canvas"))];
    await waitForImage(from);
    await page.getByLabel("Position on the walk").focus();
    await page.keyboard.press("End");
    await waitForImage(to);
    await page.keyboard.press("ArrowLeft");
    await page.waitForFunction((to) => document.querySelector(".frame canvas").toDataURL() !== to, to);
    assert.ok(await walk.isVisible());
    await screenshot(page, "walk");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Save z of the steps" }).click(),
    ]);
    const file = await readFile(await download.path());
    const length = Number(file.readBigUInt64LE(0));
    assert.deepEqual(JSON.parse(file.subarray(8, 8 + length)).z.shape, [9, 100]);
    assert.equal(file.length, 8 + length + 9 * 100 * 4);
    console.log(`# ${await page.locator("[data-ms]").textContent()}`);

    // Removing a sample keeps the position of the walk, and the focus in the selection.
    await tiles.nth(9).click();
    const position = await page.getByLabel("Position on the walk").inputValue();
    await page.getByRole("button", { name: "Remove sample 1:9" }).press("Enter");
    assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /^Remove sample/);
    assert.equal(await page.getByLabel("Position on the walk").inputValue(), position);

    // Arithmetic: A - B + C with B = C is A.
    await page.getByRole("tab", { name: "Arithmetic" }).click();
    for (const [group, indices] of [
      ["A", [2]],
      ["− B", [5, 6]],
      ["+ C", [5, 6]],
    ]) {
      await page.getByRole("radio", { name: group }).check();
      for (const index of indices) await tiles.nth(index).click();
    }
    await page.waitForFunction(() => {
      const cells = document.querySelectorAll(".result-grid canvas");
      const isClose = (a, b) => {
        const [p, q] = [a, b].map((canvas) => canvas.getContext("2d").getImageData(0, 0, 64, 64).data);
        return p.every((value, i) => Math.abs(value - q[i]) <= 1);
      };
      const selected = document.querySelector('[data-name="1:2"] canvas');
      return cells.length === 9 && isClose(cells[4], selected) && !isClose(cells[0], selected);
    });
    await screenshot(page, "arithmetic");

    for (const [hash, text] of [
      ["#/explore/nothing", "No such model: nothing"],
      ["#/constructor", "This page does not exist"],
      ["#/explore/100%", "Try again"],
    ]) {
      await page.evaluate((hash) => {
        location.hash = hash;
      }, hash);
      await page.getByText(text).waitFor();
    }
  }));

test("the page prompts for a token until it is valid", () =>
  withPage(
    async (page) => {
      const dialog = page.getByRole("dialog");
      await dialog.waitFor();
      for (const [token, isValid] of [
        ["a wrong one", false],
        ["tökén€", false],
        ["the-right-one-0837", true],
      ]) {
        await dialog.getByLabel("Token").fill(token);
        await page.keyboard.press("Enter");
        if (!isValid) await dialog.getByText("This token is not valid").waitFor();
      }
      await page.getByText("No jobs yet.").waitFor();
    },
    async (folder) => {
      await writeFile(join(folder, "token.txt"), "the-right-one-0837\n");
      return ["--token-file", join(folder, "token.txt")];
    },
  ));

test("samples are drawn by class", () =>
  withPage(async (page) => {
    await submitJob(page, { steps: 4, checkpoint_every: 2, batch_size: 8 }, ["conditional"]);
    await waitForState(page, "done");
    await page.evaluate(() => {
      location.hash = "#/explore";
    });
    const tiles = page.locator('[aria-label="Samples"] button');
    await page.locator('[data-name="1:31"]').waitFor();
    const [first, second] = [tiles.nth(0), tiles.nth(1)];
    const inTurn = await pixels(second.locator("canvas"));
    // The classes are in turn: sample 1 has class 1.
    await page.getByLabel("Class").selectOption({ label: "1" });
    await page.locator('[data-name="1:31@1"]').waitFor();
    assert.equal(await pixels(second.locator("canvas")), inTurn);
    await page.getByLabel("Class").selectOption({ label: "7" });
    await page.locator('[data-name="1:31@7"]').waitFor();
    assert.notEqual(await pixels(second.locator("canvas")), inTurn);
    // A walk from a seven to another; its z have the classes beside them.
    await first.click();
    await second.click();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Save z of the steps" }).click(),
    ]);
    const file = await readFile(await download.path());
    const length = Number(file.readBigUInt64LE(0));
    const { z, labels } = JSON.parse(file.subarray(8, 8 + length));
    assert.deepEqual([z.shape, labels.shape], [
      [9, 64],
      [9, 10],
    ]);
    const weights = Array.from({ length: 10 }, (_, i) => file.readFloatLE(8 + length + labels.data_offsets[0] + 4 * i));
    assert.deepEqual(weights, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    await screenshot(page, "classes");
  }));

test("the page works below a sub-path of a reverse proxy", async () => {
  const folder = await makeFolder();
  const service = await serve(folder);
  const { url, close } = await proxy(service.url, "/lab/gpu/");
  try {
    // A request outside the sub-path is recorded as a problem.
    const { page, problems } = await open(browser, url);
    page.setDefaultTimeout(TIMEOUT);
    await submitJob(page, { steps: 3, sample_every: 2, checkpoint_every: 2 });
    await waitForState(page, "done");
    await page.waitForFunction(() => /\[3\] checkpoint/.test(document.querySelector(".log").textContent));
    await page.waitForFunction(() => document.querySelector(".frame img").naturalWidth > 0);
    await page.reload();
    await page.locator(".facts-grid").waitFor();
    await goTo(page, "#/explore/faces64", "Explore");
    await page.locator('[data-name="1:31"]').waitFor();
    const resolve = (path, from) =>
      page.evaluate(
        async ([path, from]) => {
          const { serviceUrl } = await import(new URL("page/api.js", document.baseURI));
          return serviceUrl(path, from);
        },
        [path, from],
      );
    for (const [path, from, expected] of [
      ["/v1/jobs?limit=5", "http://host/", "http://host/v1/jobs?limit=5"],
      ["/v1/jobs", "https://host:8/lab/gpu/#/jobs/1", "https://host:8/lab/gpu/v1/jobs"],
      ["/openapi.json", "https://host/lab/index.html?x=/y/#/new", "https://host/lab/openapi.json"],
      ["//other/v1", "https://host/lab/", "https://host/lab/other/v1"],
      ["https://other/", "https://host/lab/", "https://host/lab/https://other/"],
    ])
      assert.equal(await resolve(path, from), expected);
    assert.deepEqual(problems, []);
    await page.context().close();
  } finally {
    await close();
    await service.stop();
    await removeFolder(folder);
  }
});

test("every view is accessible: wide and narrow, light and dark", async () => {
  await withPage(async (page, { url }) => {
    await submitJob(page, { steps: 24, log_every: 1, sample_every: 8, checkpoint_every: 8, batch_size: 8 });
    await waitForState(page, "done");
    const job = await page.evaluate(() => location.hash);
    for (const [width, colorScheme] of [
      [1280, "light"],
      [1280, "dark"],
      [390, "light"],
      [390, "dark"],
    ]) {
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
          for (const sample of ["1:1", "1:10", "1:22"]) await page.locator(`[data-name="${sample}"]`).click();
          await page.waitForTimeout(700);
        }
        const label = `${name}, ${width} wide, ${colorScheme}`;
        await checkAccessibility(page, label);
        await screenshot(page, `${name}-${width}-${colorScheme}`);
        if (name === "explore") {
          await page.getByRole("tab", { name: "Arithmetic" }).click();
          await page.locator('[data-name="1:3"]').click();
          await page.locator(".result-grid canvas").first().waitFor();
          await checkAccessibility(page, label);
        }
      }
    }
  });
});
