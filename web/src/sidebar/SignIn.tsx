import { useEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";
import { signIn, signOut, useAccess } from "../net/token";

// Signs in and out if the server needs tokens. Opens a dialog when the server rejects the token.
export function SignIn() {
  const access = useAccess();
  const dialog = useRef<HTMLDialogElement>(null);
  const [value, setValue] = useState("");
  const refused = access === "refused";
  useEffect(() => {
    if (refused) dialog.current?.showModal();
  }, [refused]);
  if (access === "unknown" || access === "open") return null;
  if (access === "signed-in") return <button type="button" onClick={signOut}>Sign out</button>;
  return (
    <>
      <button type="button" onClick={() => dialog.current?.showModal()}>Sign in</button>
      {createPortal(
        <dialog ref={dialog} aria-labelledby="sign-in">
          <form onSubmit={(event) => {
            event.preventDefault();
            const token = value.trim().replace(/^Bearer\s+/i, "");
            if (token) signIn(token);
          }}>
            <h2 id="sign-in">{refused ? "The server rejected this token" : "Sign in"}</h2>
            <label>
              Token
              <input type="password" autoComplete="off" required value={value} onChange={(event) => setValue(event.target.value)} />
            </label>
            <p className="note">Your service provides this token. It stays in this browser.</p>
            <p className="row">
              <button type="submit" className="primary">Sign in</button>
              {refused ? <button type="button" onClick={signOut}>Continue without signing in</button>
                : <button type="button" onClick={() => dialog.current?.close()}>Not now</button>}
            </p>
          </form>
        </dialog>,
        document.body, // the sidebar may be hidden
      )}
    </>
  );
}
