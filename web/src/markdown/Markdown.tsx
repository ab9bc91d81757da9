// Renders Markdown while it is streamed. The text is cut into blocks, so only the last block of a long answer is
// rendered again. HTML in the text is shown as text, and images become links. The parser is a file of its own, which is
// requested when the page begins; until it is there, texts are shown as they are written.
import { memo, useId, useMemo, useSyncExternalStore } from "react";
import { blocksOf } from "./blocks";
import { CodeBlock } from "./CodeBlock";
import { hideFormulas, revealFormulas } from "./formulas";
import { isParsable } from "./parsable";
import { parser, onParser } from "./parser";
import { usePaced } from "./usePaced";

const FENCED = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n]*\n([^]*?)(?:\n {0,3}\1[`~]*\s*)?$/;

// `growing`: the text is still being streamed.
export function Markdown({ text, growing = false }: { text: string; growing?: boolean }) {
  const blocks = useMemo(() => blocksOf(hideFormulas(text)), [text]);
  const id = useId(); // keeps footnote ids unique on the page
  return (
    <div className="prose">
      {blocks.map((block, place) => <Block key={place} text={block} growing={growing && place === blocks.length - 1} id={id} />)}
    </div>
  );
}

const Block = memo(function Block({ text: newest, growing, id }: { text: string; growing: boolean; id: string }) {
  const text = usePaced(newest, growing);
  const Parsed = useSyncExternalStore(onParser, parser);
  if (Parsed === null || !isParsable(text)) return <Unparsed text={revealFormulas(text)} />;
  return <Parsed text={text} id={id} />;
});

function Unparsed({ text }: { text: string }) {
  const [, , language, code] = FENCED.exec(text) ?? [];
  return code === undefined ? <Plain text={text} /> : <CodeBlock code={code} language={language || undefined} />;
}

// Splits the text into pieces: when the last one grows, the browser does not lay out the others again.
function Plain({ text }: { text: string }) {
  const pieces = text.match(/[^]{1,4000}(?:\s|$)|[^]{1,4000}/g) ?? [];
  return <p className="plain">{pieces.map((piece, place) => <span key={place}>{piece}</span>)}</p>;
}
