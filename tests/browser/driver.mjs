// Drives chromium for the tests. Reads one JSON job per line from stdin ({id, do, tab, ...}) and writes one answer per
// line to stdout. Every wait has the limit that the job names, in milliseconds.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import puppeteer from "puppeteer-core";

const executablePath = process.argv[2];
const isFirefox = executablePath.includes("firefox");
const browser = await puppeteer.launch(isFirefox ? {
  browser: "firefox",
  executablePath,
  headless: true,
  extraPrefsFirefox: { "remote.active-protocols": 1 }, // WebDriver BiDi alone
  timeout: 0,
  protocolTimeout: 600_000,
} : {
  executablePath,
  headless: executablePath.endsWith("headless-shell") ? "shell" : true,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--force-color-profile=srgb",
    // the browser's own toolbars and lists, which nobody sees, are pages that cost as much CPU as the tested page
    "--disable-features=PreloadTopChromeWebUI,WebUIOmniboxPopup,InitialWebUI",
    "--host-resolver-rules=MAP rebound.test 127.0.0.1"], // what a foreign name server may answer
  pipe: true,
  timeout: 0, // the caller bounds the wait for the first job
  protocolTimeout: 600_000,
});
const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const contexts = new Map();
const tabs = new Map();

async function opened({ tab, user, token, width = 1200, height = 800, scheme = "light", still = true }) {
  const context = contexts.get(user) ?? (await browser.createBrowserContext());
  contexts.set(user, context);
  const page = await context.newPage();
  await page.setViewport({ width, height });
  if (!isFirefox) await page.emulateMediaFeatures([ // WebDriver BiDi has nothing for it
    { name: "prefers-color-scheme", value: scheme },
    { name: "prefers-reduced-motion", value: still ? "reduce" : "no-preference" },
  ]);
  await page.evaluateOnNewDocument(() => document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
    console.error(`the page broke its policy: ${violatedDirective} ${blockedURI}`)));
  if (token) await page.evaluateOnNewDocument((t) => window === top && localStorage.setItem("copilot.token", t), token);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (line) => {
    if (line.type() === "error" && !/Failed to load resource|net::ERR/.test(line.text())) errors.push(line.text());
  });
  tabs.set(tab, { page, errors });
}

// Polls the page, because its policy forbids what puppeteer's own waiting needs. An error during a navigation is
// ignored.
async function until({ page }, { code, limit }) {
  const end = Date.now() + limit;
  for (;;) {
    if (await page.evaluate(`!!(${code})`).catch(() => false)) return true;
    if (Date.now() > end) throw new Error(`not within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 80));
  }
}

const acts = {
  open: opened,
  go: ({ page }, { url, limit }) => page.goto(url, { waitUntil: "domcontentloaded", timeout: limit }),
  reload: ({ page }, { limit }) => page.reload({ waitUntil: "domcontentloaded", timeout: limit }),
  back: ({ page }, { limit }) => page.goBack({ timeout: limit }),
  url: ({ page }) => page.url(),
  before: ({ page }, { code }) => page.evaluateOnNewDocument(code),
  eval: ({ page }, { code }) => page.evaluate(code),
  until,
  click: async ({ page }, { selector, limit }) => {
    await page.bringToFront(); // a tab in the background is not painted, so an element in it never counts as stable
    await page.locator(selector).setTimeout(limit).click();
  },
  hover: async ({ page }, { selector, limit }) => {
    await page.bringToFront();
    await page.locator(selector).setTimeout(limit).hover();
  },
  type: async ({ page }, { selector, text, limit }) => {
    await page.waitForSelector(selector, { timeout: limit, visible: true });
    await page.focus(selector);
    if (text.length > 60) await page.keyboard.sendCharacter(text);
    else await page.keyboard.type(text);
  },
  press: ({ page }, { key }) => page.keyboard.press(key),
  chord: async ({ page }, { keys }) => {
    for (const key of keys) await page.keyboard.down(key);
    for (const key of keys.toReversed()) await page.keyboard.up(key);
  },
  wheel: ({ page }, { by }) => page.mouse.move(700, 300).then(() => page.mouse.wheel({ deltaY: by })),
  offline: ({ page }, { on }) => page.setOfflineMode(on),
  clipboard: async ({ page }) => {
    await page.bringToFront(); // only a page in front may read it
    await page.browserContext().overridePermissions(new URL(page.url()).origin, ["clipboard-read", "clipboard-write"]);
    return page.evaluate(() => navigator.clipboard.readText());
  },
  shoot: ({ page }, { path }) => page.screenshot({ path }).then(() => null),
  size: ({ page }, { width, height }) => page.setViewport({ width, height }),
  axe: async ({ page }) => {
    const client = await page.createCDPSession(); // the page's policy does not apply to scripts that come this way
    await client.send("Runtime.evaluate", { expression: axe });
    const { violations } = await page.evaluate(() => window.axe.run());
    return violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, at: nodes.map((node) => node.html.slice(0, 200)) }));
  },
  errors: ({ errors }) => errors,
  close: async ({ page }, { tab }) => {
    tabs.delete(tab);
    await page.close();
  },
};

async function done(job) {
  if (job.do === "open") return opened(job);
  const tab = tabs.get(job.tab);
  if (!tab) throw new Error(`there is no tab ${job.tab}`);
  return acts[job.do](tab, job);
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  done(job).then(
    (value) => process.stdout.write(JSON.stringify({ id: job.id, value: value && typeof value === "object" && !Array.isArray(value) && value.constructor !== Object ? null : (value ?? null) }) + "\n"),
    (error) => process.stdout.write(JSON.stringify({ id: job.id, error: String(error) }) + "\n"),
  );
}
await browser.close();
