// Renders Markdown while it is streamed. The text is cut into blocks, so only the last block of a long answer is
// rendered again. HTML in the text is shown as text, and images become links.
import { isValidElement, memo, useId, useMemo, useState, type ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import { blocksOf } from "./blocks";
import { CodeBlock } from "./CodeBlock";
import { Formula } from "./Formula";
import { formulas, hideFormulas, revealFormulas } from "./formulas";
import { gfm } from "./gfm";
import { isParsable } from "./parsable";
import { usePaced } from "./usePaced";

const FENCED = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n]*\n([^]*?)(?:\n {0,3}\1[`~]*\s*)?$/;
const plugins = [gfm];
const rehypePlugins = [formulas];

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
  if (!isParsable(text)) return <Unparsed text={revealFormulas(text)} />;
  return (
    <ReactMarkdown remarkPlugins={plugins} rehypePlugins={rehypePlugins} components={components}
      remarkRehypeOptions={{ clobberPrefix: id, footnoteLabelProperties: { className: ["unseen"] } }}>
      {text}
    </ReactMarkdown>
  );
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

function textOf(node: ReactNode): string {
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return node.map(textOf).join("");
  return isValidElement<{ children?: ReactNode }>(node) ? textOf(node.props.children) : "";
}

function Code({ children }: { children?: ReactNode }) {
  const named = isValidElement<{ className?: string }>(children) ? children.props.className : undefined;
  return <CodeBlock code={textOf(children).replace(/\n$/, "")} language={named?.replace("language-", "")} />;
}

function Picture({ src, alt }: { src?: string | Blob; alt?: string }) {
  const [host] = useState(() => {
    try {
      return new URL(String(src)).host;
    } catch {
      return "";
    }
  });
  if (typeof src !== "string" || !host) return <span>{alt}</span>;
  return <a className="picture" href={src} target="_blank" rel="noopener noreferrer">{alt || "Picture"} ({host})</a>;
}

const components: Components & { math: typeof Formula } = {
  a: ({ href, id, "aria-label": label, children }) => {
    const footnote = href?.startsWith("#");
    const opens = footnote ? { id, "aria-label": label } : { target: "_blank", rel: "noopener noreferrer" };
    return <a href={href} {...opens}>{children}</a>;
  },
  img: ({ src, alt }) => <Picture src={src} alt={alt} />,
  math: Formula,
  pre: ({ children }) => <Code>{children}</Code>,
  table: ({ children }) => <div className="table" tabIndex={0}><table>{children}</table></div>,
};
