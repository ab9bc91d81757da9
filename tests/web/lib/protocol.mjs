// The chunks that every client from ai 5.0.200 on accepts, as a table and a grammar that are independent of the SDK's
// code. Old clients refuse keys that their schema lacks, so a key outside the table is a fault, even if new clients
// accept it.

const CALL = ['providerExecuted', 'dynamic'];
const shape = (required, optional = []) => ({ required, optional });

export const SHAPES = {
  start: shape(['messageId'], ['messageMetadata']),
  'start-step': shape([]),
  'finish-step': shape([]),
  'text-start': shape(['id']),
  'text-delta': shape(['id', 'delta']),
  'text-end': shape(['id']),
  'reasoning-start': shape(['id'], ['providerMetadata']),
  'reasoning-delta': shape(['id', 'delta'], ['providerMetadata']),
  'reasoning-end': shape(['id'], ['providerMetadata']),
  'tool-input-start': shape(['toolCallId', 'toolName'], CALL),
  'tool-input-delta': shape(['toolCallId', 'inputTextDelta']),
  'tool-input-available': shape(['toolCallId', 'toolName', 'input'], CALL),
  'tool-input-error': shape(['toolCallId', 'toolName', 'input', 'errorText'], CALL),
  'tool-output-available': shape(['toolCallId', 'output'], [...CALL, 'preliminary']),
  'tool-output-error': shape(['toolCallId', 'errorText'], CALL),
  'source-url': shape(['sourceId', 'url'], ['title']),
  'source-document': shape(['sourceId', 'mediaType', 'title'], ['filename']),
  file: shape(['url', 'mediaType']),
  'message-metadata': shape(['messageMetadata']),
  error: shape(['errorText']),
  abort: shape([]),
  finish: shape(['finishReason', 'messageMetadata']),
};
const DATA_SHAPE = shape(['data'], ['id', 'transient']);
const FINISH_REASONS = ['stop', 'length', 'content-filter', 'tool-calls', 'error', 'other'];
const NULLABLE = ['input', 'output', 'data'];

/** Returns the faults in the keys of one chunk. `accept` lists further chunk types that the client accepts. */
export function shapeFaults(chunk, accept = []) {
  if (accept.includes(chunk.type) && ['reset-step', 'tool-approval-request', 'steering-message'].includes(chunk.type)) return [];
  if (accept.includes('tool-approval-request') && chunk.type === 'tool-output-denied') return [];
  const known = chunk.type?.startsWith('data-') ? DATA_SHAPE : SHAPES[chunk.type];
  if (known === undefined) return [`unknown chunk type ${chunk.type}`];
  const { type: _, ...fields } = chunk;
  const faults = [];
  for (const key of known.required) if (!(key in fields)) faults.push(`${chunk.type} lacks ${key}`);
  for (const [key, value] of Object.entries(fields)) {
    if (!known.required.includes(key) && !known.optional.includes(key)) faults.push(`${chunk.type} has the unknown key ${key}`);
    if (value === null && !NULLABLE.includes(key)) faults.push(`${chunk.type}.${key} is null`);
  }
  if (chunk.type === 'finish' && !FINISH_REASONS.includes(chunk.finishReason)) faults.push(`finishReason ${chunk.finishReason}`);
  return faults;
}

/** Reads the chunks of one message in order, and collects faults in the order. */
export class Grammar {
  faults = [];
  #index = -1;
  #started = false;
  #inStep = false;
  #finished = false;
  #failed = false;
  #parts = new Map(); // text and reasoning of this step: kind and id -> open | ended
  #calls = new Map(); // tool calls: id -> {state, flags, step}
  #step = 0;

  /**
   * `continues`: the message may continue one in which calls were made that got their output later. `pageTools`: calls
   * that are not `providerExecuted` are the page's, and stay open.
   */
  constructor({ continues = false, pageTools = false } = {}) {
    this.continues = continues;
    this.pageTools = pageTools;
  }

  read(chunk) {
    this.#index++;
    const { type } = chunk;
    if (this.#finished) this.#fault(`${type} after finish`);
    if (!this.#started && type !== 'start') this.#fault(`${type} before start`);
    if (this.#failed && !['finish-step', 'abort', 'finish'].includes(type)) this.#fault(`${type} after error`);
    if (type === 'start') this.#start();
    else if (type === 'start-step') this.#startStep();
    else if (type === 'finish-step') this.#finishStep();
    else if (type === 'reset-step') this.#resetStep();
    else if (type.startsWith('text-') || type.startsWith('reasoning-')) this.#readPart(chunk);
    else if (type.startsWith('tool-')) this.#readCall(chunk);
    else if (type === 'error') this.#failed = true;
    else if (type === 'finish') this.#finish();
  }

  /** Must be called when the whole message should have come. */
  end() {
    if (!this.#finished) this.#fault('the stream ended without finish');
  }

  #fault(text) {
    this.faults.push(`chunk ${this.#index}: ${text}`);
  }

  #start() {
    if (this.#started) this.#fault('a second start');
    this.#started = true;
  }

  #startStep() {
    if (this.#inStep) this.#fault('start-step inside a step');
    this.#inStep = true;
    this.#step++;
    this.#parts.clear();
  }

  #finishStep() {
    if (!this.#inStep) this.#fault('finish-step outside a step');
    this.#inStep = false;
    for (const [id, state] of this.#parts) if (state === 'open') this.#fault(`finish-step with ${id} open`);
    for (const [id, call] of this.#calls) if (call.state !== 'ended' && !call.ofPage) this.#fault(`finish-step with tool call ${id} ${call.state}`);
  }

  #resetStep() {
    if (!this.#inStep) this.#fault('reset-step outside a step');
    this.#parts.clear();
    for (const [id, call] of this.#calls) if (call.step === this.#step) this.#calls.delete(id);
  }

  #finish() {
    if (this.#inStep) this.#fault('finish inside a step');
    this.#finished = true;
  }

  #readPart({ type, id }) {
    const [kind, verb] = type.split('-');
    const key = `${kind} ${id}`;
    const state = this.#parts.get(key);
    if (!this.#inStep) this.#fault(`${type} outside a step`);
    if (verb === 'start') {
      if (state !== undefined) this.#fault(`${type} of ${id}, which was there already`);
      this.#parts.set(key, 'open');
    } else if (state !== 'open') this.#fault(`${type} of ${id}, which is ${state ?? 'not started'}`);
    if (verb === 'end') this.#parts.set(key, 'ended');
  }

  #readCall(chunk) {
    const { type, toolCallId: id } = chunk;
    const flags = `${chunk.providerExecuted} ${chunk.dynamic}`;
    const ofPage = this.pageTools && chunk.providerExecuted === undefined && type.startsWith('tool-input-');
    const call = this.#calls.get(id) ?? { state: 'not there', step: this.#step, ofPage };
    const given = this.continues && ['tool-output-available', 'tool-output-denied'].includes(type) && call.state === 'not there';
    const next = given ? 'ended' : NEXT_OF_CALL[type]?.[call.state];
    if (!this.#inStep) this.#fault(`${type} outside a step`);
    if (next === undefined) this.#fault(`${type} of ${id}, which is ${call.state}`);
    if (!['tool-input-delta', 'tool-approval-request', 'tool-output-denied'].includes(type)) {
      if (flags !== (call.ofPage ? 'undefined true' : 'true true')) this.#fault(`${type} without providerExecuted and dynamic`);
    }
    this.#calls.set(id, { ...call, state: next ?? call.state });
  }
}

const NEXT_OF_CALL = {
  'tool-input-start': { 'not there': 'streaming' },
  'tool-input-delta': { streaming: 'streaming' },
  'tool-input-available': { 'not there': 'called', streaming: 'called' },
  'tool-input-error': { 'not there': 'ended', streaming: 'ended' },
  'tool-approval-request': { called: 'ended' }, // of this message; the output comes in the next one
  'tool-output-available': { called: 'ended', ended: 'ended' }, // the same output again is a replacement, and allowed
  'tool-output-error': { called: 'ended', ended: 'ended' },
};
