/** "0.42", "31", "1.2k", "3.4M": three figures that a progress line has room for. */
export function formatCount(value: number): string {
  // From what rounds to the unit: "1000k" is 1M.
  if (value >= 999.5e9) return `${trim(value / 1e12)}T`;
  if (value >= 999.5e6) return `${trim(value / 1e9)}G`;
  if (value >= 999.5e3) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return Number.isInteger(value) || value >= 100 ? `${Math.round(value)}` : trim(value);
}

/** "1 pair", "2 pairs": of a result, so to the last one. */
export function formatCounted(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? "" : "s"}`;
}

function trim(value: number): string {
  return `${+value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}`;
}

/** "4 ms", "0.8 s", "42 s", "3 min 5 s", "2 h 10 min" */
export function formatDuration(seconds: number): string {
  if (seconds > 0 && seconds < 0.0995) return `${Math.ceil(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** "12 MiB", "1.4 GiB" */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : trim(value)} ${units[unit]}`;
}
