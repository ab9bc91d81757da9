import type { State } from "./options.js";

const WORST: readonly State[] = ["offline", "reconnecting", "live"];

/** One sign for all connections of a page: it shows the worst of them, and tells only what has changed. */
export class Sign {
  #states = new Map<object, State>();
  #shown: State = "live";

  constructor(private readonly tell: ((state: State) => void) | undefined) {}

  set(connection: object, state: State): void {
    this.#states.set(connection, state);
    this.#show();
  }

  /** That connection is not needed any more. */
  remove(connection: object): void {
    this.#states.delete(connection);
    this.#show();
  }

  #show(): void {
    const states = [...this.#states.values()];
    const state = WORST.find((candidate) => states.includes(candidate)) ?? "live";
    if (state === this.#shown) return;
    this.#shown = state;
    void Promise.resolve().then(() => this.tell?.(state)); // an error of the page's function costs no answer
  }
}
