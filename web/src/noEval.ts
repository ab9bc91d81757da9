// The page's policy allows no eval. Zod, by which the AI SDK checks what comes, tries one to find that out, and the
// browser reports it each time the page is opened; unless zod is told before anything uses it.
import { config } from "zod/v4/core";

config({ jitless: true });
