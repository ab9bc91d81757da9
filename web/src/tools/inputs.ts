// Forms for the inputs of agents and blocks, from their JSON Schema.
import type { Answer, Json } from "../net/api";
import type { Field } from "./Ask";
import { asRow, type Row } from "./output";

const KINDS = new Set(["string", "boolean", "integer", "number"]);

export function formOf(schema: Row, given: Row = {}): { properties: Record<string, Field>; required: string[] } {
  const fields = Object.entries(asRow(schema.properties));
  return {
    properties: Object.fromEntries(fields.map(([name, field]) => [name, fieldOf(field, given[name])])),
    required: Array.isArray(schema.required) ? schema.required.map(String) : [],
  };
}

// Returns the inputs that were given in a form for this schema.
export function inputsOf(given: Answer, schema: Row): Row {
  const fields = asRow(schema.properties);
  const inputs = Object.entries(asRow("answer" in given ? given.answer : {}));
  return Object.fromEntries(inputs.map(([name, value]) => [name, parsed(value, fields[name])])) as Row;
}

// Returns the field as a form shows it. What forms do not know is written as JSON.
function fieldOf(schema: Json | undefined, given: Json | undefined): Field {
  const field = asRow(schema);
  const known = KINDS.has(String(field.type));
  const shown = { ...field, type: known ? field.type : "string", default: given ?? field.default } as unknown as Field;
  if (typeof shown.default === "object" && shown.default !== null) shown.default = JSON.stringify(shown.default);
  return known || field.type === undefined ? shown : { ...shown, description: `${String(field.description ?? "")} (JSON)` };
}

function parsed(value: Json | undefined, schema: Json | undefined): Json | undefined {
  const kind = asRow(schema).type;
  if (typeof value !== "string" || kind === "string") return value;
  try {
    return JSON.parse(value) as Json;
  } catch {
    return value;
  }
}
