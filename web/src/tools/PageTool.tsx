// A call of a tool that another page carries out. This page has no such tools: it shows the call, and the user may give
// its result, or say that there is none.
import { useState } from "react";
import type { Answer, Json } from "../net/api";

const NO_RESULT = "The user says that it cannot be done.";

interface Props {
  name: string;
  input: unknown;
  sent: boolean;
  give: (given: Answer) => void;
}

export default function PageTool({ name, input, sent, give }: Props) {
  const [text, setText] = useState("");
  return (
    <form className="ask" onSubmit={(event) => {
      event.preventDefault();
      if (text.trim()) give({ output: valueOf(text.trim()) });
    }}>
      <p>The page that began this conversation carries out <strong>{name}</strong>. Open it there, or give the result here.</p>
      <pre tabIndex={0} aria-label="Input">{JSON.stringify(input, null, 2)}</pre>
      <input aria-label="The result" placeholder="The result, as text or JSON" value={text} disabled={sent}
        onChange={(event) => setText(event.target.value)} />
      <p className="row">
        <button type="submit" className="primary" disabled={sent || !text.trim()}>Give the result</button>
        <button type="button" disabled={sent} onClick={() => give({ error: NO_RESULT })}>It cannot be done</button>
      </p>
    </form>
  );
}

function valueOf(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}
