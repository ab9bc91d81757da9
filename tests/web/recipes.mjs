// Plays acts on one page of docs/recipes.md, exactly as written there. Reads {file, base, session?, acts} from stdin, and
// writes what the page shows after each act, as JSON. The folder of `file` has a node_modules.
//
// Acts: {send: text}, {until: text} (the page shows it), {ready: true} (no answer runs), {press: selector, nth?},
// {open: selector, until: text}, {fill: selector, text}, {reload: true}, {stop: true}, {alert: true}, {gone: text}.
import { text as textOf } from 'node:stream/consumers';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readFile, writeFile } from 'node:fs/promises';
import { Window } from 'happy-dom';

const LIMIT_MS = 30_000;
const { file, base, session, sdk, acts } = JSON.parse(await textOf(process.stdin));
const folder = dirname(file);
const { rolldown } = await import(createRequire(new URL('../../web/package.json', import.meta.url)).resolve('rolldown'));

// --- building ---

/** Compiles components of Vue and Svelte, and the modules of Svelte. */
const components = {
  name: 'components',
  async transform(code, id) {
    if (id.endsWith('.vue')) {
      const { compileScript, parse } = await import('vue/compiler-sfc');
      const { descriptor } = parse(code, { filename: id });
      return { code: compileScript(descriptor, { id: 'page', inlineTemplate: true }).content, moduleType: 'ts' };
    }
    if (id.endsWith('.svelte')) {
      const { compile } = await import('svelte/compiler');
      return { code: compile(code, { filename: id, generate: 'client', css: 'injected' }).js.code, moduleType: 'js' };
    }
    if (id.endsWith('.svelte.js')) {
      const { compileModule } = await import('svelte/compiler');
      return { code: compileModule(code, { filename: id, generate: 'client' }).js.code, moduleType: 'js' };
    }
  },
};
const MOUNTS = {
  '.vue': `import { createApp } from 'vue'; import Page from FILE;
    export const mount = (target, props) => { const app = createApp(Page, props); app.mount(target); return () => app.unmount(); };`,
  '.svelte': `import { mount as open, unmount } from 'svelte'; import Page from FILE;
    export const mount = (target, props) => { const page = open(Page, { target, props }); return () => unmount(page); };`,
  '.tsx': `import { createElement } from 'react'; import { createRoot } from 'react-dom/client'; import Page from FILE;
    export const mount = (target, props) => { const root = createRoot(target); root.render(createElement(Page, props)); return () => root.unmount(); };`,
  '.ts': `export * from FILE; export { Chat } from '@ai-sdk/${sdk}';`,
};

async function build() {
  const entry = join(folder, `${basename(file)}.entry.js`);
  const kind = Object.keys(MOUNTS).find((ending) => file.endsWith(ending));
  await writeFile(entry, MOUNTS[kind].replace('FILE', JSON.stringify(file)));
  const bundle = await rolldown({
    input: entry,
    plugins: [components],
    platform: 'browser',
    resolve: { conditionNames: ['svelte', 'browser', 'import', 'module', 'default'] },
    transform: { define: { 'process.env.NODE_ENV': '"production"', 'import.meta.env': '({})' } },
    checks: {},
    onLog: () => {},
  });
  const built = join(folder, `${basename(file)}.page.mjs`);
  await bundle.write({ file: built, format: 'esm', codeSplitting: false });
  return built;
}

// --- playing ---

const window = new Window({ url: base });
for (const name of Object.getOwnPropertyNames(window)) {
  if (!(name in globalThis) && !/^\d+$/.test(name)) globalThis[name] = window[name];
}
for (const name of ['window', 'document', 'navigator', 'Event', 'MouseEvent', 'KeyboardEvent', 'location', 'sessionStorage', 'localStorage']) {
  Object.defineProperty(globalThis, name, { value: name === 'window' ? window : window[name], configurable: true, writable: true });
}
const realFetch = globalThis.fetch;
globalThis.fetch = (url, init = {}) => realFetch(new URL(url, base), init);

async function until(found) {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const what = found();
    if (what) return what;
    if (Date.now() > deadline) throw new Error(`not seen: ${found}\n${document.body.innerHTML.slice(-3000)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const page = await import(pathToFileURL(await build()));
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((element) => element.textContent.trim());
const button = (label) => all('button').find((element) => element.textContent.trim() === label && !element.disabled);
let unmount;
const open = () => {
  document.body.innerHTML = '<main></main>';
  unmount = page.mount(document.querySelector('main'), { id: session });
};
const fill = (input, value) => {
  const kind = input.tagName === 'TEXTAREA' ? window.HTMLTextAreaElement : window.HTMLInputElement;
  Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(input, value);
  input.dispatchEvent(new window.Event('input', { bubbles: true }));
};
const press = (element) => element.click();

/** Presses again each second: assistant-ui forgets a press that comes while its first thread is being made. */
async function opened(selector, text) {
  let pressed = 0;
  await until(() => {
    if (document.body.textContent.includes(text)) return true;
    if (all(selector)[0] && Date.now() > pressed + 1_000) press(all(selector)[0], (pressed = Date.now()));
  });
}

async function play(act) {
  if ('send' in act) {
    fill(await until(() => all('input, textarea').at(-1)), act.send);
    (await until(() => button('Send'))).click();
  }
  if ('open' in act) await opened(act.open, act.until);
  if ('until' in act) await until(() => document.body.textContent.includes(act.until));
  if ('fill' in act) fill(await until(() => all(act.fill)[0]), act.text);
  if ('press' in act) press(await until(() => all(act.press).at(act.nth ?? 0)));
  if ('gone' in act) await until(() => !document.body.textContent.includes(act.gone));
  if ('stop' in act) (await until(() => button('Stop'))).click();
  if ('reload' in act) {
    unmount();
    open();
  }
  if ('ready' in act) await until(() => !button('Stop') && all('.user').length && all('.assistant').length === all('.user').length);
  if ('alert' in act) await until(() => all('[role=alert]').length);
  return { user: texts('.user'), assistant: texts('.assistant'), alerts: texts('[role=alert]'), threads: texts('.thread') };
}

/**
 * The acts of a page that is only a transport, with the Chat of @ai-sdk/`sdk`: {send}, {edit} (the first message, as
 * Vercel's template does), {change} (the first message, by `messageId`), {resume} (by a second chat), {busy} (two
 * messages, the second during the first answer).
 */
async function playTransport() {
  const make = (messages) => new page.Chat({ id: session, messages, transport: page.transport(() => undefined) });
  let chat = make([]);
  const shown = () => chat.messages.map(({ parts }) => parts.map((part) => part.text ?? '').join(''));
  return async (act) => {
    if ('send' in act) await chat.sendMessage({ text: act.send });
    if ('edit' in act) {
      chat.messages = [{ ...chat.messages[0], parts: [{ type: 'text', text: act.edit }] }];
      await chat.regenerate();
    }
    if ('change' in act) await chat.sendMessage({ text: act.change, messageId: chat.messages[0].id });
    if ('busy' in act) {
      const before = chat.messages.length;
      const first = chat.sendMessage({ text: act.busy[0] });
      await until(() => chat.messages.length === before + 2 && shown().at(-1).startsWith('0 1 '));
      await Promise.all([first, chat.sendMessage({ text: act.busy[1] })]);
    }
    if ('resume' in act) {
      const sending = chat.sendMessage({ text: act.resume });
      await until(() => shown().at(-1).startsWith('0 1 '));
      chat = make(chat.messages.slice(0, -1));
      await chat.resumeStream();
      await sending;
    }
    return { shown: shown(), kinds: chat.messages.map(({ parts }) => parts.map((part) => part.type)), error: chat.error?.message ?? null };
  };
}

const player = page.mount === undefined ? await playTransport() : (open(), play);
const seen = [];
for (const act of acts) seen.push(await player(act));
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exit(0);
