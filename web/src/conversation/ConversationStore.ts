// One conversation as the server has it: its messages, the running answer, queued messages and pending operations. If
// the page may have missed something, the store reads the session again and attaches to the running task.
import { Chat } from "@ai-sdk/react";
import type { FileUIPart, UIMessage } from "ai";
import { newId } from "../ids";
import { forgetSession, rememberSession } from "../net/anonymousSessions";
import { loadParser } from "../markdown/parser";
import { api, isNotFound, type Answer, type Details } from "../net/api";
import type { FeedEvent } from "../net/feed";
import { pause, withRetry } from "../net/retry";
import { broadcastSessionsChanged } from "../net/sessionBroadcast";
import { openConnection, type ResumableConnection } from "../net/transport";
import { asPending, withProgress } from "../tools/pendingOperations";
import { choiceOf, saveChoice, type Choice } from "./choice";
import { announceAnswer } from "../notices";
import { Sending, type MessageTarget } from "./sending";
import { ViewStore, type PageCallbacks, type View } from "./ViewStore";

const SEND_UNSENT_LIMIT_MS = 600_000;
const MOST_PAGES = 100; // of older messages that are loaded to show one of them
const LOOK_AGAIN_MS = 50; // between two looks whether the conversation is still being read

// The result of looking for a message. `busy`: it is not on the branch on which an answer is running.
export type Found = "here" | "missing" | "busy" | "unread";
type Page = "read" | "none" | "failed";

export class ConversationStore implements MessageTarget {
  readonly chat: Chat<UIMessage>;
  readonly connection: ResumableConnection;
  readonly view: ViewStore;
  readonly sending = new Sending(this);
  private viewing = new AbortController(); // aborted while the conversation is not open
  private readonly deletion = new AbortController();
  readonly deleted = this.deletion.signal;
  private attachedTask: string | null = null; // the task whose answer is being streamed
  private readonly knownTasks = new Set<string>();
  private answersRunning = 0; // answers that were requested or attached to, and have not ended
  private reading = false;
  private isStale = false; // the server has changes that the page has not read
  private streamLost = false; // the server can no longer serve the stream
  private failures = 0; // consecutive streams that were lost or refused; decides the pause before the next one
  private olderCursor: number | null = null; // the `before` of the next page; null: no older messages are known
  private olderRequest: Promise<Page> | null = null;
  private stopRequested = false; // Stop was clicked before the task of the answer was known

  constructor(readonly session: string, isNew: boolean, readonly page?: PageCallbacks) {
    this.viewing.abort();
    this.view = new ViewStore(isNew ? "new" : "loading");
    const choice = choiceOf(this.draft);
    if (choice) this.view.update({ choice, isChosen: true });
    this.connection = openConnection({
      exists: () => this.exists,
      onTask: (task) => this.attach(task),
      onState: (connection) => this.view.update({ connection }),
      onLost: () => void (this.streamLost = true),
    });
    this.chat = new Chat({
      id: session,
      transport: this.connection.transport,
      generateId: () => newId("m-"),
      onError: () => this.sending.settleRequest(false),
    });
  }

  get exists(): boolean {
    return this.view.current.state !== "new";
  }

  private get draft(): string {
    return this.exists ? this.session : "new";
  }

  get isAnswering(): boolean {
    return this.answersRunning > 0;
  }

  // Reads the conversation and keeps it up to date. Returns a function that stops this.
  readonly open = () => {
    this.viewing = new AbortController();
    if (this.exists) this.read();
    else this.sending.resume();
    return () => {
      this.viewing.abort();
      if (this.attachedTask) void this.chat.stop(); // stops reading; a message that is not accepted yet is still sent
    };
  };

  readonly onFeedEvent = (event: FeedEvent) => {
    if (event.type === "snapshot") {
      const running = event.turns?.find((turn) => turn.session_id === this.session && !turn.waiting);
      if (this.exists && (running ? running.task_id !== this.attachedTask : this.answersRunning === 0)) this.read();
      return;
    }
    if (event.session_id !== this.session) return;
    if ((event.type === "operation-progress" || event.type === "operation-started") && event.operation_id)
      this.view.update({ pendingOperations: withProgress(this.view.current.pendingOperations, event) });
    else if (event.type === "title-changed") this.view.update({ title: event.title ?? null });
    else if (event.type === "session-deleted") this.close();
    else if (event.type === "turn-started" || event.type === "turn-finished") {
      if (!event.task_id || !this.knownTasks.has(event.task_id)) this.read();
    } else if (event.type === "branch-changed") this.read();
    else if (event.type === "operation-finished" && event.status !== "completed") this.read();
  };

  readonly send = (text: string, files: FileUIPart[] = []) => {
    this.view.update({ problem: null, returned: null, returnedFiles: [] });
    this.sending.send(text, files);
  };

  // Sends a message for the running answer, which reads it before its next step.
  readonly sendNow = (text: string, files: FileUIPart[]) => {
    this.view.update({ problem: null, returned: null, returnedFiles: [] });
    this.sending.send(text, files, true);
  };

  readonly edit = (messageId: string, text: string) => {
    this.view.update({ problem: null, returned: null });
    this.sending.edit(messageId, text);
    this.isStale = true; // the edit gives the message another version
  };

  readonly again = (messageId: string) => {
    this.view.update({ problem: null });
    this.sending.again(messageId);
    this.isStale = true;
  };

  // Shows another version of a message, with what followed it.
  readonly switchTo = async (version: string) => {
    this.view.update({ problem: null, switchedTo: version });
    try {
      await withRetry(() => api.switchTo(this.session, version), this.viewing.signal);
    } catch (failure) {
      this.showProblem(failure);
    }
    this.read();
  };

  readonly choose = (choice: Choice) => {
    saveChoice(this.draft, choice);
    this.view.update({ choice, isChosen: true });
  };

  takeChoice(): Choice | null {
    const { choice, isChosen } = this.view.current;
    if (!isChosen) return null;
    saveChoice(this.draft, null);
    this.view.update({ isChosen: false });
    return choice;
  }

  readonly stop = async () => {
    this.view.update({ stopping: true });
    const task = this.attachedTask;
    if (!task && this.answersRunning > 0) {
      this.stopRequested = true;
      return;
    }
    try {
      await withRetry(() => (task ? api.cancelTask(task) : api.cancelSession(this.session)), this.viewing.signal);
    } catch (failure) {
      this.view.update({ stopping: false });
      this.showProblem(failure);
    }
  };

  readonly cancelTask = async (task: string) => {
    try {
      await api.cancelTask(task);
      this.view.update({ queued: this.view.current.queued.filter((one) => one.task_id !== task) });
    } catch (failure) {
      this.showProblem(failure);
    }
    this.read();
  };

  // Answers a question of a tool. The conversation then continues, which the feed tells as well.
  readonly answer = async (operation: string, given: Answer) => {
    this.view.update({ problem: null });
    try {
      await withRetry(() => api.answer(operation, given), this.viewing.signal);
    } catch (failure) {
      this.showProblem(failure);
    }
    this.read();
  };

  // Loads one page of older messages. Resolves to false if there are none, or if they could not be read.
  readonly loadOlder = async (): Promise<boolean> => (await this.loadPage()) === "read";

  private loadPage(): Promise<Page> {
    return (this.olderRequest ??= this.readOlder().finally(() => (this.olderRequest = null)));
  }

  // Loads older messages until this one is there. Switches to its branch if it is on another one.
  readonly lookFor = async (id: string): Promise<Found> => {
    const found = await this.lookHere(id);
    if (found !== "missing") return found;
    if (this.answersRunning > 0) return "busy";
    try {
      await withRetry(() => api.switchTo(this.session, id), this.viewing.signal);
    } catch (failure) {
      return isNotFound(failure) ? "missing" : "unread";
    }
    while (this.reading && !this.viewing.signal.aborted) await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
    await this.readNow(this.viewing.signal);
    return this.lookHere(id);
  };

  private async lookHere(id: string): Promise<Found> {
    const isThere = () => this.chat.messages.some((message) => message.id === id);
    for (let page = 0; page < MOST_PAGES; page++) {
      if (isThere()) return "here";
      const older = await this.loadPage();
      if (older !== "read") return isThere() ? "here" : older === "none" ? "missing" : "unread";
    }
    return isThere() ? "here" : "unread";
  }

  readonly showProblemText = (problem: string) => this.view.update({ problem });

  // Sends the messages that were unsent before a reload, even if the conversation is not open.
  sendUnsent() {
    if (this.exists) void this.readNow(AbortSignal.timeout(SEND_UNSENT_LIMIT_MS));
    else this.sending.resume();
  }

  // Tracks an answer until its stream ends, and then reads the session if something was missed or is queued.
  follow(answer: Promise<void>) {
    this.answersRunning++;
    this.view.update({ busy: true });
    const ended = async () => {
      this.answersRunning--;
      this.attachedTask = null;
      this.stopRequested = false;
      this.sending.settleRequest(false); // has no effect if the message was accepted
      this.view.update({ busy: this.answersRunning > 0, stopping: false });
      broadcastSessionsChanged();
      if (document.hidden && this.answersRunning === 0) announceAnswer(this.session, this.view.current.title);
      this.view.update({ usage: this.view.current.usage + tokensOf(this.chat.lastMessage) });
      if (this.streamLost || this.chat.status === "error") await pause(++this.failures, this.viewing.signal);
      else this.failures = 0;
      this.streamLost = false;
      if (this.isStale || this.failures > 0 || this.view.current.queued.length > 0) this.read();
    };
    void answer.catch((failure: unknown) => this.showProblem(failure)).then(ended);
  }

  read() {
    if (this.answersRunning > 0 || this.reading || !this.exists) this.isStale = true;
    else if (!this.viewing.signal.aborted) void this.readNow(this.viewing.signal);
  }

  private attach(task: string) {
    this.attachedTask = task;
    this.knownTasks.add(task);
    this.sending.settleRequest(true);
    broadcastSessionsChanged();
    if (this.stopRequested) void this.stop();
    if (this.viewing.signal.aborted) void this.chat.stop();
  }

  private close() {
    this.deletion.abort();
    this.sending.forget();
    void this.chat.stop();
    this.view.update({ state: "missing" });
  }

  private showProblem(failure: unknown) {
    if (!this.viewing.signal.aborted) this.view.showProblem(failure);
  }

  private async readOlder(): Promise<Page> {
    const before = this.olderCursor;
    if (before === null) return "none";
    try {
      const page = await withRetry(() => api.session(this.session, before), this.viewing.signal);
      if (this.olderCursor !== before) return "read"; // the conversation was read again in the meantime
      this.olderCursor = page.older ?? null;
      this.view.update({ alternatives: withAlternatives(this.view.current.alternatives, page) });
      const shown = this.chat.messages;
      this.chat.messages = [...page.messages.filter(({ id }) => !shown.some((one) => one.id === id)), ...shown];
      return "read";
    } catch {
      return "failed";
    }
  }

  private async readNow(signal: AbortSignal) {
    this.reading = true;
    this.isStale = false;
    const waiting = () => this.view.update({ connection: "reconnecting" });
    try {
      const parsing = loadParser(); // beside the request, so that no text is shown unparsed first
      const details = await withRetry(() => api.session(this.session), signal, waiting);
      await parsing;
      if (signal.aborted) return;
      if (this.answersRunning > 0) this.isStale = true; // a message was sent in the meantime
      else this.showDetails(details);
    } catch (failure) {
      if (isNotFound(failure)) {
        forgetSession(this.session);
        this.close();
      } else {
        this.view.update({ connection: "live" });
        this.showProblem(failure);
      }
    } finally {
      this.reading = false;
      if (this.isStale) setTimeout(() => this.read(), 50);
    }
  }

  private showDetails(details: Details) {
    this.replaceNewest(details);
    const { title, operations, user_id, usage, model, effort } = details;
    if (!this.view.current.isChosen) this.view.update({ choice: { model, ...(effort && { effort }) } });
    const received = [...details.messages.map(({ id }) => id), ...details.queued.map((one) => one.message_id)];
    const { queued: shown, pendingOperations: known } = this.view.current;
    const unsent = shown.filter(({ message_id: id }) => this.sending.isUnsent(id) && !received.includes(id));
    this.view.update({
      state: "ready", connection: "live", title, unowned: user_id === null, usage: usage.total_tokens,
      queued: [...details.queued, ...unsent],
      alternatives: withAlternatives(this.view.current.alternatives, details),
      pendingOperations: new Map(operations.map((one) => [one.operation_id, asPending(one, known)])),
    });
    if (user_id === null) {
      rememberSession(details);
      broadcastSessionsChanged();
    }
    if (details.active_stream) this.follow(this.resume(details.active_stream.task_id));
    this.sending.resume(details);
  }

  // Replaces the messages that the newest page of history contains. Older messages stay.
  private replaceNewest({ messages, older }: Details) {
    const shown = this.chat.messages;
    const at = shown.findIndex((message) => message.id === messages[0]?.id);
    this.chat.messages = at > 0 ? [...shown.slice(0, at), ...messages] : messages;
    if (at < 0) this.olderCursor = older ?? null; // more messages arrived than fit on a page
  }

  private resume(task: string): Promise<void> {
    this.connection.attachTo(task);
    return this.chat.resumeStream();
  }
}

function tokensOf(answer?: UIMessage): number {
  const metadata = answer?.metadata as { usage?: { totalTokens?: number } } | undefined;
  return metadata?.usage?.totalTokens ?? 0;
}

function withAlternatives(known: View["alternatives"], { messages, branches = [] }: Details): View["alternatives"] {
  const read = new Set(messages.map(({ id }) => id));
  const others = [...known].filter(([id]) => !read.has(id));
  return new Map([...others, ...branches.map((one) => [one.id, one] as const)]);
}
