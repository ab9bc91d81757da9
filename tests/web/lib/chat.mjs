// Opens the SDK's own chat without React. useChat, too, runs AbstractChat over DefaultChatTransport.
export const VERSIONS = ['5.0.200', '5.0.277', '6.0.324', '7.0.173'];
const loaded = new Map();

export function loadSdk(version) {
  if (!VERSIONS.includes(version)) throw new Error(`ai ${version} is not one of ${VERSIONS.join(', ')}`);
  if (!loaded.has(version)) loaded.set(version, import(`ai-${version}`));
  return loaded.get(version);
}

class ChatState {
  #status = 'ready';
  error = undefined;

  constructor(messages, statuses) {
    this.messages = messages;
    this.statuses = statuses;
  }

  get status() {
    return this.#status;
  }

  set status(value) {
    if (value !== this.#status) this.statuses.push(value);
    this.#status = value;
  }

  pushMessage = (message) => {
    this.messages = [...this.messages, message];
  };

  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };

  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, structuredClone(message));
  };

  snapshot = (value) => structuredClone(value);
}

/**
 * Opens a chat. Returns it with its `statuses` in order and the `calls` of its callbacks. With a `task` it resumes at
 * that task's stream, which it can read even if the task ends between the history and the resume. Without one it
 * resumes at the SDK's default address. `task` may be a function that names the task of each resume.
 */
export function openChat(ai, { base, session, messages, wire, task }) {
  const statuses = [];
  const calls = [];
  const chat = new (class extends ai.AbstractChat {})({
    id: session,
    state: new ChatState(messages, statuses),
    transport: new ai.DefaultChatTransport({
      api: `${base}/api/chat`,
      fetch: wire.fetch,
      prepareReconnectToStreamRequest: task && (() => ({ api: `${base}/api/chat/tasks/${typeof task === 'function' ? task() : task}/stream` })),
    }),
    sendAutomaticallyWhen: (state) =>
      ai.lastAssistantMessageIsCompleteWithToolCalls(state) || (ai.lastAssistantMessageIsCompleteWithApprovalResponses?.(state) ?? false),
    onError: (error) => calls.push({ call: 'onError', error: error.message }),
    onData: (part) => calls.push({ call: 'onData', part }),
    onToolCall: ({ toolCall }) => void calls.push({ call: 'onToolCall', tool: toolCall.toolName }),
    onFinish: ({ isAbort, isDisconnect, isError, finishReason }) => calls.push({ call: 'onFinish', isAbort, isDisconnect, isError, finishReason }),
  });
  return { chat, statuses, calls };
}
