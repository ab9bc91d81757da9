// Server-sent events of a response, whole ones only: an event that was cut in its middle is never given away.

export interface ServerEvent {
  text: string; // as it came, with its blank line
  id?: string;
  data?: string;
}

const SILENCE = 25_000; // the server says something every 10 s

export async function* eventsOf(answer: Response, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await withinSilence(reader.read());
      signal?.throwIfAborted();
      if (done) return;
      const pieces = (rest + value).split("\n\n");
      rest = pieces.pop() ?? "";
      for (const piece of pieces) yield parsed(piece);
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function parsed(piece: string): ServerEvent {
  const event: ServerEvent = { text: piece + "\n\n" };
  for (const line of piece.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("data: ")) event.data = (event.data === undefined ? "" : event.data + "\n") + line.slice(6);
  }
  return event;
}

function withinSilence<T>(reading: Promise<T>): Promise<T> {
  let timer = 0;
  const silence = new Promise<never>((_, reject) => {
    timer = window.setTimeout(() => reject(new TypeError("network: silence")), SILENCE);
  });
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}

// Waits before another try; sooner when the network comes back or the page is looked at again.
export function pause(attempt: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      document.removeEventListener("visibilitychange", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = window.setTimeout(done, Math.min(4000, 200 * 2 ** attempt) * (0.75 + Math.random() / 2));
    window.addEventListener("online", done);
    document.addEventListener("visibilitychange", done);
    signal?.addEventListener("abort", done);
  });
}
