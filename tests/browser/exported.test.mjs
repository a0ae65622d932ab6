// Pages of `dcgan-train export --to web` in headless Chromium, opened as files.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { checkAccessibility, launch, makeFolder, open, removeFolder, ROOT, run, screenshot, serve } from "./service.mjs";

const RUNTIME = fileURLToPath(new URL("node_modules/onnxruntime-web", import.meta.url));
let browser;

before(async () => {
  browser = await launch();
});
after(async () => {
  await browser?.close();
});

/** Exports `model` into `folder` and opens its page. */
async function openPage(folder, model, ...options) {
  const out = join(folder, "page");
  await run("export", model, "--to", "web", "--out", out, "--runtime", RUNTIME, ...options);
  const file = pathToFileURL(join(out, "index.html")).href;
  const opened = await open(browser, file, {}, pathToFileURL(out).href);
  await opened.page.locator("#status", { hasText: /images in/ }).waitFor();
  return opened;
}

/** The tensor `name` of a safetensors file as rows. */
function rows(buffer, name) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { shape, data_offsets: offsets } = header[name];
  const [begin, end] = offsets.map((offset) => 8 + length + offset);
  const [values, size] = [new Float32Array(buffer.slice(begin, end)), shape.slice(1).reduce((a, b) => a * b)];
  return Array.from({ length: shape[0] }, (_, i) => Array.from(values.slice(i * size, (i + 1) * size)));
}

const largePixels = (page) => page.locator("#large").evaluate((canvas) => canvas.toDataURL());

test("an exported page draws, offline, what the program draws", async () => {
  const folder = await makeFolder();
  const service = await serve(folder);
  try {
    const { page, problems } = await openPage(folder, join(ROOT, "models/digits"), "--license", "MIT OR Apache-2.0");
    assert.equal(await page.title(), "digits");
    assert.match(await page.locator("#footer").textContent(), /MIT OR Apache-2.0.*onnxruntime-web 1\./);
    assert.equal(await page.locator("#grid button").count(), 64);

    const body = JSON.stringify({ seed: 5, count: 6, format: "safetensors" });
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${service.url}/v1/models/digits/samples`, { method: "POST", headers, body });
    const expected = await response.arrayBuffer();
    const drawn = await page.evaluate(
      async (z) => (await generate(z)).map((pixels) => Array.from(pixels)),
      rows(expected, "z"),
    );
    assert.equal(drawn.length, 6);
    rows(expected, "images").forEach((values, i) => {
      const differences = values.map((value, k) => Math.abs((value + 1) * 127.5 - drawn[i][k]));
      assert.ok(Math.max(...differences) < 0.51, `image ${i}: ${Math.max(...differences)}`);
    });

    // A seed gives its images again, and others others.
    const grid = () =>
      page.evaluate(() => [...document.querySelectorAll("#grid canvas")].map((canvas) => canvas.toDataURL()).join());
    const first = await grid();
    await page.getByLabel("Images", { exact: true }).fill("10");
    await page.getByRole("button", { name: "Next seed" }).click();
    await page.locator("#status", { hasText: "10 images in" }).waitFor();
    const other = await grid();
    await page.getByLabel("Images", { exact: true }).fill("64");
    await page.getByLabel("Seed").fill("0");
    await page.getByRole("button", { name: "Draw" }).click();
    await page.locator("#status", { hasText: "64 images in" }).waitFor();
    assert.equal(await grid(), first);
    assert.ok(!first.includes(other.slice(0, 200)));

    // Numbers outside the limits of the form draw nothing.
    for (const count of ["100000", ""]) {
      await page.getByLabel("Images", { exact: true }).fill(count);
      await page.getByRole("button", { name: "Next seed" }).click();
      assert.equal(await page.locator("#grid button").count(), 64);
      assert.equal(await page.getByLabel("Seed").inputValue(), "0");
    }
    await page.getByLabel("Images", { exact: true }).fill("64");

    // A walk ends at the second image.
    await page.locator("#grid button").nth(3).click();
    const start = await largePixels(page);
    await page.locator("#grid button").nth(7).click();
    await page.locator("#walk").fill("1");
    const second = await page.locator("#grid canvas").nth(7).evaluate((canvas) => canvas.toDataURL());
    await page.waitForFunction((second) => document.querySelector("#large").toDataURL() === second, second);
    await page.locator("#walk").fill("0");
    await page.waitForFunction((start) => document.querySelector("#large").toDataURL() === start, start);
    await page.locator("#walk").fill("0.5");
    await page.waitForFunction((start) => document.querySelector("#large").toDataURL() !== start, start);
    // Of many moves of the slider few are drawn, the last one among them.
    const runs = await page.evaluate(async () => {
      const network = await session;
      const run = network.run.bind(network);
      let count = 0;
      network.run = (inputs) => {
        count += 1;
        return run(inputs);
      };
      for (let i = 0; i < 30; i++) {
        document.getElementById("walk").value = String(i / 30);
        document.getElementById("walk").dispatchEvent(new Event("input"));
      }
      await last;
      return count;
    });
    assert.ok(runs >= 1 && runs <= 3, `${runs} runs`);
    // The name of a file is that of the images in the grid.
    await page.getByLabel("Seed").fill("7");

    for (const [button, name] of [
      ["Save all as PNG", "digits-seed-0.png"],
      ["Save as PNG", "digits.png"],
    ]) {
      const download = page.waitForEvent("download");
      await page.getByRole("button", { name: button, exact: true }).click();
      assert.equal((await download).suggestedFilename(), name);
    }
    for (const [width, colorScheme] of [
      [1280, "light"],
      [390, "dark"],
    ]) {
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme });
      await checkAccessibility(page, `exported, ${width} wide, ${colorScheme}`);
      await screenshot(page, `exported-${width}-${colorScheme}`);
    }
    await page.getByRole("button", { name: "Similar images" }).click();
    await page.locator("#status", { hasText: "64 images in" }).waitFor();
    const similar = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save all as PNG" }).click();
    assert.equal((await similar).suggestedFilename(), "digits-similar.png");
    assert.deepEqual(problems, []);
  } finally {
    await service.stop();
    await removeFolder(folder);
  }
});

test("an exported page of a conditional model has its classes", async () => {
  const folder = await makeFolder();
  try {
    const options = ["--preset", "digits", "--conditional", "--steps", "2", "--batch-size", "8", "--sample-every", "2"];
    await run("run", ...options, "--out", join(folder, "run"));
    const { page, problems } = await openPage(folder, join(folder, "run"));
    assert.equal(await page.locator("#class option").count(), 11);
    assert.equal(await page.locator("#grid button").nth(13).getAttribute("title"), "3");
    await page.getByLabel("Class").selectOption("7");
    await page.getByLabel("Images", { exact: true }).fill("5");
    await page.getByRole("button", { name: "Draw" }).click();
    await page.locator("#status", { hasText: "5 images in" }).waitFor();
    const titles = await page.locator("#grid button").evaluateAll((all) => all.map(({ title }) => title));
    assert.deepEqual(titles, Array(5).fill("7"));
    assert.deepEqual(problems, []);
  } finally {
    await removeFolder(folder);
  }
});

test("an exported page interpolates classes as the program does", async () => {
  const folder = await makeFolder();
  const service = await serve(folder);
  try {
    const { page, problems } = await openPage(folder, join(ROOT, "models/mnist-cond"));
    await page.locator("#grid button").nth(3).click();
    await page.locator("#grid button").nth(8).click();
    await page.locator("#walk").fill("0.25");
    const point = await page.evaluate(async () => {
      await last;
      return Array.from(large.z);
    });
    const [z, labels] = [point.slice(0, 100), point.slice(100)];
    assert.deepEqual(labels, [0, 0, 0, 0.75, 0, 0, 0, 0, 0.25, 0]);

    const body = JSON.stringify({ z: [z], labels: [labels], format: "safetensors" });
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${service.url}/v1/models/mnist-cond/samples`, { method: "POST", headers, body });
    assert.equal(response.status, 200);
    const [expected] = rows(await response.arrayBuffer(), "images");
    const drawn = await page.evaluate(async () => Array.from(large.pixels));
    const differences = expected.map((value, k) => Math.abs(value * 255 - drawn[k]));
    assert.ok(Math.max(...differences) < 0.51, `${Math.max(...differences)}`);
    assert.deepEqual(problems, []);
  } finally {
    await service.stop();
    await removeFolder(folder);
  }
});
