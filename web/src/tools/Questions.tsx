import { useContext, useId, useState } from "react";
import type { ToolPart } from "../shown";
import { Acting } from "./acting";
import type { Output } from "./ToolCard";
import { wishAgain } from "./wishes";

interface Question {
  question: string;
  keyword: string;
  example?: string;
}

export function Questions({ output, part }: { output: Output; part: ToolPart }) {
  const questions = (Array.isArray(output.questions) ? output.questions : []) as unknown as Question[];
  const [answers, setAnswers] = useState<Record<number, string>>({});
  const [sent, setSent] = useState(false);
  const { say } = useContext(Acting);
  const form = useId();
  const complete = questions.every((_, place) => answers[place]?.trim());
  return (
    <form className="questions" onSubmit={(event) => {
      event.preventDefault();
      if (!complete) return;
      setSent(true);
      const told = questions.map((one, place) => `- ${one.question} ${answers[place]?.trim()}`).join("\n");
      say(wishAgain(part, "", `\n\n${told}`));
    }}>
      {output.message && <p>{output.message}</p>}
      {questions.map((one, place) => (
        <p key={place}>
          <label htmlFor={`${form}-${place}`}>{one.question}</label>
          <input id={`${form}-${place}`} value={answers[place] ?? ""} disabled={sent}
            placeholder={one.example ? `For example: ${one.example}` : undefined}
            onChange={(event) => setAnswers((old) => ({ ...old, [place]: event.target.value }))} />
        </p>
      ))}
      <p><button type="submit" className="primary" disabled={!complete || sent}>{sent ? "Answered" : "Answer"}</button></p>
    </form>
  );
}
