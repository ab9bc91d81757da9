// The state of a conversation that React components render.
import type { State } from "@copilot-chat/resumable";
import type { FileUIPart } from "ai";
import type { Alternatives, QueuedTurn } from "../net/api";
import type { Choice } from "./choice";
import type { PendingOperation } from "../tools/pendingOperations";

export interface View {
  state: "new" | "loading" | "ready" | "missing";
  connection: State;
  title: string | null;
  queued: QueuedTurn[];
  alternatives: ReadonlyMap<string, Alternatives>; // by message
  switchedTo: string | null; // the version to which the user has just switched
  pendingOperations: ReadonlyMap<string, PendingOperation>;
  busy: boolean; // an answer is requested or being streamed
  stopping: boolean;
  problem: string | null;
  returned: string | null; // the text of a message that the server did not accept
  returnedFiles: FileUIPart[];
  usage: number;
  choice: Choice | null; // the model of the conversation, or the one that was chosen for the next message
  isChosen: boolean; // chosen for the next message, and not sent yet
  unowned: boolean; // the session was created without a token
}

// Callbacks to the page that shows a new conversation.
export interface PageCallbacks {
  onStarted(session: string): void; // its first message is being sent
  onRefused(session: string): void; // the server did not accept the first message
}

const EMPTY: View = {
  state: "loading", connection: "live", title: null, queued: [], alternatives: new Map(), switchedTo: null, pendingOperations: new Map(), busy: false,
  stopping: false, problem: null, returned: null, returnedFiles: [], usage: 0, choice: null, isChosen: false, unowned: false,
};

export class ViewStore {
  current: View;
  private readonly viewers = new Set<() => void>();

  constructor(state: View["state"]) {
    this.current = { ...EMPTY, state };
  }

  get hasViewers(): boolean {
    return this.viewers.size > 0;
  }

  readonly subscribe = (viewer: () => void) => {
    this.viewers.add(viewer);
    return () => void this.viewers.delete(viewer);
  };

  update(changes: Partial<View>) {
    this.current = { ...this.current, ...changes };
    for (const viewer of this.viewers) viewer();
  }

  showProblem(failure: unknown) {
    this.update({ problem: failure instanceof Error ? failure.message : String(failure) });
  }
}
