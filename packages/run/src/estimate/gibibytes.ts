/** An amount of memory or disk in words. */
export function gibibytes(bytes: number): string {
  const amount = bytes / 2 ** 30;
  return `${amount.toFixed(amount < 10 ? 2 : 0)} GiB`;
}
