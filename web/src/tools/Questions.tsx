import { useId, useState } from "react";
import type { ToolPart } from "../parts";
import type { Output } from "./output";
import { repeatRequest } from "./requests";
import { useSendOnce } from "./toolActions";

interface Question {
  question: string;
  keyword: string;
  example?: string;
}

const answerLine = ({ question }: Question, answer: string) => `- ${question} ${answer}`;

// Reads the answers from a message that the form sent. Each answer stands between its question and the next one.
function answersIn(message: string, questions: Question[]): string[] {
  let rest = message;
  return questions.map((question, place) => {
    const begins = answerLine(question, "");
    rest = rest.slice(rest.indexOf(begins) + begins.length);
    const next = questions[place + 1];
    const end = next ? rest.indexOf(`\n${answerLine(next, "")}`) : -1;
    return end < 0 ? rest : rest.slice(0, end);
  });
}

export function Questions({ output, part }: { output: Output; part: ToolPart }) {
  const questions = (Array.isArray(output.questions) ? output.questions : []) as unknown as Question[];
  const [answers, setAnswers] = useState<Record<number, string>>({});
  const request = repeatRequest(part, "", "\n\n");
  const { sent, send } = useSendOnce((text) => text.startsWith(request + (questions[0] ? answerLine(questions[0], "") : "")));
  const form = useId();
  const answered = sent !== undefined;
  const given = answered ? answersIn(sent.slice(request.length), questions) : [];
  const answerTo = (place: number) => (answered ? given[place]! : (answers[place] ?? ""));
  const complete = questions.every((_, place) => answerTo(place).trim());
  return (
    <form className="questions" onSubmit={(event) => {
      event.preventDefault();
      if (!complete || answered) return;
      send(request + questions.map((one, place) => answerLine(one, answerTo(place).trim())).join("\n"));
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
