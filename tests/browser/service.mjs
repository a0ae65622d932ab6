// A service in a process of its own, and a browser to look at it with.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.DCGAN_TRAIN ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug", "dcgan-train");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

async function start(folder, address, more) {
  const all = ["serve", "--store", join(folder, "store"), "--listen", address, "--model-root", join(ROOT, "models"), "--quiet", ...more];
  const child = spawn(BINARY, all, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const line = await new Promise((resolve, reject) => {
    child.once("error", reject);
    createInterface(child.stdout).once("line", resolve).once("close", () => reject(new Error("the service ended at once")));
  });
  const end = (signal) => { child.kill(signal); return ended; };
  return { url: line.replace("listening on ", ""), end };
}

/** Starts `dcgan-train serve` on a free port with a new store, in `folder`; the models are those of the repository. */
export async function serve(folder, more = []) {
  let process = await start(folder, "127.0.0.1:0", more);
  const { url } = process;
  return {
    url,
    kill: () => process.end("SIGKILL"),
    async restart() { process = await start(folder, new URL(url).host, more); },
    stop: () => process.end("SIGTERM"),
  };
}

/** A folder for a test. */
export const scratch = () => mkdtemp(join(tmpdir(), "dcgan-browser-"));
export const remove = (folder) => rm(folder, { recursive: true, force: true });

export function launch() {
  // Nothing but this machine is to be reached, and a container's root has no sandbox.
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** A tab that notes what must not happen: errors of scripts, and requests to anywhere else. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (message) => {
    // Chromium says of every refused request that it failed; the tests provoke some.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("blob:")) wrong.push(`a request to ${request.url()}`);
  });
  await page.goto(url);
  return { page, wrong };
}

/** Keeps a picture of the page where SCREENSHOTS names a folder. */
export async function keep(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true });
}
