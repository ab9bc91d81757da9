/** The stream cannot be served any more (410): what it said stands in the conversation. */
export class Expired extends Error {
  override name = "Expired";

  constructor(readonly taskId: string | undefined) {
    super("The stream has expired; fetch the conversation anew.");
  }
}

/** The server answered, and it will not be another answer next time. `code` is the server's, where it gave one. */
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

/** What `fetch` throws, in words that the AI SDK takes for a lost connection. */
export class ConnectionLost extends TypeError {
  override name = "ConnectionLost";

  constructor(attempts: number, cause: unknown) {
    super(`network error: no connection after ${attempts} attempts`, { cause });
  }
}
