// The server's event feed, one connection a browser: the tab that holds the lock reads it and tells the others.
import { withToken } from "./api";
import { eventsOf, pause } from "./sse";

export interface FeedEvent {
  type: string;
  session_id?: string;
  task_id?: string;
  operation_id?: string;
  status?: string;
  percent?: number | null;
  message?: string | null;
  title?: string;
  turns?: { task_id: string; session_id: string; waiting: boolean }[];
  operations?: (FeedEvent & { operation_id: string; task_id: string; session_id: string })[];
}
type Listener = (event: FeedEvent) => void;

class Feed {
  readonly listeners = new Set<Listener>();
  private readonly name: string;
  private readonly channel: BroadcastChannel;
  private reading = new AbortController();

  constructor(private readonly session: string | null) {
    this.name = `copilot-feed:${session ?? "user"}`;
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = ({ data }: MessageEvent<FeedEvent>) => this.tell(data);
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
    done.catch(() => undefined);
  };

  private tell(event: FeedEvent) {
    for (const listener of this.listeners) listener(event);
  }

  private async read(signal: AbortSignal) {
    const path = "/api/chat/events" + (this.session ? `?session_id=${this.session}` : "");
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        const answer = await fetch(path, { headers: withToken(), signal, cache: "no-store" });
        if (answer.status === 401 && !this.session) return; // anonymous: sessions have feeds of their own
        if (answer.ok)
          for await (const { data } of eventsOf(answer, signal)) {
            if (data === undefined) continue;
            attempt = 0;
            const event = JSON.parse(data) as FeedEvent;
            this.channel.postMessage(event);
            this.tell(event);
          }
      } catch {
        if (signal.aborted) return;
      }
      await pause(attempt, signal);
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
