// Runs one example of docs/clients.md as it stands there: {file, base, headers, ...} on stdin, what came of it on stdout.
// The example's folder has a node_modules; addresses are those of a page that the service's origin serves.
import { text as textOf } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { EventSource as RealEventSource } from 'eventsource';
import { Window } from 'happy-dom';

const LIMIT_MS = 30_000;
const { file, base, headers, ...job } = JSON.parse(await textOf(process.stdin));

const realFetch = globalThis.fetch;
globalThis.fetch = (url, init = {}) => {
  const all = new Headers(init.headers);
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  return realFetch(new URL(url, base), { ...init, headers: all });
};
globalThis.EventSource = class extends RealEventSource {
  constructor(url) {
    super(new URL(url, base), { fetch: globalThis.fetch });
  }
};

const example = await import(pathToFileURL(file));
const joined = (chunks) => chunks.map((chunk) => (chunk.type === 'text-delta' ? chunk.delta : '')).join('');

const acts = {
  async plain({ session, text }) {
    const chunks = [];
    await example.ask(session, text, (chunk) => chunks.push(chunk));
    return { text: joined(chunks) };
  },

  /** Says on stdout when it has begun. */
  async 'event-source'({ task }) {
    const chunks = [];
    await example.follow(task, (chunk) => chunks.push(chunk) === 1 && process.stdout.write('\n'));
    return { text: joined(chunks) };
  },

  async operation({ task }) {
    const seen = { progress: [], results: [], text: '' };
    await example.watchOperation(task, {
      showProgress: (progress) => seen.progress.push(progress),
      showResult: (output) => seen.results.push(output),
      addText: (delta) => (seen.text += delta),
    });
    return seen;
  },

  /** Watches until a turn has ended; says on stdout when it hears the feed. */
  async feed() {
    const heard = [];
    const end = new AbortController();
    const page = {
      showRunning: () => heard.push('snapshot') === 1 && process.stdout.write('\n'),
      follow: (session, task) => heard.push(['started', session, task]),
      refresh: (session) => (heard.push(['finished', session]), end.abort()),
      rename: (session, title) => heard.push(['title', session, title]),
    };
    await example.watch(page, end.signal).catch((error) => {
      if (!end.signal.aborted) throw error;
    });
    return { heard };
  },

  /** A page: somebody types a text and reads the answer; `reload`: and reloads the page when it has begun. */
  async page({ session, text, reload }) {
    const window = new Window({ url: base });
    for (const name of ['window', 'document', 'navigator']) Object.defineProperty(globalThis, name, { value: name === 'window' ? window : window[name], configurable: true });
    const { createElement } = await import('react');
    const { createRoot } = await import('react-dom/client');
    const open = () => {
      const root = createRoot(window.document.body.appendChild(window.document.createElement('main')));
      root.render(createElement(example.default, { id: session }));
      return root;
    };
    const all = (selector) => [...window.document.querySelectorAll(selector)].map((element) => element.textContent);
    let root = open();
    const input = await until(() => window.document.querySelector('input'));
    Object.getOwnPropertyDescriptor(window.HTMLInputElement.prototype, 'value').set.call(input, text);
    input.dispatchEvent(new window.Event('input', { bubbles: true }));
    const ready = () => window.document.querySelector('button')?.textContent === 'Send' && !window.document.querySelector('button').disabled;
    await until(ready);
    window.document.querySelector('button').click();
    await until(() => all('.assistant')[0]);
    if (reload) {
      root.unmount();
      root = open();
      await until(() => all('.user').length > 0);
    }
    await until(() => (ready() && all('.assistant')[0]) || all('[role=alert]')[0]);
    return { user: all('.user'), assistant: all('.assistant'), alerts: all('[role=alert]') };
  },
};

async function until(found) {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const what = found();
    if (what) return what;
    if (Date.now() > deadline) throw new Error(`not seen: ${found}\n${globalThis.document?.body.innerHTML.slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

process.stdout.write(`${JSON.stringify(await acts[job.act](job))}\n`);
process.exit(0);
