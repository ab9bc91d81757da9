import { useState } from "react";
import { Icon } from "./Icon";

export function CopyButton({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await (navigator.clipboard ? navigator.clipboard.writeText(text) : copyPlainly(text));
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

// Pages that come over plain HTTP have no clipboard of their own.
function copyPlainly(text: string) {
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
