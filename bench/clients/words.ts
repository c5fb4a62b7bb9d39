/** Questions with one right answer of four, and sentences to complete: tasks of lm-evaluation-harness, from no download. */

const opposites: readonly (readonly [string, string])[] = [
  ["hot", "cold"],
  ["big", "small"],
  ["up", "down"],
  ["day", "night"],
  ["open", "closed"],
  ["fast", "slow"],
  ["wet", "dry"],
  ["old", "young"],
  ["full", "empty"],
  ["left", "right"],
  ["light", "dark"],
  ["hard", "soft"],
  ["early", "late"],
  ["rich", "poor"],
  ["true", "false"],
  ["first", "last"],
];

const capitals: readonly (readonly [string, string])[] = [
  ["France", "Paris"],
  ["Italy", "Rome"],
  ["Spain", "Madrid"],
  ["Japan", "Tokyo"],
  ["Egypt", "Cairo"],
  ["Greece", "Athens"],
  ["Russia", "Moscow"],
  ["China", "Beijing"],
  ["Austria", "Vienna"],
  ["Cuba", "Havana"],
  ["Peru", "Lima"],
  ["Kenya", "Nairobi"],
  ["Norway", "Oslo"],
  ["Poland", "Warsaw"],
  ["Portugal", "Lisbon"],
  ["Iraq", "Baghdad"],
];

export interface Question {
  question: string;
  choices: string[];
  answer: number;
}

/** Four choices each, of which the others answer neighbouring questions. */
export function questions(): Question[] {
  const of = (pairs: readonly (readonly [string, string])[], word: (subject: string) => string) =>
    pairs.map(([subject, right], i): Question => {
      const answer = i % 4;
      const others = [1, 2, 3].map((step) => pairs[(i + 4 * step + 1) % pairs.length]?.[1] as string);
      return { question: word(subject), choices: others.toSpliced(answer, 0, right), answer };
    });
  return [
    ...of(opposites, (word) => `The opposite of "${word}" is`),
    ...of(capitals, (country) => `The capital of ${country} is`),
  ];
}

/** lm-evaluation-harness's description of the two tasks; the rows are the lines of `file`. */
export function taskFiles(file: string): Record<string, string> {
  const shared = `dataset_path: json
dataset_kwargs:
  data_files:
    test: ${JSON.stringify(file)}
test_split: test
num_fewshot: 0
metadata:
  version: 1
`;
  return {
    "tempora_choices.yaml": `task: tempora_choices
${shared}output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
`,
    "tempora_continue.yaml": `task: tempora_continue
${shared}output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: " {{choices[answer]}}"
generation_kwargs:
  until: ["\\n", "."]
  max_gen_toks: 12
  do_sample: false
  temperature: 0.0
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
`,
  };
}
