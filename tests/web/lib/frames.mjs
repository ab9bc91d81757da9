// Parses server-sent events as the WHATWG specifies: lines end at CRLF, LF or CR and at nothing else.

/** Splits a byte stream into events. `push(bytes)` returns the completed ones, as {id, event, data, comment, raw}. */
export class FrameScanner {
  #decoder = new TextDecoder('utf-8', { fatal: true });
  #pending = '';

  push(bytes) {
    this.#pending += this.#decoder.decode(bytes, { stream: true });
    const frames = [];
    for (let end; (end = wholeFrame(this.#pending)) > 0; ) {
      frames.push(parseFrame(this.#pending.slice(0, end)));
      this.#pending = this.#pending.slice(end);
    }
    return frames;
  }

  /** The text of an event that is not complete yet. */
  get rest() {
    return this.#pending;
  }
}

const BLANK_LINE = /(?:\r\n|\n|\r(?!\n|$)){2}/;

function wholeFrame(text) {
  const match = BLANK_LINE.exec(text);
  return match ? match.index + match[0].length : 0;
}

function parseFrame(raw) {
  const frame = { raw };
  const data = [];
  for (const line of raw.split(/\r\n|\n|\r/)) {
    if (line === '') continue;
    const colon = line.indexOf(':');
    if (colon === 0) {
      frame.comment = line.slice(1).trim();
      continue;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') data.push(value);
    else frame[name] = value;
  }
  if (data.length > 0) frame.data = data.join('\n');
  return frame;
}
