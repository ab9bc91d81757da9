// What is said in one conversation, on its way to the server. It is in the outbox until the server has it, and what the
// server does not take comes back to who wrote it.
import type { Chat } from "@ai-sdk/react";
import { Refused } from "@copilot-chat/resumable";
import type { UIMessage } from "ai";
import type { Details } from "./api";
import { addToDraft } from "./drafts";
import { newId } from "./ids";
import { drop, keep, unsent, type Unsent } from "./outbox";
import { textIn } from "./shown";
import type { Line } from "./transport";
import type { Board, Page } from "./view";

// The conversation it goes to.
export interface Target {
  readonly session: string;
  readonly chat: Chat<UIMessage>;
  readonly line: Line;
  readonly board: Board;
  readonly page?: Page;
  readonly gone: AbortSignal; // it is deleted
  readonly exists: boolean; // the server knows of it
  readonly isAnswering: boolean;
  follow(answer: Promise<void>): void;
  read(): void; // anew, as soon as may be
  loadOlder(): Promise<boolean>; // more of its messages; whether there were any
}

export class Sending {
  private readonly onTheWay = new Set<string>();
  private settle: (taken: boolean) => void = () => undefined; // what the chat sent last
  private posted: Promise<unknown> = Promise.resolve(); // messages reach the server in their order
  private isMissing = false; // the server has said that it has no such conversation

  constructor(private readonly to: Target) {}

  say(text: string) {
    const { session, exists } = this.to;
    const one = { session, id: newId("m-"), text, begins: !exists };
    keep(one);
    if (!exists) this.to.page?.onBegun(session);
    void this.send(one);
  }

  edit(id: string, text: string) {
    const one = { session: this.to.session, id, text, begins: false, revision: newId() };
    keep(one);
    void this.send(one);
  }

  again(id: string) {
    this.posted = this.isTaken();
    this.to.follow(this.to.chat.regenerate({ messageId: id }));
  }

  // Sends what this tab had not sent when it was reloaded, but for what the server turns out to have.
  resume(known?: Details) {
    if (known) drop((one) => one.session === this.to.session && isIn(known, one));
    for (const one of unsent()) if (one.session === this.to.session) void this.send(one);
  }

  forget() {
    drop((one) => one.session === this.to.session);
  }

  // The chat's request was taken, or it ended without having been.
  settled(taken: boolean) {
    this.settle(taken);
  }

  isOnItsWay(id: string | null): boolean {
    return id !== null && this.onTheWay.has(id);
  }

  private async send(one: Unsent) {
    if (this.onTheWay.has(one.id)) return;
    this.onTheWay.add(one.id);
    if (!(await this.post(one))) this.giveBack(one.text);
    this.onTheWay.delete(one.id);
    drop(({ id }) => id === one.id);
  }

  private post(one: Unsent): Promise<boolean> {
    if (one.revision) {
      const taken = this.revise(one, one.revision);
      this.posted = taken;
      return taken;
    }
    const waits = this.to.isAnswering || this.onTheWay.size > 1; // for an answer, or for what was said before it
    return waits ? this.enqueue(one) : this.ask(one);
  }

  private async ask({ id, text }: Unsent): Promise<boolean> {
    const { chat } = this.to;
    if (chat.error) chat.clearError();
    const taken = (this.posted = this.isTaken());
    this.to.follow(chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] }));
    if (await taken) {
      if (!this.to.exists) {
        this.to.board.show({ state: "ready" });
        this.to.read(); // what the server knows of a new session
      }
      return true;
    }
    chat.messages = chat.messages.filter((message) => message.id !== id);
    if (!this.to.exists) this.to.page?.onRefused(this.to.session);
    return false;
  }

  private async revise({ id, text }: Unsent, revision: string): Promise<boolean> {
    const { board, chat } = this.to;
    const isShown = () => chat.messages.some((message) => message.id === id);
    while (!isShown() && (await this.to.loadOlder()));
    if (this.to.isAnswering || !isShown()) {
      board.show({ problem: "An edit was not sent. Here it is." });
      return false;
    }
    const taken = this.isTaken();
    this.to.follow(chat.sendMessage({ text, messageId: id }, { headers: { "idempotency-key": revision } }));
    return taken;
  }

  private async enqueue({ id, text }: Unsent): Promise<boolean> {
    const { board, line, session, gone } = this.to;
    board.show({ queued: [...board.now.queued, { task_id: "", message: text, message_id: id }] });
    const sent = this.posted.then(() => line.enqueue(session, id, text, gone));
    this.posted = sent.catch(() => undefined);
    try {
      const task = await sent;
      board.show({ queued: board.now.queued.map((one) => (one.message_id === id ? { ...one, task_id: task } : one)) });
      this.to.read();
      return true;
    } catch (failure) {
      board.show({ queued: board.now.queued.filter((one) => one.message_id !== id) });
      this.isMissing ||= saysMissing(failure);
      board.complain(failure);
      return false;
    }
  }

  private isTaken(): Promise<boolean> {
    return new Promise((resolve) => (this.settle = resolve));
  }

  // Into the field, or where the field will find it: that of a new conversation when this one is gone.
  private giveBack(text: string) {
    const { board, exists, gone, session } = this.to;
    const isGone = gone.aborted || this.isMissing || saysMissing(this.to.chat.error);
    if (board.isSeen && !isGone) board.show({ returned: text });
    else addToDraft(exists && !isGone ? session : "new", text);
  }
}

const saysMissing = (failure: unknown) => failure instanceof Refused && failure.status === 404;

function isIn({ messages, queued }: Details, { id, text, revision }: Unsent): boolean {
  const asIs = !revision; // a message; of an edit the text tells
  return messages.some((one) => one.id === id && (asIs || textIn(one.parts) === text))
    || queued.some((one) => one.message_id === id && (asIs || one.message === text));
}
