// Sends the messages and edits of one conversation. Each stays in the outbox until the server has accepted it. If the
// server refuses one, its text returns to the message box.
import type { Chat } from "@ai-sdk/react";
import type { FileUIPart, UIMessage } from "ai";
import { newId } from "../ids";
import { isNotFound, type Details, type QueuedTurn } from "../net/api";
import type { ResumableConnection } from "../net/transport";
import { filesIn, takenIn, textIn } from "../parts";
import type { Choice } from "./choice";
import { addToDraft } from "./drafts";
import { addUnsent, removeUnsent, unsentMessages, type UnsentMessage } from "./outbox";
import type { PageCallbacks, ViewStore } from "./ViewStore";

// The conversation to which messages are sent.
export interface MessageTarget {
  readonly session: string;
  readonly chat: Chat<UIMessage>;
  readonly connection: ResumableConnection;
  readonly view: ViewStore;
  readonly page?: PageCallbacks;
  readonly deleted: AbortSignal; // aborted when the conversation is deleted
  readonly exists: boolean; // the server has the conversation
  readonly isAnswering: boolean;
  follow(answer: Promise<void>): void;
  read(): void; // reads the conversation again as soon as possible
  choose(choice: Choice): void; // for the next message
  takeChoice(): Choice | null; // what was chosen for the message that is being sent; null: nothing
  loadOlder(): Promise<boolean>; // false: there are no older messages, or they could not be read
}

export class Sending {
  private readonly inFlight = new Set<string>();
  private resolveAccepted: (accepted: boolean) => void = () => undefined; // for the last message that the chat sent
  private lastPost: Promise<unknown> = Promise.resolve(); // keeps the order in which messages reach the server
  private isMissing = false; // the server has answered that the conversation does not exist

  constructor(private readonly conversation: MessageTarget) {}

  send(text: string, files: FileUIPart[], steers = false) {
    const { session, exists } = this.conversation;
    const message = { session, id: newId("m-"), text, files, begins: !exists, choice: this.conversation.takeChoice(), steers };
    addUnsent(message);
    if (!exists) this.conversation.page?.onStarted(session);
    void this.deliver(message);
  }

  edit(id: string, text: string) {
    const choice = this.conversation.takeChoice();
    const message = { session: this.conversation.session, id, text, begins: false, choice, revision: newId() };
    addUnsent(message);
    void this.deliver(message);
  }

  again(id: string) {
    this.lastPost = this.untilAccepted();
    this.conversation.follow(this.conversation.chat.regenerate({ messageId: id, ...inBody(this.conversation.takeChoice()) }));
  }

  // Sends the messages that this tab had not sent before a reload, except those that the server already has.
  resume(details?: Details) {
    const { session } = this.conversation;
    if (details) removeUnsent((message) => message.session === session && hasReceived(details, message));
    for (const message of unsentMessages()) if (message.session === session) void this.deliver(message);
  }

  forget() {
    removeUnsent((message) => message.session === this.conversation.session);
  }

  // Called when the server has accepted the chat's request, and (with false) when the request has ended.
  settleRequest(accepted: boolean) {
    this.resolveAccepted(accepted);
  }

  isUnsent(id: string | null): boolean {
    return id !== null && this.inFlight.has(id);
  }

  private async deliver(message: UnsentMessage) {
    if (this.inFlight.has(message.id)) return;
    this.inFlight.add(message.id);
    if (!(await this.post(message))) {
      this.returnText(message.text, message.files ?? []);
      if (message.choice) this.conversation.choose(message.choice);
    }
    this.inFlight.delete(message.id);
    removeUnsent(({ id }) => id === message.id);
  }

  private post(message: UnsentMessage): Promise<boolean> {
    if (message.revision) {
      const accepted = this.postEdit(message, message.revision);
      this.lastPost = accepted;
      return accepted;
    }
    const waits = this.conversation.isAnswering || this.inFlight.size > 1; // earlier messages come first
    return waits ? this.enqueue(message) : this.postNow(message);
  }

  private async postNow({ id, text, files = [], choice }: UnsentMessage): Promise<boolean> {
    const { chat } = this.conversation;
    if (chat.error) chat.clearError();
    const accepted = (this.lastPost = this.untilAccepted());
    this.conversation.follow(chat.sendMessage({ id, role: "user", parts: [...files, ...textPart(text)] }, inBody(choice)));
    if (await accepted) {
      if (!this.conversation.exists) {
        this.conversation.view.update({ state: "ready" });
        this.conversation.read(); // to get the new session's title and other details
      }
      return true;
    }
    chat.messages = chat.messages.filter((message) => message.id !== id);
    if (!this.conversation.exists) this.conversation.page?.onRefused(this.conversation.session);
    return false;
  }

  private async postEdit({ id, text, choice }: UnsentMessage, revision: string): Promise<boolean> {
    const { view, chat } = this.conversation;
    const isShown = () => chat.messages.some((message) => message.id === id);
    while (!isShown() && (await this.conversation.loadOlder()));
    if (this.conversation.isAnswering || !isShown()) {
      view.update({ problem: "Your edit could not be sent. The text is back in the message box." });
      return false;
    }
    const files = filesIn(chat.messages.find((message) => message.id === id)?.parts ?? []);
    const accepted = this.untilAccepted();
    const options = { headers: { "idempotency-key": revision }, ...inBody(choice) };
    this.conversation.follow(chat.sendMessage({ text, messageId: id, ...(files.length > 0 && { files }) }, options));
    return accepted;
  }

  private async enqueue({ id, text, files = [], choice, steers = false }: UnsentMessage): Promise<boolean> {
    const { view, connection, session, deleted } = this.conversation;
    const shown = text || files.map((file) => file.filename).join(", ");
    view.update({ queued: [...view.current.queued, { task_id: "", message: shown, message_id: id, steers: null }] });
    const sent = this.lastPost.then(() => connection.enqueue(session, { id, text, files, choice: choice ?? null, steers }, deleted));
    this.lastPost = sent.catch(() => undefined);
    try {
      const accepted = await sent;
      const withTask = (turn: QueuedTurn) => (turn.message_id === id ? { ...turn, ...accepted } : turn);
      view.update({ queued: view.current.queued.map(withTask) });
      this.conversation.read();
      return true;
    } catch (failure) {
      view.update({ queued: view.current.queued.filter((message) => message.message_id !== id) });
      this.isMissing ||= isNotFound(failure);
      view.showProblem(failure);
      return false;
    }
  }

  private untilAccepted(): Promise<boolean> {
    return new Promise((resolve) => (this.resolveAccepted = resolve));
  }

  // Puts the text into the message box. If the page does not show it, the text becomes a draft: of this conversation,
  // or of a new one if this one does not exist.
  private returnText(text: string, files: FileUIPart[]) {
    const { view, exists, deleted, session } = this.conversation;
    const isDeleted = deleted.aborted || this.isMissing || isNotFound(this.conversation.chat.error);
    if (view.hasViewers && !isDeleted) view.update({ returned: text, returnedFiles: files });
    else addToDraft(exists && !isDeleted ? session : "new", text);
  }
}

const textPart = (text: string) => (text.trim() ? [{ type: "text" as const, text }] : []);
const inBody = (choice: Choice | null) => (choice ? { body: { ...choice } } : {});

function hasReceived({ messages, queued }: Details, { id, text, revision }: UnsentMessage): boolean {
  const anyText = !revision; // an edit keeps the id of its message, so its text must match
  return messages.some((message) => message.id === id && (anyText || textIn(message.parts) === text))
    || takenIn(messages).has(id)
    || queued.some((message) => message.message_id === id && (anyText || message.message === text));
}
