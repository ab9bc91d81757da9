// Plays a story, which is a list of acts in one session with any number of tabs, and reports what every tab saw.
import { loadSdk, openChat } from './chat.mjs';
import { faultsOf } from './check.mjs';
import { isChunk, Wire } from './wire.mjs';

const LIMIT_MS = 20_000;
/** After a stop, ai 5.0.200 sometimes keeps waiting for a body whose fetch it has aborted; this is how long it may. */
const STOP_MS = 2_000;

/**
 * job: {sdk, base, session, headers?, limit_ms?, acts: [{act, ...}]}. Acts, in order:
 *   open      {tab, hydrate?, accept?, cuts?, resilient?, attach?, task?}   opens a page. With hydrate it loads the
 *             session's history. attach is 'session' (the SDK's default) or 'task': the given `task`, or the one that
 *             is running according to the history. lib/wire.mjs explains the other options.
 *   send      {tab, text, wait?, message_id?, body?, files?}   sends a message, or an edit of the message `message_id`
 *   regenerate {tab, wait?}     answers the last question again
 *   resume    {tab, wait?}      does what useChat({resume: true}) does on mount
 *   approve   {tab, decisions}  answers the requests for an approval in their order, and waits for what follows
 *   output    {tab, outputs}    gives the waiting calls of the page's tools their outputs, and waits for what follows
 *   received  {tab, events}     waits until the tab has received so many data events
 *   stop      {tab}             ends the page's requests, as a reload does
 *   settled   {tab}             waits until what was sent or resumed with wait: false has ended
 *   steer     {text, id}        sends a message for the running turn (`on_busy: steer`)
 *   cancel    {}                sends POST /sessions/{id}/cancel
 */
export async function playStory(job) {
  const story = new Story(await loadSdk(job.sdk), job);
  const faults = [];
  try {
    await story.play(job.limit_ms ?? LIMIT_MS);
  } catch (error) {
    faults.push(error.message);
    await story.stopAll();
  }
  const tabs = {};
  for (const [name, tab] of story.tabs) {
    faults.push(...(await faultsOf(story.ai, tab)).map((fault) => `tab ${name}: ${fault}`));
    tabs[name] = reportOf(tab);
  }
  return { faults, tabs, results: story.results };
}

class Story {
  tabs = new Map();
  results = [];

  constructor(ai, { base, session, headers = {}, acts }) {
    Object.assign(this, { ai, base, session, headers, acts });
  }

  async play(limit) {
    for (const act of this.acts) {
      const result = await within(limit, `${act.act} ${act.tab ?? ''}`, this[act.act](act));
      this.results.push(result ?? null);
    }
  }

  async stopAll() {
    for (const { chat } of this.tabs.values()) await chat.stop();
  }

  async open({ tab, hydrate = false, accept, cuts, resilient, attach, task: named }) {
    const { messages, active_stream: active } = hydrate ? await this.#history(accept) : { messages: [] };
    const { base, session, headers } = this;
    const wire = new Wire(base, session, { headers, accept, cuts, resilient, attach });
    const task = attach === 'task' ? (named ?? active?.task_id) : undefined;
    const opened = openChat(this.ai, { base, session, messages, wire, task });
    this.tabs.set(tab, { ...opened, wire, accept: accept?.split(',') ?? [], sends: 0, running: undefined });
    return { messages, task: active?.task_id };
  }

  async send({ tab, text, wait = true, message_id: messageId, body, files }) {
    this.tabs.get(tab).sends++;
    await this.#run(tab, (chat) => chat.sendMessage({ text, messageId, ...(files && { files }) }, body && { body }), wait);
  }

  async regenerate({ tab, wait = true }) {
    this.tabs.get(tab).sends++;
    await this.#run(tab, (chat) => chat.regenerate(), wait);
  }

  async resume({ tab, wait = true }) {
    await this.#run(tab, (chat) => chat.resumeStream(), wait);
  }

  async approve({ tab: name, decisions }) {
    const tab = this.tabs.get(name);
    const waiting = tab.chat.messages.at(-1).parts.filter((part) => part.state === 'approval-requested');
    if (waiting.length !== decisions.length) throw new Error(`${waiting.length} parts wait for an approval`);
    tab.sends++; // the SDK posts by itself when the last one is answered
    for (const [at, { approval }] of waiting.entries())
      await tab.chat.addToolApprovalResponse({ id: approval.id, approved: decisions[at], reason: 'so' });
    await this.#untilReady(tab.chat);
  }

  async output({ tab: name, outputs }) {
    const { chat, ...tab } = this.tabs.get(name);
    const waiting = chat.messages.at(-1).parts.filter((part) => part.state === 'input-available');
    if (waiting.length !== outputs.length) throw new Error(`${waiting.length} calls wait for the page`);
    this.tabs.get(name).sends = tab.sends + 1; // the SDK posts by itself when the last one has its output
    for (const [at, { toolCallId, toolName: tool }] of waiting.entries()) await chat.addToolOutput({ tool, toolCallId, output: outputs[at] });
    await this.#untilReady(chat);
  }

  async #untilReady(chat) {
    do await new Promise((resolve) => setTimeout(resolve, 20));
    while (chat.status !== 'ready' && chat.status !== 'error');
  }

  received = ({ tab, events }) => this.tabs.get(tab).wire.received(events);
  settled = ({ tab }) => this.tabs.get(tab).running;

  async stop({ tab }) {
    const { chat, running, wire } = this.tabs.get(tab);
    await chat.stop();
    await Promise.race([running, new Promise((resolve) => setTimeout(resolve, STOP_MS))]);
    wire.abandon();
    await running;
  }

  steer = ({ text, id }) => this.#ask('POST', 'stream', { message: text, message_id: id, on_busy: 'steer' });
  cancel = () => this.#ask('POST', 'cancel');

  async #run(name, start, wait) {
    const tab = this.tabs.get(name);
    tab.running = start(tab.chat);
    if (wait) await tab.running;
  }

  async #history(accept) {
    const answer = await this.#ask('GET', `?format=ui${accept ? `&accept=${accept}` : ''}`);
    return answer.status === 404 ? { messages: [] } : answer.body;
  }

  async #ask(method, what, body) {
    const path = `${this.base}/api/chat/sessions/${this.session}${what.startsWith('?') ? '' : '/'}${what}`;
    const response = await fetch(path, {
      method,
      headers: body ? { ...this.headers, 'content-type': 'application/json' } : this.headers,
      body: body && JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }
}

function within(limit, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${limit} ms`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function reportOf({ chat, statuses, calls, wire }) {
  const legs = wire.legs.map((leg) => ({ stopped: leg.stopped, requests: leg.requests.map(requestReport) }));
  return { messages: chat.messages, status: chat.status, error: chat.error?.message, statuses, calls, legs };
}

function requestReport({ frames, rest: _, ...request }) {
  const events = frames.filter(isChunk).map(({ id, data }) => ({ id, data }));
  const comments = frames.filter((frame) => frame.comment !== undefined).map((frame) => frame.comment);
  return { ...request, events, comments, done: frames.some((frame) => frame.data === '[DONE]') };
}
