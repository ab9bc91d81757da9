// Shows one block of Markdown. This module has the parser, and is loaded by parser.ts.
import { isValidElement, lazy, Suspense, useState, type ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import { CodeBlock } from "./CodeBlock";
import { Formula } from "./Formula";
import { formulas } from "./formulas";
import { gfm } from "./gfm";

const Diagram = lazy(() => import("../diagrams/Diagram").then((file) => ({ default: file.Diagram }), () => ({ default: Undrawn })));
const Undrawn = ({ source }: { source: ReactNode }) => source; // if the module cannot be loaded
const plugins = [gfm];
const rehypePlugins = [formulas];

// `id` keeps the ids of footnotes unique on the page.
export function Parsed({ text, id }: { text: string; id: string }) {
  return (
    <ReactMarkdown remarkPlugins={plugins} rehypePlugins={rehypePlugins} components={components}
      remarkRehypeOptions={{ clobberPrefix: id, footnoteLabelProperties: { className: ["unseen"] } }}>
      {text}
    </ReactMarkdown>
  );
}

function textOf(node: ReactNode): string {
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return node.map(textOf).join("");
  return isValidElement<{ children?: ReactNode }>(node) ? textOf(node.props.children) : "";
}

function Code({ children }: { children?: ReactNode }) {
  const named = isValidElement<{ className?: string }>(children) ? children.props.className : undefined;
  const code = textOf(children).replace(/\n$/, "");
  const block = <CodeBlock code={code} language={named?.replace("language-", "")} />;
  if (named !== "language-mermaid") return block;
  return <Suspense fallback={block}><Diagram code={code} source={block} /></Suspense>;
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
