// Splits server-sent events as the WHATWG specifies: a line ends with CRLF, LF or CR, and an event with an empty line.

/** One whole event. `id` is the cursor after it, `data` its payload. A comment has neither. */
export interface Frame {
  readonly raw: string;
  readonly id: string | undefined;
  readonly data: string | undefined;
}

const EMPTY_LINE = /(?:\r\n|\n|\r(?!\n|$)){2}/g;
const LINE_END = /\r\n|\n|\r/;
/** No chat event is longer. The limit protects the page's memory. */
const MAX_EVENT_CHARS = 32 * 1024 * 1024;

/** Cuts the bytes of one response into whole events, and keeps the rest until more bytes arrive. */
export class FrameCutter {
  #decoder = new TextDecoder();
  #pending = "";
  #searched = 0;

  /** Returns the events that these bytes complete. Throws RangeError if an event is longer than 32 Mi characters. */
  push(bytes: Uint8Array): Frame[] {
    this.#pending += this.#decoder.decode(bytes, { stream: true });
    const frames: Frame[] = [];
    let start = 0;
    EMPTY_LINE.lastIndex = this.#searched;
    while (EMPTY_LINE.exec(this.#pending) !== null) {
      frames.push(parse(this.#pending.slice(start, EMPTY_LINE.lastIndex)));
      start = EMPTY_LINE.lastIndex;
    }
    this.#pending = this.#pending.slice(start);
    this.#searched = Math.max(0, this.#pending.length - 3); // half of an empty line may have arrived
    if (this.#pending.length > MAX_EVENT_CHARS) throw new RangeError("an event of the stream is too long");
    return frames;
  }
}

function parse(raw: string): Frame {
  let id: string | undefined;
  const data: string[] = [];
  for (const line of raw.split(LINE_END)) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (line.startsWith("id:")) id = value;
    else if (line.startsWith("data:")) data.push(value);
  }
  return { raw, id, data: data.length > 0 ? data.join("\n") : undefined };
}

const CURSOR = /^(\d{1,19})-(\d{1,19})$/;

/**
 * Returns true if the event with this id was already received. `last` is the newest received id; ids of a task always
 * rise.
 */
export function isOld(id: string, last: string | undefined): boolean {
  const [one, other] = [CURSOR.exec(id), CURSOR.exec(last ?? "")];
  if (one === null || other === null) return id === last;
  const [fence, seq] = [BigInt(one[1]!), BigInt(one[2]!)];
  const [lastFence, lastSeq] = [BigInt(other[1]!), BigInt(other[2]!)];
  return fence < lastFence || (fence === lastFence && seq <= lastSeq);
}
