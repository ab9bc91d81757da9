import { Refused } from "@copilot-chat/resumable";
import { useRef, useState } from "react";
import { newId } from "../ids";
import type { Answer } from "../net/api";
import { Form } from "../tools/Ask";
import { formOf, inputsOf } from "../tools/inputs";
import type { Row } from "../tools/output";
import type { Inputs } from "./agentApi";
import { Problem } from "./Problem";

interface InputsFormProps {
  inputs: Inputs;
  act: string;
  about?: string; // the rest of the request; if it changes, the same inputs are a new request
  send: (given: Row, key: string) => Promise<void>;
}

const PATH = "body.inputs.";

// Asks for the inputs of an agent. What the server finds wrong is shown at its field.
export function InputsForm({ inputs, act, about = "", send }: InputsFormProps) {
  const [sent, setSent] = useState(false);
  const [failure, setFailure] = useState<Error | null>(null);
  const last = useRef({ given: "", key: "" }); // the same request again has the same key, so it runs once
  const fields = failure instanceof Refused ? failure.fields.filter(({ path }) => path.startsWith(PATH)) : [];
  const elsewhere = fields.filter(({ path }) => !inputs.property_order.includes(path.slice(PATH.length)));
  const problem = fields.length === 0 ? failure?.message
    : elsewhere.map(({ path, message }) => `${path.slice(PATH.length)}: ${message}`).join(", ");
  const give = (answer: Answer) => {
    const given = inputsOf(answer, inputs.input_schema);
    const text = JSON.stringify([given, about]);
    if (last.current.given !== text) last.current = { given: text, key: newId() };
    setSent(true);
    setFailure(null);
    send(given, last.current.key)
      .then(() => void (last.current.given = ""), (problem: Error) => {
        if (problem instanceof Refused && problem.status < 500) last.current.given = "";
        setFailure(problem);
      })
      .finally(() => setSent(false));
  };
  return (
    <div className="ask">
      {problem && <Problem text={problem} />}
      <Form form={formOf(inputs.input_schema)} order={inputs.property_order} act={act} sent={sent} give={give}
        errors={Object.fromEntries(fields.map(({ path, message }) => [path.slice(PATH.length), message]))} />
    </div>
  );
}
