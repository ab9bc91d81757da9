import { useId, useState } from "react";
import type { ToolPart } from "../shown";
import { useSaying } from "./acting";
import type { Output } from "./ToolCard";
import { wishAgain } from "./wishes";

interface Question {
  question: string;
  keyword: string;
  example?: string;
}

const told = ({ question }: Question, answer: string) => `- ${question} ${answer}`;

// The answers that a message of the form gives: each stands between its question and the next one.
function answersIn(message: string, questions: Question[]): string[] {
  let rest = message;
  return questions.map((question, place) => {
    const begins = told(question, "");
    rest = rest.slice(rest.indexOf(begins) + begins.length);
    const next = questions[place + 1];
    const end = next ? rest.indexOf(`\n${told(next, "")}`) : -1;
    return end < 0 ? rest : rest.slice(0, end);
  });
}

export function Questions({ output, part }: { output: Output; part: ToolPart }) {
  const questions = (Array.isArray(output.questions) ? output.questions : []) as unknown as Question[];
  const [answers, setAnswers] = useState<Record<number, string>>({});
  const wish = wishAgain(part, "", "\n\n");
  const { said, say } = useSaying((text) => text.startsWith(wish + (questions[0] ? told(questions[0], "") : "")));
  const form = useId();
  const answered = said !== undefined;
  const given = answered ? answersIn(said.slice(wish.length), questions) : [];
  const answerTo = (place: number) => (answered ? given[place]! : (answers[place] ?? ""));
  const complete = questions.every((_, place) => answerTo(place).trim());
  return (
    <form className="questions" onSubmit={(event) => {
      event.preventDefault();
      if (!complete || answered) return;
      say(wish + questions.map((one, place) => told(one, answerTo(place).trim())).join("\n"));
    }}>
      {output.message && <p>{output.message}</p>}
      {questions.map((one, place) => (
        <p key={place}>
          <label htmlFor={`${form}-${place}`}>{one.question}</label>
          <input id={`${form}-${place}`} value={answerTo(place)} disabled={answered}
            placeholder={one.example ? `For example: ${one.example}` : undefined}
            onChange={(event) => setAnswers((old) => ({ ...old, [place]: event.target.value }))} />
        </p>
      ))}
      <p><button type="submit" className="primary" disabled={!complete || answered}>{answered ? "Answered" : "Answer"}</button></p>
    </form>
  );
}
