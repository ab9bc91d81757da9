import { Suspense, useState } from "react";
import { Icon } from "../Icon";
import { useAccess } from "../net/token";
import { optional } from "../loading";

const Instructions = optional(() => import("./Instructions").then((file) => ({ default: file.Instructions })));

// Shown to users whom the server knows: instructions belong to a user.
export function InstructionsButton() {
  const access = useAccess();
  const [open, setOpen] = useState(false);
  if (access !== "open" && access !== "signed-in") return null;
  return (
    <>
      <button type="button" className="quiet" aria-label="Instructions" title="What every answer should know, and your accounts at tool servers" onClick={() => setOpen(true)}>
        <Icon name="gear" />Instructions
      </button>
      {open && <Suspense><Instructions onClose={() => setOpen(false)} /></Suspense>}
    </>
  );
}
