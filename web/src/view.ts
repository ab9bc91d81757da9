// What is known of a conversation, for who shows it.
import type { State } from "@copilot-chat/resumable";
import type { QueuedTurn } from "./api";
import type { Outside } from "./outside";

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

// Where a new conversation stands.
export interface Page {
  onBegun(session: string): void; // it has its first message, on its way
  onRefused(session: string): void; // and the server did not take it
}

const NOTHING: View = {
  state: "loading", connection: "live", title: null, queued: [], outside: new Map(), busy: false, stopping: false,
  problem: null, returned: null, usage: 0, unowned: false,
};

export class Board {
  now: View;
  private readonly viewers = new Set<() => void>();

  constructor(state: View["state"]) {
    this.now = { ...NOTHING, state };
  }

  get isSeen(): boolean {
    return this.viewers.size > 0;
  }

  readonly subscribe = (viewer: () => void) => {
    this.viewers.add(viewer);
    return () => void this.viewers.delete(viewer);
  };

  show(part: Partial<View>) {
    this.now = { ...this.now, ...part };
    for (const viewer of this.viewers) viewer();
  }

  complain(failure: unknown) {
    this.show({ problem: failure instanceof Error ? failure.message : String(failure) });
  }
}
