// Loads a file of src/ that imports packages only as a module.
import { readFileSync } from "node:fs";
import ts from "typescript";

export async function source(name) {
  const code = readFileSync(new URL(`../src/${name}`, import.meta.url), "utf8");
  const { outputText } = ts.transpileModule(code, { compilerOptions: { module: "esnext", target: "es2022" } });
  const resolved = outputText.replace(/ from "([^"]+)"/g, (_, name) => ` from "${import.meta.resolve(name)}"`);
  return import(`data:text/javascript,${encodeURIComponent(resolved)}`);
}
