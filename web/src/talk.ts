// One conversation as the server has it: its messages, the answer that is being written, what waits, what goes on
// outside. Whenever the page may have missed something it reads the session anew, and attaches to what runs.
import { Chat } from "@ai-sdk/react";
import { Refused } from "@copilot-chat/resumable";
import type { UIMessage } from "ai";
import { api, type Details } from "./api";
import type { FeedEvent } from "./feed";
import { newId } from "./ids";
import { forget, remember } from "./known";
import { announce } from "./news";
import { asOutside, withProgress } from "./outside";
import { patiently, pause } from "./patience";
import { Sending, type Target } from "./sending";
import { lineFor, type Line } from "./transport";
import { Board, type Page } from "./view";

const CATCHING_UP = 600_000; // milliseconds

export class Talk implements Target {
  readonly chat: Chat<UIMessage>;
  readonly line: Line;
  readonly board: Board;
  readonly sending = new Sending(this);
  private life = new AbortController(); // while somebody looks: from open() on
  private readonly deletion = new AbortController();
  readonly gone = this.deletion.signal;
  private attached: string | null = null; // the task whose answer comes now
  private readonly followed = new Set<string>();
  private running = 0; // answers that are sent for or attached to
  private reading = false;
  private stale = false; // something happened that the page has not read
  private lost = false; // the stream cannot be served any more
  private failures = 0; // streams in a row that were lost or refused: not at once again
  private older: number | null = null; // where older messages begin; null: there are none, as far as is known
  private olderComing: Promise<boolean> | null = null;
  private stopWanted = false; // before the server had what is to be stopped

  constructor(readonly session: string, isNew: boolean, readonly page?: Page) {
    this.life.abort();
    this.board = new Board(isNew ? "new" : "loading");
    this.line = lineFor({
      exists: () => this.exists,
      onTask: (task) => this.attach(task),
      onState: (connection) => this.board.show({ connection }),
      onLost: () => void (this.lost = true),
    });
    this.chat = new Chat({
      id: session,
      transport: this.line.transport,
      generateId: () => newId("m-"),
      onError: () => this.sending.settled(false),
    });
  }

  get exists(): boolean {
    return this.board.now.state !== "new";
  }

  get isAnswering(): boolean {
    return this.running > 0;
  }

  // Reads the conversation, and keeps it up to date until what this returns is called.
  readonly open = () => {
    this.life = new AbortController();
    if (this.exists) this.read();
    else this.sending.resume();
    return () => {
      this.life.abort();
      if (this.attached) void this.chat.stop(); // the reading; what is not accepted yet goes out first
    };
  };

  readonly hear = (event: FeedEvent) => {
    if (event.type === "snapshot") {
      const running = event.turns?.find((turn) => turn.session_id === this.session && !turn.waiting);
      if (this.exists && (running ? running.task_id !== this.attached : this.running === 0)) this.read();
      return;
    }
    if (event.session_id !== this.session) return;
    if ((event.type === "operation-progress" || event.type === "operation-started") && event.operation_id)
      this.board.show({ outside: withProgress(this.board.now.outside, event) });
    else if (event.type === "title-changed") this.board.show({ title: event.title ?? null });
    else if (event.type === "session-deleted") this.close();
    else if (event.type === "turn-started" || event.type === "turn-finished") {
      if (!event.task_id || !this.followed.has(event.task_id)) this.read();
    } else if (event.type === "operation-finished" && event.status !== "completed") this.read();
  };

  readonly send = (text: string) => {
    this.board.show({ problem: null, returned: null });
    this.sending.say(text);
  };

  readonly edit = (messageId: string, text: string) => {
    this.board.show({ problem: null, returned: null });
    this.sending.edit(messageId, text);
  };

  readonly again = (messageId: string) => {
    this.board.show({ problem: null });
    this.sending.again(messageId);
  };

  readonly stop = async () => {
    this.board.show({ stopping: true });
    const task = this.attached;
    if (!task && this.running > 0) {
      this.stopWanted = true;
      return;
    }
    try {
      await patiently(() => (task ? api.cancelTask(task) : api.cancelSession(this.session)), this.life.signal);
    } catch (failure) {
      this.board.show({ stopping: false });
      this.complain(failure);
    }
  };

  readonly cancelTask = async (task: string) => {
    try {
      await api.cancelTask(task);
      this.board.show({ queued: this.board.now.queued.filter((one) => one.task_id !== task) });
    } catch (failure) {
      this.complain(failure);
    }
    this.read();
  };

  // Whether there were older messages.
  readonly loadOlder = (): Promise<boolean> =>
    (this.olderComing ??= this.readOlder().finally(() => (this.olderComing = null)));

  // Sends what was not sent before a reload, also of a conversation that nobody looks at.
  catchUp() {
    if (this.exists) void this.readNow(AbortSignal.timeout(CATCHING_UP));
    else this.sending.resume();
  }

  // From the request to the end of its stream. What was missed meanwhile, and what waited, comes then.
  follow(answer: Promise<void>) {
    this.running++;
    this.board.show({ busy: true });
    const over = async () => {
      this.running--;
      this.attached = null;
      this.stopWanted = false;
      this.sending.settled(false); // it ended without ever having been taken
      this.board.show({ busy: this.running > 0, stopping: false });
      announce();
      this.board.show({ usage: this.board.now.usage + spentOn(this.chat.lastMessage) });
      if (this.lost || this.chat.status === "error") await pause(++this.failures, this.life.signal);
      else this.failures = 0;
      this.lost = false;
      if (this.stale || this.failures > 0 || this.board.now.queued.length > 0) this.read();
    };
    void answer.catch((failure: unknown) => this.complain(failure)).then(over);
  }

  read() {
    if (this.running > 0 || this.reading || !this.exists) this.stale = true;
    else if (!this.life.signal.aborted) void this.readNow(this.life.signal);
  }

  private attach(task: string) {
    this.attached = task;
    this.followed.add(task);
    this.sending.settled(true);
    announce();
    if (this.stopWanted) void this.stop();
    if (this.life.signal.aborted) void this.chat.stop();
  }

  private close() {
    this.deletion.abort();
    this.sending.forget();
    void this.chat.stop();
    this.board.show({ state: "missing" });
  }

  private complain(failure: unknown) {
    if (!this.life.signal.aborted) this.board.complain(failure);
  }

  private async readOlder(): Promise<boolean> {
    const before = this.older;
    if (before === null) return false;
    try {
      const page = await patiently(() => api.session(this.session, before), this.life.signal);
      if (this.older !== before) return true; // the conversation was read anew meanwhile
      this.older = page.older ?? null;
      const shown = this.chat.messages;
      this.chat.messages = [...page.messages.filter(({ id }) => !shown.some((one) => one.id === id)), ...shown];
      return true;
    } catch {
      return false;
    }
  }

  private async readNow(signal: AbortSignal) {
    this.reading = true;
    this.stale = false;
    const waiting = () => this.board.show({ connection: "reconnecting" });
    try {
      const details = await patiently(() => api.session(this.session), signal, waiting);
      if (signal.aborted) return;
      if (this.running > 0) this.stale = true; // something was sent meanwhile
      else this.take(details);
    } catch (failure) {
      if (failure instanceof Refused && failure.status === 404) {
        forget(this.session);
        this.close();
      } else {
        this.board.show({ connection: "live" });
        this.complain(failure);
      }
    } finally {
      this.reading = false;
      if (this.stale) setTimeout(() => this.read(), 50);
    }
  }

  private take(details: Details) {
    this.replaceEnd(details);
    const { title, operations, user_id, usage } = details;
    const taken = [...details.messages.map(({ id }) => id), ...details.queued.map((one) => one.message_id)];
    const onTheirWay = this.board.now.queued.filter(({ message_id: id }) => this.sending.isOnItsWay(id) && !taken.includes(id));
    this.board.show({
      state: "ready", connection: "live", title, unowned: user_id === null, usage: usage.total_tokens,
      queued: [...details.queued, ...onTheirWay],
      outside: new Map(operations.map((one) => [one.operation_id, asOutside(one, this.board.now.outside)])),
    });
    if (user_id === null) {
      remember(details);
      announce();
    }
    if (details.active_stream) this.follow(this.resume(details.active_stream.task_id));
    this.sending.resume(details);
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
