import type { State } from "./options.js";

const WORST_FIRST: readonly State[] = ["offline", "reconnecting", "live"];

/** Reports one state for all connections of a page: the worst of them, and only when it changes. */
export class StateReporter {
  #states = new Map<object, State>();
  #shown: State = "live";

  constructor(private readonly report: ((state: State) => void) | undefined) {}

  set(connection: object, state: State): void {
    this.#states.set(connection, state);
    this.#show();
  }

  /** Forgets a connection that is no longer needed. */
  remove(connection: object): void {
    this.#states.delete(connection);
    this.#show();
  }

  #show(): void {
    const states = [...this.#states.values()];
    const state = WORST_FIRST.find((candidate) => states.includes(candidate)) ?? "live";
    if (state === this.#shown) return;
    this.#shown = state;
    void Promise.resolve().then(() => this.report?.(state)); // an error in the page's function must not break the answer
  }
}
