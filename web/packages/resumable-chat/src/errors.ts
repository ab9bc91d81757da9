/** The server can no longer serve the stream (410). The conversation contains its text. */
export class Expired extends Error {
  override name = "Expired";

  constructor(readonly taskId: string | undefined) {
    super("The stream has expired. Fetch the conversation again.");
  }
}

/** A field of the request that is invalid, such as `body.inputs.a`. */
export interface InvalidField {
  path: string;
  message: string;
}

/**
 * The server refused the request, and a retry would not help. `code` is the server's error code, if it sent one.
 * `fields` are the fields of the request that it named.
 */
export class Refused extends Error {
  override name = "Refused";

  constructor(
    readonly status: number,
    readonly code: string | undefined,
    detail: string | undefined,
    readonly fields: InvalidField[] = [],
  ) {
    super(detail ?? `The server answered ${status}.`);
  }

  static async of(response: Response): Promise<Refused> {
    const text = await response.text().catch(() => "");
    try {
      const { code, detail, fields } = JSON.parse(text) as { code?: string; detail?: string; fields?: InvalidField[] };
      return new Refused(response.status, code, detail, fields);
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
