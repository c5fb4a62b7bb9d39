import { crc32 } from "node:zlib";
import { isObject, TemporaError } from "@tempora/errors";
import type { LineFormat } from "@tempora/text";
import { changedRemedy, earlierRemedy } from "./sealed.ts";

const opening = '{"crc":"';
const digits = 8;
const closing = '",';

/**
 * A JSON object a line, with the CRC-32 of the rest before its own fields: a log that nobody has sealed yet, and that a killed stage
 * goes on from, tells a changed byte from what was written.
 */
export const checkedLines: LineFormat<unknown> = {
  write(row) {
    const text = JSON.stringify(row);
    return `${beginning(text)}${text.slice(1)}`;
  },
  read(line) {
    const at = opening.length + digits + closing.length;
    const text = `{${line.slice(at)}`;
    if (line.slice(0, at) !== beginning(text)) {
      if (neverChecked(line)) {
        throw new TemporaError("An earlier version of Tempora wrote this row, without a checksum", {
          remedy: earlierRemedy,
        });
      }
      throw new TypeError("the checksum of the row is not that of its content");
    }
    return JSON.parse(text);
  },
  remedy: changedRemedy,
};

/** Whether the line is a whole row of another form: one changed byte does not make that of a checked one. */
function neverChecked(line: string): boolean {
  const differs = [...opening].filter((character, k) => line[k] !== character).length;
  if (differs < 2) return false;
  try {
    return isObject(JSON.parse(line));
  } catch {
    return false;
  }
}

function beginning(text: string): string {
  return `${opening}${crc32(text).toString(16).padStart(digits, "0")}${closing}`;
}
