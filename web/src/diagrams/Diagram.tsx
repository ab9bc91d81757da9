// Shows a Mermaid diagram as a picture, with its source below. Shows only the source while it is still written, while it
// is drawn, and if it cannot be drawn.
import { useEffect, useState, type ReactNode } from "react";
import { draw, type Drawing } from "./drawing";

const QUIET_MS = 400; // a diagram is drawn when its source has not changed for this long
const MAX_CHARS = 20_000;

export function Diagram({ code, source }: { code: string; source: ReactNode }) {
  const [shown, setShown] = useState<{ code: string; drawing: Drawing; address: string }>();
  useEffect(() => {
    if (code.length > MAX_CHARS) return;
    let unmounted = false;
    let address: string | undefined;
    const timer = setTimeout(async () => {
      const drawing = await draw(code, isDark()).catch(() => undefined);
      if (!drawing || unmounted) return;
      // Shows it as a picture, in which nothing runs, loads or links.
      address = URL.createObjectURL(new Blob([drawing.svg], { type: "image/svg+xml" }));
      setShown({ code, drawing, address });
    }, QUIET_MS);
    return () => {
      unmounted = true;
      clearTimeout(timer);
      if (address) URL.revokeObjectURL(address);
    };
  }, [code]);
  if (shown?.code !== code) return source;
  return (
    <figure className="diagram">
      <img src={shown.address} width={shown.drawing.width} height={shown.drawing.height} alt="Diagram; its source follows" />
      <details><summary className="note">Source</summary>{source}</details>
    </figure>
  );
}

const isDark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
