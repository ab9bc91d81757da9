// What a tool asks the user: a text, choices, a form, or whether a call may run. The answer goes to the operation.
import { getToolName } from "ai";
import { Suspense, useContext, useId, useState, type FormEvent } from "react";
import type { Answer, Json } from "../net/api";
import type { ToolPart } from "../parts";
import type { Output } from "./output";
import { displayName } from "./requests";
import { ToolActionsContext } from "./toolActions";
import { optional } from "../loading";

const PageTool = optional(() => import("./PageTool")); // few conversations have one

interface Titled {
  const: string;
  title?: string;
}
export interface Field {
  type: "string" | "boolean" | "integer" | "number" | "array";
  title?: string;
  description?: string;
  format?: string;
  enum?: string[];
  oneOf?: Titled[];
  items?: { enum?: string[]; anyOf?: Titled[] };
  default?: Json;
}
interface Asked {
  question?: string;
  choices?: string[];
  several?: boolean;
  other?: boolean;
  form?: { properties: Record<string, Field>; required?: string[]; propertyOrder?: string[] };
}
type Value = string | boolean | string[];
type Values = Record<string, Value>;

// What a tool server asks in the middle of a call.
export interface Elicited {
  server?: string;
  text?: string;
  url?: string;
  form?: NonNullable<Asked["form"]>;
}

export function Ask({ output, part }: { output: Output; part: ToolPart }) {
  const giving = useGiving(String(output.operation_id));
  const { sent, give } = giving;
  if (output.asks === "approval") return <Approval part={part} sent={sent} give={give} />;
  if (output.asks === "page_tool")
    return <Suspense><PageTool name={displayName(getToolName(part))} input={part.input} sent={sent} give={give} /></Suspense>;
  if (output.asks === "elicitation")
    return <Elicitation asked={(output.question ?? {}) as Elicited} operation={String(output.operation_id)} />;
  const asked = (part.input ?? {}) as Asked;
  return (
    <div className="ask">
      <p>{asked.question}</p>
      {asked.form ? <Form form={asked.form} order={orderIn(output)} sent={sent} give={give} />
        : asked.choices?.length ? <Choices asked={asked} sent={sent} give={give} /> : <Text sent={sent} give={give} />}
    </div>
  );
}

interface Giving {
  sent: boolean;
  give: (given: Answer) => void;
}

function useGiving(operation: string): Giving {
  const { answer } = useContext(ToolActionsContext);
  const [sent, setSent] = useState(false);
  const give = (given: Answer) => {
    setSent(true);
    void answer(operation, given).finally(() => setSent(false));
  };
  return { sent, give };
}

// A form, or a link that only the user opens. The names of the server and of the link's host are shown.
export function Elicitation({ asked, operation }: { asked: Elicited; operation: string }) {
  const { sent, give } = useGiving(operation);
  return (
    <div className="ask">
      <p className="note"><strong>{asked.server}</strong> asks:</p>
      <p>{asked.text}</p>
      {asked.url ? <OpenLink url={asked.url} sent={sent} give={give} />
        : <Form form={asked.form ?? { properties: {} }} sent={sent} give={give} byServer />}
    </div>
  );
}

function OpenLink({ url, sent, give }: Giving & { url: string }) {
  const [, before = "", host = "", after = ""] = /^([a-z]+:\/\/)([^/?#]*)(.*)$/i.exec(url) ?? []; // new URL may throw
  return (
    <form onSubmit={submitting(() => give({ approved: true }))}>
      <p className="url">{before}<strong>{host}</strong>{after}</p>
      {/(^|\.)xn--/i.test(host) && <p className="problem">The name of this site contains characters that can look like others.</p>}
      {before.toLowerCase() !== "https://" && <p className="note">This link leads to this machine.</p>}
      <p className="row">
        <a className="button primary" href={url} target="_blank" rel="noopener noreferrer">Open {host}</a>
        <button type="submit" disabled={sent}>Continue</button>
        <Refusals sent={sent} give={give} />
      </p>
    </form>
  );
}

function Refusals({ sent, give }: Giving) {
  return (
    <>
      <button type="button" disabled={sent} onClick={() => give({ declined: true })}>Decline</button>
      <button type="button" disabled={sent} onClick={() => give({ dismissed: true })}>Not now</button>
    </>
  );
}

function Buttons({ sent, give, complete, byServer, act }: Giving & { complete: boolean; byServer?: boolean; act?: string }) {
  return (
    <p className="row">
      <button type="submit" className="primary" disabled={!complete || sent}>{act ?? "Answer"}</button>
      {act ? null : byServer ? <Refusals sent={sent} give={give} />
        : <button type="button" disabled={sent} onClick={() => give({ declined: true })}>Skip</button>}
    </p>
  );
}

function Text({ sent, give }: Giving) {
  const [text, setText] = useState("");
  return (
    <form onSubmit={submitting(() => text.trim() && give({ answer: text.trim() }))}>
      <input aria-label="Your answer" value={text} disabled={sent} onChange={(event) => setText(event.target.value)} />
      <Buttons sent={sent} give={give} complete={text.trim() !== ""} />
    </form>
  );
}

function Choices({ asked, sent, give }: Giving & { asked: Asked }) {
  const { choices = [], several = false, other = true } = asked;
  const [picked, setPicked] = useState<string[]>([]);
  const [text, setText] = useState("");
  const name = useId();
  const pick = (choice: string, on: boolean) =>
    setPicked((old) => (several ? [...old.filter((one) => one !== choice), ...(on ? [choice] : [])] : [choice]));
  const own = text.trim();
  const answers = several ? [...choices.filter((one) => picked.includes(one)), ...(own ? [own] : [])] : own ? [own] : picked;
  return (
    <form onSubmit={submitting(() => answers.length > 0 && give({ answer: several ? answers : answers[0]! }))}>
      {choices.map((choice) => (
        <label className="choice" key={choice}>
          <input type={several ? "checkbox" : "radio"} name={name} disabled={sent} checked={picked.includes(choice)}
            onChange={(event) => pick(choice, event.target.checked)} />
          {choice}
        </label>
      ))}
      {other && (
        <input aria-label="Another answer" placeholder="Another answer" value={text} disabled={sent}
          onChange={(event) => setText(event.target.value)} />
      )}
      <Buttons sent={sent} give={give} complete={answers.length > 0} />
    </form>
  );
}

interface FormProps extends Giving {
  form: NonNullable<Asked["form"]>;
  order?: string[];
  byServer?: boolean;
  act?: string; // the word on the only button
  errors?: Record<string, string>; // by the name of the field
}

export function Form({ form, order = form.propertyOrder, sent, give, byServer, act, errors = {} }: FormProps) {
  const names = (order ?? Object.keys(form.properties)).filter((name) => Object.hasOwn(form.properties, name));
  const fields = names.map((name): [string, Field] => [name, form.properties[name]!]);
  const required = new Set(form.required);
  const [values, setValues] = useState<Values>(() => Object.fromEntries(fields.map(([name, field]) => [name, initial(field)])));
  const id = useId();
  const complete = fields.every(([name]) => !required.has(name) || !isEmpty(values[name]!));
  return (
    <form onSubmit={submitting(() => complete && give({ answer: answerOf(form.properties, values) }))}>
      {fields.map(([name, field]) => (
        <p key={name}>
          <label htmlFor={`${id}-${name}`}>{field.title ?? displayName(name)}{required.has(name) ? "" : " (optional)"}</label>
          <Input id={`${id}-${name}`} field={field} value={values[name]!} disabled={sent}
            onChange={(value) => setValues((old) => ({ ...old, [name]: value }))} />
          {field.description && <span className="note">{field.description}</span>}
          {errors[name] && <span className="problem" role="alert">{errors[name]}</span>}
        </p>
      ))}
      <Buttons sent={sent} give={give} complete={complete} byServer={byServer} act={act} />
    </form>
  );
}

interface InputProps {
  id: string;
  field: Field;
  value: Value;
  disabled: boolean;
  onChange: (value: Value) => void;
}

function Input({ id, field, value, disabled, onChange }: InputProps) {
  if (field.type === "boolean")
    return <input id={id} type="checkbox" checked={value === true} disabled={disabled} onChange={(event) => onChange(event.target.checked)} />;
  const options = optionsOf(field);
  if (Array.isArray(value))
    return (
      <span id={id} role="group" aria-label={field.title}>
        {options.map((one) => (
          <label className="choice" key={one.const}>
            <input type="checkbox" checked={value.includes(one.const)} disabled={disabled}
              onChange={(event) => onChange(toggled(options, value, one.const, event.target.checked))} />
            {one.title ?? one.const}
          </label>
        ))}
      </span>
    );
  if (options.length)
    return (
      <select id={id} value={String(value)} disabled={disabled} onChange={(event) => onChange(event.target.value)}>
        <option value="" />
        {options.map((one) => <option key={one.const} value={one.const}>{one.title ?? one.const}</option>)}
      </select>
    );
  return (
    <input id={id} type={inputType(field)} step={field.type === "integer" ? 1 : field.type === "number" ? "any" : undefined}
      value={String(value)} disabled={disabled} onChange={(event) => onChange(event.target.value)} />
  );
}

function Approval({ part, sent, give }: Giving & { part: ToolPart }) {
  const name = displayName(getToolName(part));
  return (
    <div className="ask">
      <p>May this run? <strong>{name}</strong></p>
      <pre tabIndex={0} aria-label="Input">{JSON.stringify(part.input, null, 2)}</pre>
      <p className="row">
        <button type="button" className="primary" disabled={sent} onClick={() => give({ approved: true })}>Allow</button>
        <button type="button" disabled={sent} onClick={() => give({ approved: true, always: true })}>
          Always in this conversation
        </button>
        <button type="button" disabled={sent} onClick={() => give({ approved: false })}>Do not allow</button>
      </p>
    </div>
  );
}

export function Answered({ output, part }: { output: Output; part: ToolPart }) {
  const { question } = (part.input ?? {}) as Asked;
  const { answer } = output;
  return (
    <div className="ask">
      <p>{question}</p>
      <p className="answer-given">{output.declined ? "Skipped" : words(answer, orderIn(output))}</p>
    </div>
  );
}

// The server does not keep the order of an object's members, so it lists them.
const orderIn = (output: Output) => output.property_order as string[] | undefined;

function words(answer: Json | undefined, order?: string[]): string {
  if (Array.isArray(answer)) return answer.join(", ");
  if (typeof answer === "object" && answer !== null)
    return (order ?? Object.keys(answer)).filter((name) => Object.hasOwn(answer, name))
      .map((name) => `${displayName(name)}: ${String(answer[name])}`).join("; ");
  return String(answer ?? "");
}

const submitting = (give: () => unknown) => (event: FormEvent) => {
  event.preventDefault();
  give();
};

const initial = (field: Field): Value =>
  field.type === "boolean" ? field.default === true
    : field.type === "array" ? (Array.isArray(field.default) ? field.default.map(String) : [])
    : String(field.default ?? "");

const isEmpty = (value: Value) => value === "" || (Array.isArray(value) && value.length === 0);

function optionsOf(field: Field): Titled[] {
  const { enum: values, oneOf, anyOf } = { ...field, ...field.items } as Field & { anyOf?: Titled[] };
  return oneOf ?? anyOf ?? (values ?? []).map((one) => ({ const: one }));
}

const toggled = (options: Titled[], picked: string[], one: string, on: boolean) =>
  options.map((option) => option.const).filter((option) => (option === one ? on : picked.includes(option)));

// A date with a time is typed as text: the browser's own input leaves the time zone out.
const inputType = ({ type, format }: Field) =>
  type !== "string" ? "number" : ({ email: "email", uri: "url", date: "date" }[format ?? ""] ?? "text");

function answerOf(fields: Record<string, Field>, values: Values): Json {
  const given = Object.entries(values).filter(([, value]) => !isEmpty(value));
  const typed = ([name, value]: [string, Value]): [string, Json] =>
    [name, typeof value === "string" && ["integer", "number"].includes(fields[name]!.type) ? Number(value) : value];
  return Object.fromEntries(given.map(typed));
}
