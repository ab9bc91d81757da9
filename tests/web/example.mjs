// Runs one example of docs/clients.md exactly as written there. Reads {file, base, headers, ...} from stdin and writes
// the result to stdout. The example's folder has a node_modules. Relative URLs are resolved against `base`, the
// service.
import { text as textOf } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { EventSource as RealEventSource } from 'eventsource';
import { Window } from 'happy-dom';
import { loadSdk, openChat } from './lib/chat.mjs';

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
const joinedText = (parts) => parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
const joined = (chunks) => chunks.map((chunk) => (chunk.type === 'text-delta' ? chunk.delta : '')).join('');

const acts = {
  async plain({ session, text }) {
    const chunks = [];
    await example.ask(session, text, (chunk) => chunks.push(chunk));
    return { text: joined(chunks) };
  },

  async upload({ filename, text }) {
    return example.upload(new File([text], filename));
  },

  async refused({ text }) {
    const failure = await example.upload(new File([text], 'a.png')).catch((error) => error);
    return { message: failure.message };
  },

  /** Writes a newline to stdout at the first chunk. */
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

  /** Answers a question with each of the answers. */
  async question({ output, answers }) {
    const texts = [];
    for (const answer of answers) {
      const chunks = [];
      const failure = await example.answerQuestion(output, answer, (chunk) => chunks.push(chunk)).catch((error) => error);
      texts.push(failure?.message ?? joined(chunks));
    }
    return { texts };
  },

  /** Follows the feed until a turn has ended. Writes a newline to stdout at the first event. */
  async feed() {
    const events = [];
    const end = new AbortController();
    const page = {
      showRunning: () => events.push('snapshot') === 1 && process.stdout.write('\n'),
      follow: (session, task) => events.push(['started', session, task]),
      refresh: (session) => (events.push(['finished', session]), end.abort()),
      rename: (session, title) => events.push(['title', session, title]),
    };
    await example.watch(page, end.signal).catch((error) => {
      if (!end.signal.aborted) throw error;
    });
    return { events };
  },

  /** A tab of one SDK version that shows a conversation; ends when it has the wanted number of messages. */
  async 'second-tab'({ session, sdk, wanted }) {
    const ai = await loadSdk(sdk);
    let task;
    const { messages } = await (await fetch(`/api/chat/sessions/${session}?format=ui`)).json();
    const { chat } = openChat(ai, { base, session, messages, wire: { fetch: globalThis.fetch }, task: () => task });
    const end = new AbortController();
    const page = {
      status: () => chat.status,
      setMessages: (all) => (chat.messages = all),
      resumeAt: (named) => ((task = named), chat.resumeStream()),
    };
    const following = example.followOtherTabs(session, page, end.signal).catch((error) => {
      if (!end.signal.aborted) throw error;
    });
    process.stdout.write('\n');
    const whole = () => chat.status === 'ready' && chat.messages.length >= wanted && chat.messages.at(-1).metadata?.status;
    await until(whole);
    end.abort();
    await following;
    return { messages: chat.messages.map(({ id, role, parts }) => [id, role, joinedText(parts)]) };
  },

  /** Opens a page, sends a text and waits for the answer. With `reload`, reloads the page in mid-answer. */
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
    await until(() => all('.assistant')[0] || all('[role=alert]')[0]);
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
