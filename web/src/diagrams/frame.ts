// Runs in a frame without an origin, for drawing.ts: draws the diagrams that it is sent, and answers with their SVG.
import mermaid from "mermaid";

interface Order {
  id: number;
  code: string;
  dark: boolean;
}

let before: Promise<unknown> = Promise.resolve(); // Mermaid draws one at a time

window.addEventListener("message", ({ source, data }: MessageEvent<Order>) => {
  if (source === parent) before = before.then(() => draw(data));
});

async function draw({ id, code, dark }: Order) {
  try {
    mermaid.initialize({
      startOnLoad: false, securityLevel: "strict", theme: dark ? "dark" : "default", htmlLabels: false,
      flowchart: { htmlLabels: false }, maxTextSize: 20_000, maxEdges: 500, suppressErrorRendering: true,
      fontFamily: "system-ui, sans-serif",
    });
    const { svg } = await mermaid.render(`diagram-${id}`, code);
    parent.postMessage({ id, ...asPicture(svg) }, "*");
  } catch (failure) {
    parent.postMessage({ id, error: String(failure) }, "*");
  }
}

// Returns the SVG as XML, with the size that it has by itself.
function asPicture(svg: string) {
  const drawn = new DOMParser().parseFromString(svg, "text/html").querySelector("svg")!; // nothing in it runs
  const [, , width = 300, height = 150] = (drawn.getAttribute("viewBox") ?? "").split(/[\s,]+/).map(Number);
  drawn.setAttribute("width", String(width));
  drawn.setAttribute("height", String(height));
  drawn.style.maxWidth = "";
  return { svg: new XMLSerializer().serializeToString(drawn), width, height };
}

parent.postMessage({ id: 0 }, "*"); // ready
