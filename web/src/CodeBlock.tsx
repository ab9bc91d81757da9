import { useEffect, useState, type ReactNode } from "react";
import { CopyButton } from "./CopyButton";

const LONGEST_COLOURED = 20_000;
const QUIET = 150; // milliseconds: code that still grows is plain

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
    if (!language || code.length > LONGEST_COLOURED) return;
    let gone = false;
    const timer = setTimeout(async () => {
      const lazy = await import("./highlight").catch(() => undefined); // without it the code is plain
      if (lazy && !gone) setColoured({ code, shown: lazy.highlighted(code, language) });
    }, QUIET);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [code, language]);
  return coloured?.code === code ? coloured.shown : code;
}
