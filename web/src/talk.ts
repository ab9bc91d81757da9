// One conversation as the server has it: its messages, the answer that is being written, what waits, what goes on
// outside. Whenever the page may have missed something it reads the session anew, and attaches to what runs.
import { Chat } from "@ai-sdk/react";
import { Refused, type State } from "@copilot-chat/resumable";
import type { UIMessage } from "ai";
import { api, type Details, type QueuedTurn } from "./api";
import type { FeedEvent } from "./feed";
import { addToDraft } from "./drafts";
import { newId } from "./ids";
import { forget, remember } from "./known";
import { announce } from "./news";
import { asOutside, withProgress, type Outside } from "./outside";
import { drop, keep, unsent } from "./outbox";
import { patiently, pause } from "./patience";
import { lineFor, type Line } from "./transport";

export interface View {
  state: "new" | "loading" | "ready" | "missing";
  connection: State;
  title: string | null;
  queued: QueuedTurn[];
  outside: ReadonlyMap<string, Outside>;
  busy: boolean; // an answer is sent for, attached to, or written
  stopping: boolean;
  problem: string | null;
  returned: string | null; // what the server did not take
  usage: number;
  unowned: boolean; // it belongs to nobody who signed in
}

const EMPTY: View = {
  state: "loading", connection: "live", title: null, queued: [], outside: new Map(), busy: false, stopping: false,
  problem: null, returned: null, usage: 0, unowned: false,
};

// Where a new conversation stands.
export interface Page {
  onBegun(session: string): void; // it has its first message, on its way
  onRefused(session: string): void; // and the server did not take it
}

export class Talk {
  readonly chat: Chat<UIMessage>;
  view: View;
  private readonly line: Line;
  private readonly viewers = new Set<() => void>();
  private life = new AbortController(); // while somebody looks: from open() on
  private readonly gone = new AbortController(); // the conversation is deleted
  private attached: string | null = null; // the task whose answer comes now
  private readonly followed = new Set<string>();
  private running = 0; // answers that are sent for or attached to
  private reading = false;
  private stale = false; // something happened that the page has not read
  private lost = false; // the stream cannot be served any more
  private failures = 0; // streams in a row that were lost or refused: not at once again
  private older: number | null | undefined; // where older messages begin; null: there are none
  private taken: (by: boolean) => void = () => undefined; // whether the server took what was sent
  private readonly sending = new Set<string>(); // messages that the server has not taken yet
  private stopWanted = false; // before the server had what is to be stopped
  private posted: Promise<unknown> = Promise.resolve(); // messages reach the server in their order

  constructor(readonly session: string, isNew: boolean, private readonly page?: Page) {
    this.life.abort();
    this.view = { ...EMPTY, state: isNew ? "new" : "loading" };
    this.line = lineFor({
      onTask: (task) => this.attach(task),
      onState: (connection) => this.show({ connection }),
      onLost: () => void (this.lost = true),
    });
    this.chat = new Chat({
      id: session,
      transport: this.line.transport,
      generateId: () => newId("m-"),
      onError: () => this.taken(false),
    });
  }

  // Reads the conversation, and keeps it up to date until what this returns is called.
  readonly open = () => {
    this.life = new AbortController();
    if (this.exists) this.read();
    else this.sendAgain();
    return () => {
      this.life.abort();
      if (this.attached) void this.chat.stop(); // the reading; what is not accepted yet goes out first
    };
  };

  readonly subscribe = (viewer: () => void) => {
    this.viewers.add(viewer);
    return () => void this.viewers.delete(viewer);
  };

  readonly hear = (event: FeedEvent) => {
    if (event.type === "snapshot") {
      const running = event.turns?.find((turn) => turn.session_id === this.session && !turn.waiting);
      if (this.exists && (running ? running.task_id !== this.attached : this.running === 0)) this.read();
      return;
    }
    if (event.session_id !== this.session) return;
    if ((event.type === "operation-progress" || event.type === "operation-started") && event.operation_id)
      this.show({ outside: withProgress(this.view.outside, event) });
    else if (event.type === "title-changed") this.show({ title: event.title ?? null });
    else if (event.type === "session-deleted") this.end();
    else if (event.type === "turn-started" || event.type === "turn-finished") {
      if (!event.task_id || !this.followed.has(event.task_id)) this.read();
    } else if (event.type === "operation-finished" && event.status !== "completed") this.read();
  };

  readonly send = (text: string) => {
    const id = newId("m-");
    this.show({ problem: null, returned: null });
    keep({ session: this.session, id, text, begins: !this.exists });
    if (!this.exists) this.page?.onBegun(this.session);
    void this.post(id, text);
  };

  readonly edit = async (messageId: string, text: string) => {
    this.show({ problem: null, returned: null });
    const taken = this.isTaken();
    this.follow(this.chat.sendMessage({ text, messageId }));
    if (!(await taken)) this.giveBack(text);
  };

  readonly again = (messageId: string) => {
    this.show({ problem: null });
    this.follow(this.chat.regenerate({ messageId }));
  };

  readonly stop = async () => {
    this.show({ stopping: true });
    const task = this.attached;
    if (!task && this.running > 0) {
      this.stopWanted = true;
      return;
    }
    try {
      await patiently(() => (task ? api.cancelTask(task) : api.cancelSession(this.session)), this.life.signal);
    } catch (failure) {
      this.show({ stopping: false });
      this.complain(failure);
    }
  };

  readonly cancelTask = async (task: string) => {
    try {
      await api.cancelTask(task);
      this.show({ queued: this.view.queued.filter((one) => one.task_id !== task) });
    } catch (failure) {
      this.complain(failure);
    }
    this.read();
  };

  readonly loadOlder = async () => {
    const before = this.older;
    if (typeof before !== "number") return;
    this.older = undefined; // one at a time
    try {
      const page = await patiently(() => api.session(this.session, before), this.life.signal);
      if (this.older !== undefined) return; // the conversation was read anew meanwhile
      this.older = page.older ?? null;
      const shown = this.chat.messages;
      this.chat.messages = [...page.messages.filter(({ id }) => !shown.some((one) => one.id === id)), ...shown];
    } catch {
      this.older ??= before;
    }
  };

  private get exists(): boolean {
    return this.view.state !== "new";
  }

  private show(part: Partial<View>) {
    this.view = { ...this.view, ...part };
    for (const viewer of this.viewers) viewer();
  }

  private complain(failure: unknown) {
    if (!this.life.signal.aborted) this.show({ problem: failure instanceof Error ? failure.message : String(failure) });
  }

  private attach(task: string) {
    this.attached = task;
    this.followed.add(task);
    this.taken(true);
    announce();
    if (this.stopWanted) void this.stop();
    if (this.life.signal.aborted) void this.chat.stop();
  }

  // What this tab sent before it was reloaded, and the server does not know.
  sendAgain(known: (string | null)[] = []) {
    drop(({ id }) => known.includes(id));
    for (const { session, id, text } of unsent()) if (session === this.session) void this.post(id, text);
  }

  private async post(id: string, text: string) {
    if (this.sending.has(id)) return;
    this.sending.add(id);
    const taken = this.running === 0 ? this.ask(id, text) : this.enqueue(id, text);
    if (!(await taken)) this.giveBack(text);
    this.sending.delete(id);
    drop((one) => one.id === id);
  }

  // Into the field, or where the field will find it.
  private giveBack(text: string) {
    if (this.gone.signal.aborted) return;
    if (this.viewers.size > 0) this.show({ returned: text });
    else addToDraft(this.exists ? this.session : "new", text);
  }

  private isTaken(): Promise<boolean> {
    return new Promise((resolve) => (this.taken = resolve));
  }

  private end() {
    this.gone.abort();
    drop((one) => one.session === this.session);
    void this.chat.stop();
    this.show({ state: "missing" });
  }

  private async ask(id: string, text: string): Promise<boolean> {
    if (!this.exists) this.stale = true; // what the server knows of a new session is read when it is there
    if (this.chat.error) this.chat.clearError();
    const taken = (this.posted = this.isTaken());
    this.follow(this.chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] }));
    if (!(await taken)) {
      this.chat.messages = this.chat.messages.filter((message) => message.id !== id);
      if (!this.exists) this.page?.onRefused(this.session);
      return false;
    }
    if (!this.exists) this.show({ state: "ready" });
    return true;
  }

  private async enqueue(id: string, text: string): Promise<boolean> {
    this.show({ queued: [...this.view.queued, { task_id: "", message: text, message_id: id }] });
    const sent = this.posted.then(() => this.line.enqueue(this.session, id, text, this.gone.signal));
    this.posted = sent.catch(() => undefined);
    try {
      const task = await sent;
      this.show({ queued: this.view.queued.map((one) => (one.message_id === id ? { ...one, task_id: task } : one)) });
      this.read();
      return true;
    } catch (failure) {
      this.show({ queued: this.view.queued.filter((one) => one.message_id !== id) });
      this.complain(failure);
      return false;
    }
  }

  // From the request to the end of its stream. What was missed meanwhile, and what waited, comes then.
  private follow(answer: Promise<void>) {
    this.running++;
    this.show({ busy: true });
    const over = async () => {
      this.running--;
      this.attached = null;
      this.stopWanted = false;
      this.taken(false); // it ended without ever having been
      this.show({ busy: this.running > 0, stopping: false });
      announce();
      this.show({ usage: this.view.usage + spentOn(this.chat.lastMessage) });
      if (this.lost || this.chat.status === "error") await pause(++this.failures, this.life.signal);
      else this.failures = 0;
      this.lost = false;
      if (this.stale || this.failures > 0 || this.view.queued.length > 0) this.read();
    };
    void answer.catch((failure: unknown) => this.complain(failure)).then(over);
  }

  private read() {
    if (this.running > 0 || this.reading || !this.exists) this.stale = true;
    else if (!this.life.signal.aborted) void this.readNow(this.life.signal);
  }

  private async readNow(signal: AbortSignal) {
    this.reading = true;
    this.stale = false;
    try {
      const details = await patiently(() => api.session(this.session), signal, () => this.show({ connection: "reconnecting" }));
      if (signal.aborted) return;
      if (this.running > 0) {
        this.stale = true; // something was sent meanwhile
        return;
      }
      this.replaceEnd(details);
      const { title, operations, user_id } = details;
      const taken = [...details.messages.map(({ id }) => id), ...details.queued.map((one) => one.message_id)];
      const onTheirWay = this.view.queued.filter(({ message_id: id }) => this.sending.has(id ?? "") && !taken.includes(id));
      const queued = [...details.queued, ...onTheirWay];
      const outside = new Map(operations.map((one) => [one.operation_id, asOutside(one, this.view.outside)]));
      const unowned = user_id === null;
      this.show({ state: "ready", connection: "live", queued, title, outside, unowned, usage: details.usage.total_tokens });
      if (unowned) {
        remember(details);
        announce();
      }
      if (details.active_stream) this.follow(this.resume(details.active_stream.task_id));
      this.sendAgain(taken);
    } catch (failure) {
      if (failure instanceof Refused && failure.status === 404) {
        forget(this.session);
        this.end();
      } else {
        this.show({ connection: "live" });
        this.complain(failure);
      }
    } finally {
      this.reading = false;
      if (this.stale) setTimeout(() => this.read(), 50);
    }
  }

  // The newest page of history takes the place of what is known of its messages; what came before it stays.
  private replaceEnd({ messages, older }: Details) {
    const shown = this.chat.messages;
    const at = shown.findIndex((message) => message.id === messages[0]?.id);
    this.chat.messages = at > 0 ? [...shown.slice(0, at), ...messages] : messages;
    if (at < 0) this.older = older ?? null; // more came than a page holds
  }

  private resume(task: string): Promise<void> {
    this.line.attachTo(task);
    return this.chat.resumeStream();
  }
}

function spentOn(answer?: UIMessage): number {
  const told = answer?.metadata as { usage?: { totalTokens?: number } } | undefined;
  return told?.usage?.totalTokens ?? 0;
}
