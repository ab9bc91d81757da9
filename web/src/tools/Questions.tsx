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

// What was said of a question by the form's message.
const answerIn = (message: string, question: Question) =>
  message.split("\n").find((line) => line.startsWith(told(question, "")))?.slice(told(question, "").length) ?? "";

export function Questions({ output, part }: { output: Output; part: ToolPart }) {
  const questions = (Array.isArray(output.questions) ? output.questions : []) as unknown as Question[];
  const [answers, setAnswers] = useState<Record<number, string>>({});
  const begins = questions[0] ? told(questions[0], "") : "";
  const { said, say } = useSaying(wishAgain(part, "", `\n\n${begins}`));
  const form = useId();
  const answered = said !== undefined;
  const answerTo = (place: number) => (answered ? answerIn(said, questions[place]!) : (answers[place] ?? ""));
  const complete = questions.every((_, place) => answerTo(place).trim());
  return (
    <form className="questions" onSubmit={(event) => {
      event.preventDefault();
      if (!complete || answered) return;
      say(wishAgain(part, "", `\n\n${questions.map((one, place) => told(one, answerTo(place).trim())).join("\n")}`));
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
