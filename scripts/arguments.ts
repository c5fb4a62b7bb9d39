/** Arguments of the long rounds, `fuzz` and `torture`: one that is wrong must not end in a round that does nothing and passes. */

/** The value of an option that counts. */
export function wholeNumber(option: string, text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1)
    throw new Error(`${option} is "${text}"; give a whole number from 1 on`);
  return number;
}

/** The names that an option picks, separated by commas; without it, all. */
export function namesOf(option: string, text: string | undefined, all: readonly string[]): readonly string[] {
  if (text === undefined) return all;
  const names = text.split(",");
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`${option} names "${unknown}"; there are ${all.join(", ")}`);
  return names;
}
