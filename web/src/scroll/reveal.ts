// Brings one message of a conversation to the reader: scrolls to it, focuses it and marks it for a moment.

const MOST_FRAMES = 120; // until the message is rendered
const STEADY_FRAMES = 30; // for which its place is kept while its neighbours are rendered
const MARKED_MS = 3000;
const BY_READER = ["wheel", "touchmove", "keydown", "pointerdown"];

const nextFrame = () => new Promise(requestAnimationFrame);

// Resolves to false if the message does not appear. `signal` ends it.
export async function reveal(box: HTMLElement, id: string, signal: AbortSignal): Promise<boolean> {
  const find = () => box.querySelector<HTMLElement>(`[data-message="${CSS.escape(id)}"]`);
  for (let frame = 0; !find() && frame < MOST_FRAMES && !signal.aborted; frame++) await nextFrame();
  const message = find();
  if (!message || signal.aborted) return false;
  message.tabIndex = -1;
  message.focus({ preventScroll: true });
  message.dataset.found = "";
  setTimeout(() => delete message.dataset.found, MARKED_MS);
  await keepAtTop(message, signal);
  return true;
}

// Scrolls to the message, and again if its neighbours change their height, unless the reader does something.
async function keepAtTop(message: HTMLElement, signal: AbortSignal) {
  const taken = new AbortController();
  for (const kind of BY_READER)
    addEventListener(kind, () => taken.abort(), { capture: true, passive: true, signal: taken.signal });
  for (let frame = 0; frame < STEADY_FRAMES && !signal.aborted && !taken.signal.aborted; frame++) {
    message.scrollIntoView({ block: "start" });
    await nextFrame();
  }
  taken.abort();
}
