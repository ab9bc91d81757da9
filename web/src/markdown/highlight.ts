// Colours code with CSS classes on React elements, so no code becomes HTML. This module is loaded with the first code
// block.
import { common, createLowlight } from "lowlight";
import { createElement, type ReactNode } from "react";

type Node = ReturnType<typeof lowlight.highlight>["children"][number];
const lowlight = createLowlight(common);

export function highlighted(code: string, language: string): ReactNode {
  return lowlight.registered(language) ? lowlight.highlight(language, code).children.map(shown) : code;
}

function shown(node: Node, place: number): ReactNode {
  if (node.type === "text") return node.value;
  if (node.type !== "element") return null;
  const classes = node.properties.className;
  return createElement("span", { key: place, className: Array.isArray(classes) ? classes.join(" ") : undefined }, node.children.map(shown));
}
