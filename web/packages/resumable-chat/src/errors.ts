/** The server can no longer serve the stream (410). The conversation contains its text. */
export class Expired extends Error {
  override name = "Expired";

  constructor(readonly taskId: string | undefined) {
    super("The stream has expired. Fetch the conversation again.");
  }
}

/** The server refused the request, and a retry would not help. `code` is the server's error code, if it sent one. */
export class Refused extends Error {
  override name = "Refused";

  constructor(
    readonly status: number,
    readonly code: string | undefined,
    detail: string | undefined,
  ) {
    super(detail ?? `The server answered ${status}.`);
  }

  static async of(response: Response): Promise<Refused> {
    const text = await response.text().catch(() => "");
    try {
      const { code, detail } = JSON.parse(text) as { code?: string; detail?: string };
      return new Refused(response.status, code, detail);
    } catch {
      return new Refused(response.status, undefined, undefined);
    }
  }
}

/** All attempts to connect have failed. The AI SDK recognizes a lost connection by this message. */
export class ConnectionLost extends TypeError {
  override name = "ConnectionLost";

  constructor(attempts: number, cause: unknown) {
    super(`network error: no connection after ${attempts} attempts`, { cause });
  }
}
