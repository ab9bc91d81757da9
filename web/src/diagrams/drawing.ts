// Has diagrams drawn in a hidden frame, which has no rights: it is of no origin (sandbox), reaches no server, and its own
// policy allows the inline styles that Mermaid needs. Mermaid is loaded there with the first diagram.

export interface Drawing {
  svg: string;
  width: number;
  height: number;
}
interface Waiting {
  done: (drawing: Drawing) => void;
  failed: (reason: Error) => void;
}

const LIMIT_MS = 20_000; // for one diagram, with the loading of Mermaid
const MAX_SVG_CHARS = 2_000_000;

let frame: HTMLIFrameElement | null = null;
let opened: Promise<void> | null = null;
let last = 0;
const waiting = new Map<number, Waiting>();

export async function draw(code: string, dark: boolean): Promise<Drawing> {
  await (opened ??= open());
  const id = ++last;
  return new Promise<Drawing>((resolve, reject) => {
    const timer = setTimeout(() => {
      close(); // it may hang; the next diagram gets a new frame
      reject(new Error("too slow"));
    }, LIMIT_MS);
    const end = () => {
      clearTimeout(timer);
      waiting.delete(id);
    };
    waiting.set(id, {
      done: (drawing) => {
        end();
        resolve(drawing);
      },
      failed: (reason) => {
        end();
        reject(reason);
      },
    });
    frame?.contentWindow?.postMessage({ id, code, dark }, "*"); // the frame has no origin that could be named
  });
}

function open(): Promise<void> {
  return new Promise((resolve, reject) => {
    const made = document.createElement("iframe");
    made.setAttribute("sandbox", "allow-scripts");
    made.src = "/diagrams.html";
    made.title = "Draws diagrams";
    made.className = "unseen";
    made.tabIndex = -1;
    made.setAttribute("aria-hidden", "true");
    frame = made;
    const timer = setTimeout(() => {
      close();
      reject(new Error("not loaded"));
    }, LIMIT_MS);
    waiting.set(0, {
      done: () => {
        clearTimeout(timer);
        waiting.delete(0);
        resolve();
      },
      failed: reject,
    });
    window.addEventListener("message", take);
    document.body.append(made);
  });
}

function close() {
  window.removeEventListener("message", take);
  frame?.remove();
  frame = null;
  opened = null;
  const reason = new Error("closed");
  for (const one of [...waiting.values()]) one.failed(reason);
  waiting.clear();
}

// Trusts nothing that the frame says, because it runs what a model wrote.
function take({ source, data }: MessageEvent<unknown>) {
  if (!frame || source !== frame.contentWindow || typeof data !== "object" || data === null) return;
  const { id, svg, width, height } = data as Record<string, unknown>;
  const one = typeof id === "number" ? waiting.get(id) : undefined;
  if (!one) return;
  if (id === 0) return one.done({ svg: "", width: 0, height: 0 });
  if (typeof svg !== "string" || svg.length > MAX_SVG_CHARS) return one.failed(new Error("not drawn"));
  one.done({ svg, width: sized(width), height: sized(height) });
}

const sized = (value: unknown) => (typeof value === "number" && value > 0 ? Math.min(Math.ceil(value), 8_000) : 300);
