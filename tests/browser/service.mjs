// Starts the service and a headless Chromium.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createServer, request as sendRequest } from "node:http";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY =
  process.env.DCGAN_TRAIN ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug", "dcgan-train");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

async function start(folder, address, extra) {
  const args = [
    "serve",
    "--store",
    join(folder, "store"),
    "--listen",
    address,
    "--model-root",
    join(ROOT, "models"),
    "--quiet",
    ...extra,
  ];
  const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const line = await new Promise((resolve, reject) => {
    child.once("error", reject);
    createInterface(child.stdout)
      .once("line", resolve)
      .once("close", () => reject(new Error("the service did not start")));
  });
  const kill = (signal) => {
    child.kill(signal);
    return exited;
  };
  return { url: line.replace("listening on ", ""), kill };
}

/** Starts `dcgan-train serve` on a free port with a new store in `folder` and the models of the repository. */
export async function serve(folder, extra = []) {
  let process = await start(folder, "127.0.0.1:0", extra);
  const { url } = process;
  return {
    url,
    kill: () => process.kill("SIGKILL"),
    async restart() {
      process = await start(folder, new URL(url).host, extra);
    },
    stop: () => process.kill("SIGTERM"),
  };
}

/** Starts a reverse proxy that forwards the paths below `prefix`, without it, to the service at `target`. */
export async function proxy(target, prefix) {
  const server = createServer((request, response) => {
    if (!request.url.startsWith(prefix)) {
      response.writeHead(404).end();
      return;
    }
    const options = { method: request.method, path: `/${request.url.slice(prefix.length)}`, headers: request.headers };
    const upstream = sendRequest(target, options, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${server.address().port}${prefix}`, close };
}

/** Runs a command of `dcgan-train`. */
export const run = (...args) => promisify(execFile)(BINARY, [...args, "--quiet"]);

/** Creates a temporary folder. */
export const makeFolder = () => mkdtemp(join(tmpdir(), "dcgan-browser-"));
export const removeFolder = (folder) => rm(folder, { recursive: true, force: true });

export function launch() {
  // No network services of Chromium; as root in a container it has no sandbox.
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** Opens a tab on `url` and records script errors and requests to anything that is not below `root`. */
export async function open(browser, url, options = {}, root = url) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    acceptDownloads: true,
    ...options,
  });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // Chromium logs every 4xx response as an error; the tests cause some.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
      problems.push(message.text());
  });
  page.on("request", (request) => {
    if (![root, "blob:", "data:"].some((start) => request.url().startsWith(start)))
      problems.push(`request to ${request.url()}`);
  });
  await page.goto(url);
  return { page, problems };
}

/** Asserts that axe finds no fault in the page, and that it is not wider than the viewport. */
export async function checkAccessibility(page, label) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${label}: ${overflow} pixels wider than the viewport`);
  await page.evaluate(await readFile(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8"));
  const { violations, incomplete } = await page.evaluate(() =>
    window.axe.run({ preload: false, runOnly: ["wcag2a", "wcag2aa", "wcag21aa"] }),
  );
  // axe reports a label on a role without one as incomplete if the element is not empty; it always counts.
  const faults = [...violations, ...incomplete.filter(({ id }) => id === "aria-prohibited-attr")];
  assert.deepEqual(
    faults.map(({ id, nodes }) => `${label}: ${id}: ${nodes.map(({ html }) => html).join(" | ")}`),
    [],
  );
}

/** Saves a screenshot in the folder SCREENSHOTS, if set. */
export async function screenshot(page, name) {
  if (process.env.SCREENSHOTS)
    await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true });
}
