import { useEffect, useState, type ReactNode } from "react";
import { CopyButton } from "../CopyButton";

const MAX_COLOURED_CHARS = 20_000;
const QUIET_MS = 150; // code is coloured when it has not changed for this long

export function CodeBlock({ code, language }: { code: string; language?: string }) {
  const shown = useHighlighted(code, language);
  return (
    <figure className="code">
      <figcaption><span>{language ?? "text"}</span><CopyButton text={code} what="code" /></figcaption>
      <pre tabIndex={0}><code>{shown}</code></pre>
    </figure>
  );
}

function useHighlighted(code: string, language?: string): ReactNode {
  const [coloured, setColoured] = useState<{ code: string; shown: ReactNode }>();
  useEffect(() => {
    if (!language || code.length > MAX_COLOURED_CHARS) return;
    let unmounted = false;
    const timer = setTimeout(async () => {
      const lazy = await import("./highlight").catch(() => undefined); // if it cannot be loaded, the code stays plain
      if (lazy && !unmounted) setColoured({ code, shown: lazy.highlighted(code, language) });
    }, QUIET_MS);
    return () => {
      unmounted = true;
      clearTimeout(timer);
    };
  }, [code, language]);
  return coloured?.code === code ? coloured.shown : code;
}
