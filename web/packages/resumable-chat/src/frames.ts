// Server-sent events, cut where the WHATWG says: a line ends at CRLF, LF or CR, an event at an empty line.

/** One whole event. `id` is the cursor behind it, `data` what it says; a comment has neither. */
export interface Frame {
  readonly raw: string;
  readonly id: string | undefined;
  readonly data: string | undefined;
}

const EMPTY_LINE = /(?:\r\n|\n|\r(?!\n|$)){2}/g;
const LINE_END = /\r\n|\n|\r/;
/** An event that is longer is no event of a chat: whoever sends it is not to fill the page's memory. */
const LONGEST = 32 * 1024 * 1024;

/** Cuts the bytes of one response into whole events; what is not whole yet stays inside. */
export class FrameCutter {
  #decoder = new TextDecoder();
  #pending = "";
  #searched = 0;

  /** The events that these bytes made whole. Throws RangeError on one that does not end. */
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
    this.#searched = Math.max(0, this.#pending.length - 3); // an empty line may have come by half
    if (this.#pending.length > LONGEST) throw new RangeError("an event of the stream does not end");
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

/** Whether what has this id was received already, if `last` is the newest that was. Ids of one task always rise. */
export function isOld(id: string, last: string | undefined): boolean {
  const [one, other] = [CURSOR.exec(id), CURSOR.exec(last ?? "")];
  if (one === null || other === null) return id === last;
  const [fence, seq] = [BigInt(one[1]!), BigInt(one[2]!)];
  const [lastFence, lastSeq] = [BigInt(other[1]!), BigInt(other[2]!)];
  return fence < lastFence || (fence === lastFence && seq <= lastSeq);
}
