// Markdown as it streams: cut into blocks, so that a long answer costs what its last block costs. No HTML of the text
// becomes HTML of the page, and no picture loads by itself.
import { isValidElement, memo, useMemo, useState, type ReactNode } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import { CopyButton } from "./CopyButton";

const LONGEST_PARSED = 20_000; // a longer block is shown as it is
const plugins = [remarkGfm];

export function Markdown({ text }: { text: string }) {
  const blocks = useMemo(() => blocksOf(text), [text]);
  return (
    <div className="prose">
      {blocks.map((block, place) => <Block key={place} text={block} />)}
    </div>
  );
}

const Block = memo(function Block({ text }: { text: string }) {
  if (text.length > LONGEST_PARSED) return <p className="plain">{text}</p>;
  return <ReactMarkdown remarkPlugins={plugins} components={components}>{text}</ReactMarkdown>;
});

// Cuts at blank lines, where what follows stands at the margin and is nobody's continuation.
export function blocksOf(text: string): string[] {
  const blocks: string[] = [];
  let block: string[] = [];
  let fence: string | null = null;
  let blank = false;
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    const continues = /^(\s|[-*+] |\d+[.)] |>|\|)/.test(line);
    if (fence === null && blank && line.trim() && !continues && block.length > 0) {
      blocks.push(block.join("\n"));
      block = [];
    }
    if (mark && fence === null) fence = mark;
    else if (mark && fence !== null && mark[0] === fence[0] && mark.length >= fence.length) fence = null;
    blank = fence === null && line.trim() === "";
    block.push(line);
  }
  if (block.some((line) => line.trim())) blocks.push(block.join("\n"));
  return blocks;
}

function textOf(node: ReactNode): string {
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return node.map(textOf).join("");
  return isValidElement<{ children?: ReactNode }>(node) ? textOf(node.props.children) : "";
}

function CodeBlock({ children }: { children?: ReactNode }) {
  const code = textOf(children).replace(/\n$/, "");
  const named = isValidElement<{ className?: string }>(children) ? children.props.className : undefined;
  return (
    <figure className="code">
      <figcaption><span>{named?.replace("language-", "") ?? "text"}</span><CopyButton text={code} what="code" /></figcaption>
      <pre tabIndex={0}><code>{code}</code></pre>
    </figure>
  );
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

const components: Components = {
  a: ({ href, children }) => <a href={href} target="_blank" rel="noopener noreferrer">{children}</a>,
  img: ({ src, alt }) => <Picture src={src} alt={alt} />,
  pre: ({ children }) => <CodeBlock>{children}</CodeBlock>,
  table: ({ children }) => <div className="table" tabIndex={0}><table>{children}</table></div>,
};
