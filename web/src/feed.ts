// The server's event feed, one connection a browser: the tab that holds the lock reads it and tells the others.
import { followEvents, Refused, type FeedEvent as Told } from "@copilot-chat/resumable";
import { bearer, judge } from "./token";

export interface FeedEvent extends Told {
  readonly operation_id?: string;
  readonly status?: string;
  readonly percent?: number | null;
  readonly message?: string | null;
  readonly title?: string;
  readonly turns?: { task_id: string; session_id: string; waiting: boolean }[];
}
type Listener = (event: FeedEvent) => void;

const NEW_TAB = "new-tab"; // who comes gets the snapshot that follows a new connection; so does everybody

class Feed {
  readonly listeners = new Set<Listener>();
  private readonly name: string;
  private readonly channel: BroadcastChannel;
  private reading = new AbortController();
  private connection = new AbortController(); // within it, when this tab is the one that reads

  constructor(private readonly session: string | null) {
    this.name = `copilot-feed:${session ?? "user"}`;
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = ({ data }: MessageEvent<FeedEvent | typeof NEW_TAB>) =>
      data === NEW_TAB ? this.connection.abort() : this.tell(data);
    this.channel.postMessage(NEW_TAB);
    this.start();
    // A page that is left may be kept for the Back button, with its lock: it has to give that up itself.
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
    // Pages that come over plain HTTP have no locks: then each tab reads for itself.
    const done = navigator.locks?.request(this.name, { signal }, () => this.read(signal)) ?? this.read(signal);
    done.catch((reason: unknown) => {
      if (!signal.aborted && !(reason instanceof Refused)) throw reason;
    });
  };

  private tell(event: FeedEvent) {
    if (this.session === null) judge(true);
    for (const listener of this.listeners) listener(event);
  }

  private async read(signal: AbortSignal) {
    const sessionId = this.session === null ? {} : { sessionId: this.session };
    while (!signal.aborted) {
      this.connection = new AbortController();
      const either = AbortSignal.any([signal, this.connection.signal]);
      try {
        for await (const event of followEvents({ ...sessionId, headers: bearer, maxDelayMs: 4000, signal: either })) {
          this.channel.postMessage(event);
          this.tell(event as FeedEvent);
        }
      } catch (reason) {
        if (reason instanceof Refused && reason.status === 401 && this.session === null) judge(false);
        if (!either.aborted) throw reason;
      }
    }
  }
}

const feeds = new Map<string | null, Feed>();

// Hears of everything of the user, or (anonymous callers) of one session. Returns how to stop.
export function listen(listener: Listener, session: string | null = null): () => void {
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
