import { useEffect, useRef, useState } from "react";
import { formulaOf } from "./formulas";

// Shows a formula as MathML. Shows its source while KaTeX loads, if that fails, and if KaTeX cannot read the formula.
export function Formula({ source }: { source: string }) {
  const place = useRef<HTMLSpanElement>(null);
  const [drawn, setDrawn] = useState("");
  useEffect(() => {
    let unmounted = false;
    void import("./tex").then(({ draw }) => {
      if (!unmounted && place.current) setDrawn(draw(formulaOf(source), place.current) ? source : "");
    }, () => undefined);
    return () => {
      unmounted = true;
    };
  }, [source]);
  return <>{drawn !== source && source}<span ref={place} className="formula" hidden={drawn !== source} /></>;
}
