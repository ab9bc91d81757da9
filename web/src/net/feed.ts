// The server's event feed. The tab that holds the lock reads it and broadcasts the events to the other tabs, so each
// browser needs one connection.
import { followEvents, Refused, type FeedEvent as HintEvent } from "@copilot-chat/resumable";
import { bearer, recordAccess } from "./token";

export interface FeedEvent extends HintEvent {
  readonly operation_id?: string;
  readonly status?: string;
  readonly percent?: number | null;
  readonly message?: string | null;
  readonly title?: string;
  readonly turns?: { task_id: string; session_id: string; waiting: boolean }[];
}
type Listener = (event: FeedEvent) => void;

const NEW_TAB = "new-tab"; // makes the reading tab reconnect, because a new connection starts with a snapshot

class Feed {
  readonly listeners = new Set<Listener>();
  private readonly name: string;
  private readonly channel: BroadcastChannel;
  private reading = new AbortController();
  private connection = new AbortController(); // of the current connection, if this tab reads

  constructor(private readonly session: string | null) {
    this.name = `copilot-feed:${session ?? "user"}`;
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = ({ data }: MessageEvent<FeedEvent | typeof NEW_TAB>) =>
      data === NEW_TAB ? this.connection.abort() : this.dispatch(data);
    this.channel.postMessage(NEW_TAB);
    this.start();
    // The browser may keep a page for the Back button after the user leaves it, so the page itself must release its
    // lock.
    window.addEventListener("pagehide", this.stop);
    window.addEventListener("pageshow", this.start);
  }

  close() {
    this.stop();
    window.removeEventListener("pagehide", this.stop);
    window.removeEventListener("pageshow", this.start);
    this.channel.close();
  }

  private readonly stop = () => this.reading.abort();

  private readonly start = (event?: PageTransitionEvent) => {
    if (event && !this.reading.signal.aborted) return;
    this.reading = new AbortController();
    const { signal } = this.reading;
    // Pages served over plain HTTP have no locks, so each of their tabs reads the feed.
    const done = navigator.locks?.request(this.name, { signal }, () => this.read(signal)) ?? this.read(signal);
    done.catch((reason: unknown) => {
      if (!signal.aborted && !(reason instanceof Refused)) throw reason;
    });
  };

  private dispatch(event: FeedEvent) {
    if (this.session === null) recordAccess(true);
    for (const listener of this.listeners) listener(event);
  }

  private async read(signal: AbortSignal) {
    const sessionId = this.session === null ? {} : { sessionId: this.session };
    while (!signal.aborted) {
      this.connection = new AbortController();
      const stopped = AbortSignal.any([signal, this.connection.signal]);
      try {
        for await (const event of followEvents({ ...sessionId, headers: bearer, maxDelayMs: 4000, signal: stopped })) {
          this.channel.postMessage(event);
          this.dispatch(event as FeedEvent);
        }
      } catch (reason) {
        if (reason instanceof Refused && reason.status === 401 && this.session === null) recordAccess(false);
        if (!stopped.aborted) throw reason;
      }
    }
  }
}

const feeds = new Map<string | null, Feed>();

// Subscribes to all events of the user or, for anonymous callers, of one session. Returns a function that unsubscribes.
export function subscribeToFeed(listener: Listener, session: string | null = null): () => void {
  const feed = feeds.get(session) ?? new Feed(session);
  feeds.set(session, feed);
  feed.listeners.add(listener);
  return () => {
    feed.listeners.delete(listener);
    if (feed.listeners.size > 0) return;
    feed.close();
    feeds.delete(session);
  };
}
