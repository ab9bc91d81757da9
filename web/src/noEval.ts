// The page's content security policy forbids eval. The AI SDK validates incoming data with zod, and zod tries eval once
// to see if it is allowed. The browser reports that attempt each time the page opens, so zod is configured before its
// first use.
import { config } from "zod/v4/core";

config({ jitless: true });
