import { useState } from "react";
import { Icon } from "./Icon";

export function CopyButton({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    const copying = navigator.clipboard?.writeText(text) ?? Promise.reject();
    await copying.catch(() => copyPlainly(text));
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" className="quiet" onClick={() => void copy()} aria-label={copied ? "Copied" : `Copy ${what}`}
      title={`Copy ${what}`}>
      <Icon name={copied ? "check" : "copy"} />
    </button>
  );
}

// Copies without the Clipboard API, which plain HTTP pages lack and permissions may deny.
function copyPlainly(text: string) {
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
